//! The books balance: what is there is what was put in and what came of it.

use super::currency::{REASONS, reason_index};
use super::{Ledger, exact};
use crate::money::Decimal;
use crate::report::CashReason;

/// Both sides of the account in one currency. They are equal, to the last digit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which.
    pub currency: String,
    /// Cash, value of what was paid for, open profit of what was not.
    pub there: Decimal,
    /// Start + transfers + realized + unrealized - fees + funding + dividends + interest + other cash + the cost of units that came
    /// without a fill.
    pub came: Decimal,
}

impl Identity {
    /// Whether they are equal.
    pub fn holds(&self) -> bool {
        self.there == self.came
    }
}

impl Ledger {
    /// Both sides for every currency, at the marks (at cost where there is no mark). `None` where a sum has too many digits.
    pub fn identity(&self) -> Option<Vec<Identity>> {
        let mut all = Vec::with_capacity(self.state.purses.len());
        for (place, purse) in self.state.purses.iter().enumerate() {
            let moved = purse.moved.iter().try_fold(Decimal::ZERO, |sum, &amount| exact::add(sum, amount))?;
            let start = exact::add(purse.start, purse.adopted)?;
            let mut came = exact::sub(exact::add(exact::add(start, moved)?, purse.realized)?, purse.fees)?;
            let mut there = purse.cash;
            for &instrument in &self.held {
                let i = instrument as usize;
                if self.known[i].quote != place {
                    continue;
                }
                let cost = self.state.positions[i].cost;
                let value = if self.state.marks[i].is_nan() { cost } else { self.value_exact(i)? };
                let unrealized = exact::sub(value, cost)?;
                there = exact::add(there, if self.known[i].paid { value } else { unrealized })?;
                came = exact::add(came, unrealized)?;
            }
            all.push(Identity { currency: purse.name.clone(), there, came });
        }
        Some(all)
    }

    /// What moved the cash of `currency` for `reason` since the start, fills apart.
    pub fn moved(&self, currency: &str, reason: CashReason) -> Decimal {
        let purse = self.state.purses.iter().find(|purse| purse.name == currency);
        purse.map_or(Decimal::ZERO, |purse| purse.moved[reason_index(reason)])
    }

    /// [`Ledger::moved`] of all reasons that are not zero.
    pub fn moved_all(&self, currency: &str) -> impl Iterator<Item = (CashReason, Decimal)> + '_ {
        let purse = self.state.purses.iter().find(|purse| purse.name == currency);
        purse
            .into_iter()
            .flat_map(|purse| REASONS.into_iter().zip(purse.moved))
            .filter(|(_, sum)| !sum.is_zero())
    }
}
