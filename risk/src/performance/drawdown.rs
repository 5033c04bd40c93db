//! How far, and how long, equity lies below its peak: as a stream ([`Drawdown`]) or of a series of returns.

use serde::{Deserialize, Serialize};

use super::moments::checked;

/// The drawdown of a stream of equity. O(1) per observation and in state.
///
/// A spell lasts from its peak until equity is at least the peak again, or until the last observation; its length is counted in
/// observations and in nanoseconds. Equity that is not finite is not an observation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Drawdown {
    peak: Option<Point>,
    /// Observations since the peak.
    periods: u64,
    last: Option<Point>,
    deepest: f64,
    deepest_amount: f64,
    longest_periods: u64,
    longest_ns: i64,
}

/// Equity at a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// UTC nanoseconds.
    pub ts: i64,
    /// Equity, in the account's currency.
    pub equity: f64,
}

impl Drawdown {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the equity at `ts` (UTC nanoseconds, never falling), and gives [`Self::current`].
    pub fn observe(&mut self, ts: i64, equity: f64) -> Option<f64> {
        if !equity.is_finite() {
            return self.current();
        }
        self.last = Some(Point { ts, equity });
        let Some(peak) = self.peak else {
            self.peak = self.last;
            return self.current();
        };
        let below = equity < peak.equity;
        if below || self.periods > 0 {
            // Below the peak, or at its level again after a time below it: where the spell ends.
            self.periods += 1;
            self.longest_periods = self.longest_periods.max(self.periods);
            self.longest_ns = self.longest_ns.max(ts.saturating_sub(peak.ts));
        }
        if below {
            self.deepest_amount = self.deepest_amount.min(equity - peak.equity);
            self.deepest = self.deepest.min(self.current().unwrap_or(0.0));
        } else {
            self.peak = self.last;
            self.periods = 0;
        }
        self.current()
    }

    /// The equity at the peak so far, and when it was (last) there.
    pub const fn peak(&self) -> Option<Point> {
        self.peak
    }

    /// Equity over its peak less one, now: 0 at a peak, negative below. None before the first observation, and while the peak is not
    /// above zero.
    pub fn current(&self) -> Option<f64> {
        let (peak, last) = (self.peak?, self.last?);
        (peak.equity > 0.0).then(|| last.equity / peak.equity - 1.0)
    }

    /// The deepest drawdown so far as a fraction of its peak: 0 or negative.
    pub const fn deepest(&self) -> f64 {
        self.deepest
    }

    /// The largest fall from a peak so far in the currency of equity: 0 or negative.
    pub const fn deepest_amount(&self) -> f64 {
        self.deepest_amount
    }

    /// The most observations from a peak until it was reached again, or until now.
    pub const fn longest_periods(&self) -> u64 {
        self.longest_periods
    }

    /// The most nanoseconds from a peak until it was reached again, or until now.
    pub const fn longest_ns(&self) -> i64 {
        self.longest_ns
    }
}

/// The drawdowns after each return, of one unit invested before the first: 0 at a peak, negative below.
pub fn drawdowns(returns: &[f64]) -> Option<Vec<f64>> {
    checked(returns, 1)?;
    let (mut equity, mut peak) = (1.0_f64, 1.0_f64);
    let path = returns.iter().map(|r| {
        equity *= 1.0 + r;
        peak = peak.max(equity);
        equity / peak - 1.0
    });
    // Wealth that overflows has no drawdown.
    path.map(|x| x.is_finite().then_some(x)).collect()
}

/// The deepest of the [`drawdowns`]: 0 or negative.
pub fn max_drawdown(returns: &[f64]) -> Option<f64> {
    Some(drawdowns(returns)?.into_iter().fold(0.0, f64::min))
}

/// The most periods from a peak until it was reached again, or until the last return.
pub fn max_drawdown_periods(returns: &[f64]) -> Option<u64> {
    let mut stream = Drawdown::new();
    let mut equity = 1.0;
    stream.observe(0, equity);
    for r in checked(returns, 1)? {
        equity *= 1.0 + r;
        stream.observe(0, equity);
    }
    Some(stream.longest_periods())
}
