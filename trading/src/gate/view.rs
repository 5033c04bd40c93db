//! What the gate and the sizing rules must know of an account: a trait, so that they need no ledger of their own.

use crate::history::History;
use crate::market::InstrumentId;
use crate::money::Decimal;

/// Units of the working orders of one instrument: what may still be filled of them. An order works from the moment that it is sent until it is
/// over, whatever the venue has said of it meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Working {
    /// To buy, by orders that are not reduce-only.
    pub buys: Decimal,
    /// To sell, by orders that are not reduce-only.
    pub sells: Decimal,
    /// To buy, by reduce-only orders.
    pub reducing_buys: Decimal,
    /// To sell, by reduce-only orders.
    pub reducing_sells: Decimal,
}

/// An account as it is now. Each call is a read of O(1).
pub trait View {
    /// What the account is worth, in its currency. NaN where that is not known.
    fn equity(&self) -> f64;
    /// The account's currency.
    fn currency(&self) -> &str;
    /// Units held, negative when short.
    fn position(&self, instrument: InstrumentId) -> Decimal;
    /// Units that working orders may still trade.
    fn working(&self, instrument: InstrumentId) -> Working;
    /// The price by which a position is valued. NaN where none is known.
    fn price(&self, instrument: InstrumentId) -> f64;
    /// What one unit of the instrument's quote currency is worth in the account's currency. `None` where that is not known.
    fn rate(&self, instrument: InstrumentId) -> Option<Decimal>;
    /// Sampled returns. Needed by `var`, `correlation`, and the sizing rules that measure volatility.
    fn history(&self) -> Option<&History>;
}
