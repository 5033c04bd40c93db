//! What an account did, read from the rows of its `execution` operator.

use std::collections::BTreeMap;

use serde_json::Value;
use tidemill_trading::Decimal;
use tidemill_trading::money;
use tidemill_trading::order::Side;

use super::columns::{Exact, Numbers, Rows, Text};
use super::curve::Point;
use super::pairing::{Execution, Pairing, Trade};
use super::range::Range;

/// An account's history.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The account at each sample.
    pub curve: Vec<Point>,
    /// Equity before the first row.
    pub start: f64,
    /// Fees paid before the range that was read.
    pub fees_before: f64,
    /// Fills, in order.
    pub fills: Vec<Filled>,
    /// Round trips.
    pub trades: Vec<Trade>,
    /// Each instrument's part.
    pub symbols: BTreeMap<String, Symbol>,
    /// Orders sent.
    pub orders: u64,
    /// Orders refused before they were sent, by rule.
    pub rejections: BTreeMap<String, u64>,
    /// Orders refused by the venue.
    pub refused_by_venue: u64,
    /// Cash that came or went beside fills, by reason, in the account's currency.
    pub cash: BTreeMap<String, f64>,
    /// What a person should look at, by code.
    pub alerts: BTreeMap<String, u64>,
    /// Changes of the machine's state: when, and to what.
    pub states: Vec<(i64, String, String)>,
}

/// A fill, for figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filled {
    /// When.
    pub ts: i64,
    /// Its value in the account's currency; NaN where no rate was known.
    pub value: f64,
}

/// What was made of one instrument.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Symbol {
    /// Fills.
    pub fills: u64,
    /// Value traded, in the account's currency.
    pub traded: f64,
    /// Gain made real, before fees, in the account's currency.
    pub realized: f64,
    /// Gain of what is still held, in the account's currency.
    pub unrealized: f64,
    /// Fees, in the account's currency.
    pub fees: f64,
    /// Units held at the end.
    pub position: f64,
}

/// What the graph says of an account and its instruments.
pub struct Terms {
    /// The account's currency.
    pub currency: String,
    /// What it begins with, where that is all in its currency.
    pub cash: Option<f64>,
    /// What trading costs nothing of.
    pub free: Vec<&'static str>,
    /// The value of one unit at a price of one.
    listed: BTreeMap<String, Decimal>,
    others: Decimal,
}

impl Terms {
    /// Reads the `with:` block of an `execution` node.
    pub fn new(with: &Value) -> Self {
        let exact = |value: &Value| match value {
            Value::String(text) => Decimal::from_str_exact(text).ok(),
            number => number.as_f64().and_then(money::from_f64),
        };
        let of = |instrument: &Value| instrument.get("multiplier").and_then(exact);
        let account = with.get("account");
        let currency =
            account.and_then(|a| a.get("currency")).and_then(Value::as_str).unwrap_or("USD").to_owned();
        let cash = match account.and_then(|a| a.get("cash")) {
            Some(Value::Object(cash)) if cash.len() == 1 => {
                cash.get(&currency).and_then(exact).map(money::to_f64)
            }
            _ => None,
        };
        let listed = with.get("instruments").and_then(Value::as_array).into_iter().flatten();
        let listed = listed
            .filter_map(|i| Some((i.get("symbol")?.as_str()?.to_owned(), of(i).unwrap_or(Decimal::ONE))));
        let others = with.get("default_instrument").and_then(of).unwrap_or(Decimal::ONE);
        Self { currency, cash, free: Vec::new(), listed: listed.collect(), others }
    }

    fn of(&self, symbol: &str) -> Decimal {
        self.listed.get(symbol).copied().unwrap_or(self.others)
    }
}

/// Reads an account's rows in `range`. What happened before it only says what the account had at its start.
pub fn read(rows: &Rows, terms: &Terms, range: Range) -> Account {
    let mut account = Account::default();
    let mut pairing = Pairing::default();
    let event = rows.text("event");
    let columns = Columns::new(rows);
    let mut before: Option<Point> = None;
    let mut realized_before: BTreeMap<String, (f64, f64, f64)> = BTreeMap::new();
    for (i, ts) in rows.ts().iter().copied().enumerate() {
        if ts >= range.1 {
            break;
        }
        let counts = ts >= range.0;
        let symbol = columns.symbol.get(i).unwrap_or_default();
        match event.get(i).unwrap_or_default() {
            "equity" => {
                let Some(equity) = columns.equity.get(i) else { continue };
                let or_zero = |c: &Numbers| c.get(i).unwrap_or_default();
                let point = Point {
                    ts,
                    equity,
                    cash: or_zero(&columns.cash),
                    gross: or_zero(&columns.gross),
                    net: or_zero(&columns.net),
                    fees: or_zero(&columns.fees_total),
                };
                if counts { account.curve.push(point) } else { before = Some(point) }
            }
            "fill" => {
                let Some(fill) = columns.fill(i, ts, symbol) else { continue };
                pairing.fill(&fill, terms.of(symbol));
                if counts {
                    let rate = if columns.values(i) { money::to_f64(fill.rate) } else { f64::NAN };
                    let value = money::to_f64(fill.price)
                        * money::to_f64(fill.quantity)
                        * money::to_f64(terms.of(symbol))
                        * rate;
                    account.fills.push(Filled { ts, value });
                    let entry = account.symbols.entry(symbol.to_owned()).or_default();
                    entry.fills += 1;
                    entry.traded += if value.is_nan() { 0.0 } else { value };
                }
            }
            "position" => {
                if let Some(quantity) = columns.position.get(i).or_else(|| columns.quantity.get(i)) {
                    pairing.position(ts, symbol, quantity);
                    let entry = account.symbols.entry(symbol.to_owned()).or_default();
                    let number = |c: &Numbers, old: f64| c.get(i).unwrap_or(old);
                    entry.position = money::to_f64(quantity);
                    entry.realized = number(&columns.realized, entry.realized);
                    entry.unrealized = number(&columns.unrealized, entry.unrealized);
                    entry.fees = number(&columns.fees_total, entry.fees);
                    if !counts {
                        let had = (entry.realized, entry.unrealized, entry.fees);
                        realized_before.insert(symbol.to_owned(), had);
                    }
                }
            }
            "order" if counts => account.orders += 1,
            "rejection" if counts => {
                let rule = columns.rule.get(i).unwrap_or("unknown");
                *account.rejections.entry(rule.to_owned()).or_default() += 1;
            }
            "status" if counts && columns.status.get(i) == Some("rejected") => account.refused_by_venue += 1,
            "cash" => {
                let reason = columns.reason.get(i).unwrap_or("other");
                let rate = columns.rate(i).unwrap_or_default();
                let amount =
                    columns.amount.get(i).and_then(|amount| amount.checked_mul(rate)).unwrap_or_default();
                if reason == "in_lieu" {
                    pairing.in_lieu(symbol, amount);
                }
                if counts {
                    *account.cash.entry(reason.to_owned()).or_default() += money::to_f64(amount);
                }
            }
            "alert" if counts => {
                let code = columns.rule.get(i).unwrap_or("unknown");
                *account.alerts.entry(code.to_owned()).or_default() += 1;
            }
            "state" if counts => {
                let state = columns.state.get(i).unwrap_or_default().to_owned();
                account.states.push((ts, state, columns.reason.get(i).unwrap_or_default().to_owned()));
            }
            _ => {}
        }
    }
    for (symbol, (realized, unrealized, fees)) in realized_before {
        if let Some(entry) = account.symbols.get_mut(&symbol) {
            entry.realized -= realized;
            entry.unrealized -= unrealized;
            entry.fees -= fees;
        }
    }
    account.symbols.retain(|_, s| s.fills > 0 || s.position != 0.0 || s.realized != 0.0);
    account.trades = pairing.trades();
    account.trades.retain(|t| t.closed_at >= range.0);
    // The first sample comes after the first rows: what the account began with is what the graph says.
    let first = account.curve.first().map_or(0.0, |p| p.equity);
    account.start = before.map(|p| p.equity).or(terms.cash).unwrap_or(first);
    account.fees_before = before.map_or(0.0, |p| p.fees);
    account
}

/// The columns that figures need.
struct Columns<'a> {
    symbol: Text<'a>,
    side: Text<'a>,
    order: Text<'a>,
    status: Text<'a>,
    reason: Text<'a>,
    rule: Text<'a>,
    state: Text<'a>,
    fill_price: Exact,
    fill_quantity: Exact,
    fee: Exact,
    fee_value: Exact,
    rate: Exact,
    has_rates: bool,
    quantity: Exact,
    position: Exact,
    realized: Numbers,
    unrealized: Numbers,
    amount: Exact,
    equity: Numbers,
    cash: Numbers,
    gross: Numbers,
    net: Numbers,
    fees_total: Numbers,
}

impl<'a> Columns<'a> {
    fn new(rows: &'a Rows) -> Self {
        Self {
            symbol: rows.text("symbol"),
            side: rows.text("side"),
            order: rows.text("order_id"),
            status: rows.text("status"),
            reason: rows.text("reason"),
            rule: rows.text("rule"),
            state: rows.text("state"),
            fill_price: rows.exact("fill_price"),
            fill_quantity: rows.exact("fill_quantity"),
            fee: rows.exact("fee"),
            fee_value: rows.exact("fee_value"),
            rate: rows.exact("rate"),
            has_rates: rows.batch().column_by_name("rate").is_some(),
            quantity: rows.exact("quantity"),
            position: rows.exact("position"),
            realized: rows.numbers("realized"),
            unrealized: rows.numbers("unrealized"),
            amount: rows.exact("amount"),
            equity: rows.numbers("equity"),
            cash: rows.numbers("cash"),
            gross: rows.numbers("gross"),
            net: rows.numbers("net"),
            fees_total: rows.numbers("fees_total"),
        }
    }

    /// What one unit of the row's currency was worth in the account's; `None`: unknown. Rows without such a column are in one
    /// currency.
    fn rate(&self, i: usize) -> Option<Decimal> {
        if self.has_rates { self.rate.get(i) } else { Some(Decimal::ONE) }
    }

    /// Whether the row's value in the account's currency is known.
    fn values(&self, i: usize) -> bool {
        self.rate(i).is_some()
    }

    fn fill(&self, i: usize, ts: i64, symbol: &str) -> Option<Execution> {
        let side = match self.side.get(i)? {
            s if s.eq_ignore_ascii_case("buy") => Side::Buy,
            s if s.eq_ignore_ascii_case("sell") => Side::Sell,
            _ => return None,
        };
        Some(Execution {
            ts,
            symbol: symbol.to_owned(),
            order: self.order.get(i).unwrap_or_default().to_owned(),
            side,
            price: self.fill_price.get(i)?,
            quantity: self.fill_quantity.get(i)?,
            fee: if self.has_rates { self.fee_value.get(i) } else { self.fee.get(i) }.unwrap_or_default(),
            rate: self.rate(i).unwrap_or_default(),
        })
    }
}
