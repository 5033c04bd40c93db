//! Splits and dividends, so that no sample takes them for a fall of the price.
//!
//! An action counts from its `ts` on, before rows of that time. A split leaves what is held worth the same. A dividend counts in the
//! sample of the first price that came without it, as part of that sample's return.

use tidemill_trading::execution::corporate::{CorporateAction, CorporateKind};
use tidemill_trading::money;

use super::book::{Book, Symbol};

/// One of them, in numbers of analytics.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Action {
    /// UTC nanoseconds.
    pub ts: i64,
    symbol: String,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// New units for an old one.
    Split(f64),
    /// Cash for a unit.
    Dividend(f64),
}

impl From<CorporateAction> for Action {
    fn from(action: CorporateAction) -> Self {
        let value = money::to_f64(action.value);
        let what = match action.kind {
            CorporateKind::Split => What::Split(value),
            CorporateKind::Dividend => What::Dividend(value),
        };
        Self { ts: action.ts, symbol: action.symbol, what }
    }
}

impl Action {
    /// Happens; to a symbol that nobody has seen it means nothing.
    pub fn happen(&self, book: &mut Book) {
        let Some(id) = book.find(&self.symbol) else { return };
        let symbol: &mut Symbol = &mut book.symbols[id];
        match self.what {
            What::Split(ratio) => {
                symbol.quantity *= ratio;
                for price in [&mut symbol.price, &mut symbol.sampled, &mut symbol.owed, &mut symbol.paid] {
                    *price /= ratio;
                }
            }
            What::Dividend(cash) => symbol.owed += cash,
        }
    }
}
