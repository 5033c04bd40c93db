//! Slicing: a large order is sent in parts, so that it moves the market less.
//!
//! A [`Schedule`] says how much of an order should have been sent by now. It knows nothing of orders: what it is told of is time, trades
//! of the market, and that a slice is over. Its parts always sum to the whole, each a multiple of the lot (but what the whole is not).
//!
//! | kind | how much has been sent |
//! |---|---|
//! | `twap` | equal parts at equal steps of time, the first at once |
//! | `vwap` | as `twap`, the parts in proportion to a profile of volume |
//! | `pov` | a part of what the market traded since it began |
//! | `iceberg` | one part at a time; the next when the last is filled |

mod iceberg;
mod pov;
mod timed;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::money::{Decimal, Exact};
use crate::span::Span;

/// How a large order is cut. What the venue leaves unfilled of a slice (the rest of an `ioc` order, one whose time is over) is not sent again; the
/// next wish sees to it. An `iceberg` ends with such a slice, the others go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum AlgoParams {
    /// Equal parts at equal steps.
    Twap {
        /// The time that it takes, from the first slice to the end of the last one's step.
        over: Span,
        /// How many slices.
        slices: u32,
    },
    /// Parts in proportion to the volume that is usual.
    Vwap {
        /// The time that it takes.
        over: Span,
        /// Usual volumes of equal parts of `over`, in any unit; one slice for each.
        profile: Vec<Exact>,
    },
    /// A part of what the market trades.
    Pov {
        /// Which part (0.1: ten percent).
        rate: Exact,
        /// The smallest slice; default: one lot.
        #[serde(default)]
        min: Option<Exact>,
        /// When what is left is given up; default: never.
        #[serde(default)]
        over: Option<Span>,
    },
    /// Only a part is shown at a time; for limit orders.
    Iceberg {
        /// Units shown.
        display: Exact,
    },
}

/// The most slices of one order.
pub const SLICES_MAX: usize = 10_000;

impl AlgoParams {
    /// What is wrong with it: field and reason.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut wrong = |path: &str, reason: String| problems.push((path.to_owned(), reason));
        let long = "must be longer than zero".to_owned();
        match self {
            Self::Twap { over, slices } => {
                if over.ns() == 0 {
                    wrong("twap.over", long);
                }
                if *slices == 0 || *slices as usize > SLICES_MAX {
                    wrong("twap.slices", format!("must be from 1 to {SLICES_MAX}"));
                }
            }
            Self::Vwap { over, profile } => {
                if over.ns() == 0 {
                    wrong("vwap.over", long);
                }
                let sum = profile.iter().try_fold(Decimal::ZERO, |sum, w| sum.checked_add(w.0));
                if profile.len() > SLICES_MAX {
                    wrong("vwap.profile", format!("must have at most {SLICES_MAX} parts"));
                }
                if profile.iter().any(|w| w.0 < Decimal::ZERO) || sum.is_none_or(|sum| sum <= Decimal::ZERO) {
                    wrong("vwap.profile", "needs volumes, none below zero and one above it".into());
                }
            }
            Self::Pov { rate, min, over } => {
                if rate.0 <= Decimal::ZERO || rate.0 > Decimal::ONE {
                    wrong("pov.rate", "must be above 0 and at most 1".into());
                }
                if min.is_some_and(|min| min.0 <= Decimal::ZERO) {
                    wrong("pov.min", "must be above zero".into());
                }
                if over.is_some_and(|over| over.ns() == 0) {
                    wrong("pov.over", long);
                }
            }
            Self::Iceberg { display } => {
                if display.0 <= Decimal::ZERO {
                    wrong("iceberg.display", "must be above zero".into());
                }
            }
        }
        problems
    }
}

/// How much of an order has been sent, and when more will be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    total: Decimal,
    lot: Decimal,
    sent: Decimal,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Timed(timed::Timed),
    Pov(pov::Pov),
    Iceberg(iceberg::Iceberg),
}

impl Schedule {
    /// A schedule for `total` units (> 0) from `start` on, in multiples of `lot` (> 0).
    pub fn new(params: &AlgoParams, start: i64, total: Decimal, lot: Decimal) -> Self {
        let kind = match params {
            AlgoParams::Twap { over, slices } => Kind::Timed(timed::Timed::new(
                start,
                over.ns(),
                vec![Decimal::ONE; (*slices).max(1) as usize],
            )),
            AlgoParams::Vwap { over, profile } => {
                Kind::Timed(timed::Timed::new(start, over.ns(), profile.iter().map(|w| w.0).collect()))
            }
            AlgoParams::Pov { rate, min, over } => {
                let end = over.map_or(i64::MAX, |over| start.saturating_add(over.ns()));
                Kind::Pov(pov::Pov::new(rate.0, min.map_or(lot, |min| min.0), end))
            }
            AlgoParams::Iceberg { display } => Kind::Iceberg(iceberg::Iceberg::new(display.0)),
        };
        Self { total, lot, sent: Decimal::ZERO, kind }
    }

    /// When something may be due by time alone; `i64::MAX`: never.
    pub fn next_due(&self) -> i64 {
        match &self.kind {
            Kind::Timed(timed) => timed.next_due(),
            Kind::Pov(pov) => pov.end(),
            Kind::Iceberg(iceberg) => iceberg.next_due(),
        }
    }

    /// The market traded so many units.
    pub fn traded(&mut self, size: f64) {
        if let Kind::Pov(pov) = &mut self.kind {
            pov.traded(size);
        }
    }

    /// A slice was filled whole.
    pub fn slice_filled(&mut self, now: i64) {
        if let Kind::Iceberg(iceberg) = &mut self.kind {
            iceberg.filled(now);
        }
    }

    /// Whether a slice comes only when the one before is filled: one that never is ends the whole.
    pub fn is_one_at_a_time(&self) -> bool {
        matches!(self.kind, Kind::Iceberg(_))
    }

    /// The units that should be sent now; they count as sent.
    pub fn due(&mut self, now: i64) -> Decimal {
        let rest = self.rest();
        let by_now = match &mut self.kind {
            Kind::Timed(timed) => timed.by(now, self.total),
            Kind::Pov(pov) => pov.by(now, self.sent, self.total),
            Kind::Iceberg(iceberg) => iceberg.by(now, self.sent, self.total),
        };
        // What is cut off a slice comes with a later one; the last takes all that is left.
        let more = by_now.checked_sub(self.sent).unwrap_or_default().min(rest);
        let slice = if more == rest { rest } else { crate::money::floor_to(more, self.lot) };
        if slice <= Decimal::ZERO {
            return Decimal::ZERO;
        }
        self.sent += slice;
        slice
    }

    /// Units not sent yet; zero where the rest was given up.
    pub fn rest(&self) -> Decimal {
        match &self.kind {
            Kind::Pov(pov) if pov.is_over() => Decimal::ZERO,
            _ => self.total - self.sent,
        }
    }

    /// Every unit became `ratio` units.
    pub fn split(&mut self, ratio: Decimal) {
        let more = |q: Decimal| q.checked_mul(ratio).unwrap_or(q);
        (self.total, self.sent) = (more(self.total), more(self.sent));
        match &mut self.kind {
            Kind::Timed(_) => {}
            Kind::Pov(pov) => pov.split(ratio),
            Kind::Iceberg(iceberg) => iceberg.split(ratio),
        }
    }
}

#[cfg(test)]
mod tests;
