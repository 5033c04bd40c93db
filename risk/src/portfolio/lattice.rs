//! Sums of `f64` that are exact because every term is a multiple of one quantum.
//!
//! `(x + m) - m` rounds `x` to a multiple of the quantum `q` where `m = 1.5 x 2^52 x q` and `|x| < 2^51 q`: at that size the last bit of an
//! `f64` is worth `q`. Multiples of `q` whose sums stay below `2^53 q` add up without rounding. The bound here is `2^50 q`.

use serde::{Deserialize, Serialize};

use super::Exposure;

/// No exposure may gain or lose as much.
pub(super) const EXTENT_MAX: f64 = 1e250;
/// A book that gains or loses less than this at most is summed as it is.
const EXTENT_MIN: f64 = 1e-250;
/// A return beyond this is no return.
pub(super) const RETURN_MAX: f64 = 1e12;

/// The quantum of a book, and how much of its range is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Lattice {
    /// `1.5 x 2^52` quanta; 0 while there is nothing to sum.
    magic: f64,
    /// Sum of the largest profits of all exposures; the sum may be off by rounding, far less than the slack.
    extent: f64,
    /// What `extent` may grow to: `2^50` quanta.
    bound: f64,
}

impl Lattice {
    /// For a book whose exposures gain or lose `extent` at most: there is room for twice as much.
    pub fn over(extent: f64) -> Self {
        if extent.is_nan() || extent <= EXTENT_MIN {
            return Self::default();
        }
        // The next power of two, twice: from the exponent's bits, so that it is the same on every machine.
        let exponent = (extent.to_bits() >> 52) as i32 - 1023;
        let bound = 2f64.powi(exponent.min(960) + 2);
        Self { magic: bound * 6.0, extent, bound }
    }

    /// Takes more (or less) into account; `false` where the quantum no longer suits.
    #[must_use]
    pub fn grow(&mut self, more: f64) -> bool {
        self.extent += more;
        // Also where both are nought: there is nothing to sum yet.
        self.extent <= self.bound && self.extent * 64.0 >= self.bound
    }

    /// The nearest multiple of the quantum.
    #[inline(always)]
    pub fn round(self, x: f64) -> f64 {
        (x + self.magic) - self.magic
    }

    /// Takes `old` out of the profits and puts `new` in. `row` are the returns.
    #[inline]
    pub fn shift(self, pnl: &mut [f64], row: &[f64], old: Exposure, new: Exposure) {
        if old.quadratic == 0.0 && new.quadratic == 0.0 {
            let (old, new) = (old.linear, new.linear);
            for (p, r) in pnl.iter_mut().zip(row) {
                *p += self.round(new * r) - self.round(old * r);
            }
        } else {
            for (p, r) in pnl.iter_mut().zip(row) {
                *p += self.round(new.profit(*r)) - self.round(old.profit(*r));
            }
        }
    }
}
