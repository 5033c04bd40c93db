//! The currencies of an account: cash and what moved it, and what each is worth in the account's currency.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::params::LedgerParams;
use crate::instrument::Instrument;
use crate::money::{self, Decimal};
use crate::report::CashReason;

/// Cash in one currency, and what it comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Purse {
    pub name: String,
    pub cash: Decimal,
    pub start: Decimal,
    /// Profits made real of instruments quoted in it.
    pub realized: Decimal,
    /// Paid for fills.
    pub fees: Decimal,
    /// Cost of units that came or went without a fill (a venue has others than we thought).
    pub adopted: Decimal,
    /// By [`CashReason`], in the order of [`REASONS`]; cash in lieu is among the others.
    pub moved: [Decimal; 6],
}

pub(crate) const REASONS: [CashReason; 6] = [
    CashReason::Funding,
    CashReason::Borrow,
    CashReason::Dividend,
    CashReason::Transfer,
    CashReason::Fee,
    CashReason::Other,
];

pub(crate) fn reason_index(reason: CashReason) -> usize {
    match reason {
        CashReason::Funding => 0,
        CashReason::Borrow => 1,
        CashReason::Dividend => 2,
        CashReason::Transfer => 3,
        CashReason::Fee => 4,
        CashReason::InLieu | CashReason::Other => 5,
    }
}

/// One step from a currency to another: times a price or a fixed rate, or divided by it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Price { instrument: usize, inverse: bool },
    Fixed { rate: Decimal, near: f64, inverse: bool },
}

/// How a currency is turned into the account's; `None` where no way is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Way(Option<Vec<Step>>);

impl Way {
    /// Worth of one unit; NaN where it is not known.
    pub fn near(&self, marks: &[f64]) -> f64 {
        let Some(steps) = &self.0 else { return f64::NAN };
        steps.iter().fold(1.0, |worth, step| {
            let (rate, inverse) = match *step {
                Step::Price { instrument, inverse } => (marks[instrument], inverse),
                Step::Fixed { near, inverse, .. } => (near, inverse),
            };
            if inverse { worth / rate } else { worth * rate }
        })
    }

    /// As [`Way::near`], in decimals: exact but where a rate is turned round.
    pub fn exact(&self, marks: &[f64]) -> Option<Decimal> {
        self.0.as_ref()?.iter().try_fold(Decimal::ONE, |worth, step| {
            let (rate, inverse) = match *step {
                Step::Price { instrument, inverse } => (money::from_f64(marks[instrument])?, inverse),
                Step::Fixed { rate, inverse, .. } => (rate, inverse),
            };
            if inverse { worth.checked_div(rate) } else { worth.checked_mul(rate) }
        })
    }
}

/// The way of each of `currencies`: the shortest one, and among these the one whose rates are listed first.
pub(crate) fn ways(params: &LedgerParams, instruments: &[Instrument], currencies: &[Purse]) -> Vec<Way> {
    let mut found: BTreeMap<&str, Vec<Step>> = BTreeMap::from([(params.currency.as_str(), Vec::new())]);
    let mut next = VecDeque::from([params.currency.as_str()]);
    while let Some(reached) = next.pop_front() {
        for rate in &params.rates {
            let step = |inverse: bool| match (&rate.symbol, rate.rate) {
                (Some(symbol), _) => {
                    let instrument =
                        instruments.iter().position(|instrument| instrument.symbol == *symbol)?;
                    Some(Step::Price { instrument, inverse })
                }
                (None, Some(rate)) => {
                    Some(Step::Fixed { rate: rate.0, near: money::to_f64(rate.0), inverse })
                }
                (None, None) => None,
            };
            let (other, inverse) = match (rate.to == reached, rate.from == reached) {
                (true, false) => (rate.from.as_str(), false),
                (false, true) => (rate.to.as_str(), true),
                _ => continue,
            };
            if let Some(step) = step(inverse)
                && !found.contains_key(other)
            {
                let steps = std::iter::once(step).chain(found[reached].iter().copied()).collect();
                found.insert(other, steps);
                next.push_back(other);
            }
        }
    }
    currencies.iter().map(|purse| Way(found.get(purse.name.as_str()).cloned())).collect()
}
