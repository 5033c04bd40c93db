//! Symbols of coins: orders and executions say `BTC/USD`, positions say `BTCUSD`
//! (<https://docs.alpaca.markets/docs/crypto-trading>). Those of shares are the same everywhere.

use super::wire::Position;

/// The currencies that coins are traded in.
const QUOTES: [&str; 4] = ["USDT", "USDC", "USD", "BTC"];

/// What positions call a symbol.
pub fn position_symbol(symbol: &str) -> String {
    symbol.replace('/', "")
}

/// What orders call the symbol of a position: one of those that are `known`, else by the currency at its end.
pub fn order_symbol<'a>(position: &Position, mut known: impl Iterator<Item = &'a str>) -> String {
    let symbol = position.symbol.as_str();
    if symbol.contains('/') || !matches!(position.asset_class.as_str(), "crypto" | "") {
        return symbol.to_owned();
    }
    if let Some(pair) = known.find(|pair| pair.contains('/') && position_symbol(pair) == symbol) {
        return pair.to_owned();
    }
    // Where the venue does not say what it is, it is taken for a share.
    let quote = QUOTES.iter().filter(|_| position.asset_class == "crypto");
    let mut pairs = quote.filter_map(|quote| Some((symbol.strip_suffix(quote)?, quote)));
    match pairs.find(|(base, _)| !base.is_empty()) {
        Some((base, quote)) => format!("{base}/{quote}"),
        None => symbol.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_coins_have_the_symbols_of_their_orders() {
        for (symbol, class, known, expected) in [
            ("BTCUSD", "crypto", None, "BTC/USD"),
            ("ETHBTC", "crypto", None, "ETH/BTC"),
            ("SOLUSDT", "crypto", None, "SOL/USDT"),
            ("USDTUSD", "crypto", None, "USDT/USD"),
            ("BTC/USD", "crypto", None, "BTC/USD"),
            ("XYZEUR", "crypto", None, "XYZEUR"),
            ("XYZEUR", "crypto", Some("XYZ/EUR"), "XYZ/EUR"),
            ("BTCUSD", "", Some("BTC/USD"), "BTC/USD"),
            ("BTCUSD", "", Some("BTCUSD"), "BTCUSD"),
            ("ACUSD", "us_equity", Some("AC/USD"), "ACUSD"),
            ("SPY", "us_equity", None, "SPY"),
        ] {
            let position = serde_json::json!({ "symbol": symbol, "asset_class": class });
            let position: Position = serde_json::from_value(position).unwrap();
            let found = order_symbol(&position, known.into_iter());
            assert_eq!(found, expected, "{symbol} {class}");
            if class == "crypto" {
                assert_eq!(position_symbol(&found), symbol.replace('/', ""));
            }
        }
    }
}
