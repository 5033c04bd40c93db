//! Positions at their prices: values of what is held itself, greeks of options.

use tidemill_risk::options::{European, Greeks, implied_vol};
use tidemill_risk::portfolio::Exposure;
use tidemill_risk::stress::OptionPosition;

use super::book::Book;
use super::config::{Config, Terms};

/// A year in nanoseconds, as options count it (365 days).
const YEAR_NS: f64 = 365.0 * 86_400e9;

/// Everything held, valued.
pub(super) struct Valued {
    /// By symbol number.
    pub exposures: Vec<Exposure>,
    pub positions: Vec<(usize, Position)>,
}

/// One position.
pub(super) enum Position {
    /// Something with a price of its own, worth this much.
    Plain(f64),
    /// An option on the symbol of that name.
    Option { underlying: String, position: OptionPosition, greeks: Greeks },
}

/// Values what is held; `None` where something has no price, or an option no volatility.
pub(super) fn value(book: &Book, config: &Config, ts: i64) -> Option<Valued> {
    let mut valued =
        Valued { exposures: vec![Exposure::default(); book.symbols.len()], positions: Vec::new() };
    for (i, symbol) in book.symbols.iter().enumerate().filter(|(_, s)| s.quantity != 0.0) {
        let multiplier = config.multipliers.get(&symbol.name).copied().unwrap_or(1.0);
        let units = symbol.quantity * multiplier;
        let position = match config.options.get(&symbol.name) {
            None => {
                let value = units * symbol.price;
                valued.exposures[i].linear += value;
                Position::Plain(Some(value).filter(|v| v.is_finite())?)
            }
            Some(terms) if terms.expiry <= ts => continue,
            Some(terms) => {
                let underlying = book.find(&terms.underlying)?;
                let option = option(terms, book.symbols[underlying].price, symbol.price, ts)?;
                let position = OptionPosition { units, option };
                let (exposure, greeks) = position.exposure().ok()?;
                valued.exposures[underlying].linear += exposure.linear;
                valued.exposures[underlying].quadratic += exposure.quadratic;
                Position::Option { underlying: terms.underlying.clone(), position, greeks }
            }
        };
        valued.positions.push((i, position));
    }
    Some(valued)
}

/// An option in its market. Without a volatility of its own, that of its price: nought where the price is below what exercise would bring.
fn option(terms: &Terms, spot: f64, price: f64, ts: i64) -> Option<European> {
    let mut option = European {
        kind: terms.kind,
        spot: Some(spot).filter(|s| s.is_finite())?,
        strike: terms.strike,
        rate: terms.rate,
        dividend: terms.dividend,
        vol: 0.0,
        years: terms.expiry.saturating_sub(ts) as f64 / YEAR_NS,
    };
    option.vol = match terms.volatility {
        Some(volatility) => volatility,
        None => match implied_vol(&option, price) {
            Ok(volatility) => volatility,
            Err(tidemill_risk::options::OptionError::BelowBound { .. }) => 0.0,
            Err(_) => return None,
        },
    };
    Some(option)
}

impl Position {
    /// Profit when prices move as `move_of` says and volatility by `vol`; NaN where it cannot be told.
    pub fn shocked(&self, symbol: &str, move_of: impl Fn(&str) -> f64, vol: f64) -> f64 {
        match self {
            Self::Plain(value) => value * move_of(symbol),
            Self::Option { underlying, position, .. } => {
                position.shocked(move_of(underlying), vol).unwrap_or(f64::NAN)
            }
        }
    }
}

impl Valued {
    /// Tells `(symbol, measure, value)` for each option held.
    pub fn tell_greeks(&self, book: &Book, mut tell: impl FnMut(&str, &str, f64)) {
        for (i, position) in &self.positions {
            let Position::Option { greeks, .. } = position else { continue };
            let all = [
                ("delta", greeks.delta),
                ("gamma", greeks.gamma),
                ("vega", greeks.vega),
                ("theta", greeks.theta),
                ("rho", greeks.rho),
            ];
            all.into_iter().for_each(|(measure, value)| tell(&book.symbols[*i].name, measure, value));
        }
    }
}
