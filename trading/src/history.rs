//! Sampled returns: prices on a grid of times that all instruments share.
//!
//! The grid's points are the multiples of `every` since 1970, UTC. The price of a point is the last one seen at or before it; where an
//! instrument was silent, its price is carried forward and its return is zero. A point between whose predecessor and itself *no* instrument
//! showed a price is left out (nights, weekends), so the window holds market time. Before an instrument's first price its returns are NaN.
//!
//! State: two windows of `f64` for each instrument. A price costs a comparison and a store; closing a point costs O(instruments).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::market::InstrumentId;
use crate::money::{Decimal, to_f64};
use crate::span::Span;

mod series;
mod year;

use series::Series;
use year::Year;

/// How returns are sampled, for rules that measure volatility, correlation or value at risk.
///
/// ```yaml
/// history: { every: 1d, window: 250, periods_per_year: 252 }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryParams {
    /// Distance of the samples.
    pub every: Span,
    /// How many returns are kept of each instrument.
    pub window: usize,
    /// `simple` (p1/p0 - 1) or `log`.
    pub returns: Returns,
    /// How many samples a year has, for volatilities a year. Default: found out from when prices come. Where they come on weekends, 365 days, all
    /// hours of them; else 252 days, with as many samples as whole days have had. Instruments of both kinds in one graph: write it.
    pub periods_per_year: Option<f64>,
    /// Fewest returns from which a volatility or covariance is told.
    pub min_samples: usize,
}

impl Default for HistoryParams {
    fn default() -> Self {
        let every = Span::from_ns(86_400_000_000_000);
        Self { every, window: 250, returns: Returns::Simple, periods_per_year: None, min_samples: 20 }
    }
}

/// How a return is reckoned from two prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Returns {
    /// p1/p0 - 1: what a position gains.
    #[default]
    Simple,
    /// ln(p1/p0).
    Log,
}

/// The most returns that are kept of an instrument.
pub const WINDOW_MAX: usize = 100_000;

/// Sampled returns of all instruments.
#[derive(Clone, Debug)]
pub struct History {
    every_ns: i64,
    kind: Returns,
    /// As the graph has it; `None`: as it is found out.
    periods_per_year: Option<f64>,
    min_samples: usize,
    state: HistoryState,
}

/// What [`History`] remembers: all that a snapshot must hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HistoryState {
    window: usize,
    /// The point that is open: prices at or before it belong to it. `i64::MIN` before the first price.
    open_point: i64,
    /// Whether a price was seen since the point before it.
    seen: bool,
    /// When the first of these came.
    #[serde(default)]
    first_at: i64,
    #[serde(default)]
    year: Year,
    /// Points closed so far, counted to one more than the window.
    rows: usize,
    /// Last prices; NaN: none yet.
    last: Vec<f64>,
    series: Vec<Series>,
}

impl History {
    /// An empty one for `instruments` instruments.
    ///
    /// # Errors
    /// What is wrong with the parameters, by their path.
    pub fn new(params: &HistoryParams, instruments: usize) -> Result<Self, Vec<(String, String)>> {
        let mut wrong = Vec::new();
        if params.every.ns() == 0 {
            wrong.push(("every".into(), "samples need a distance: write 1m, 1h or 1d".into()));
        }
        if !(2..=WINDOW_MAX).contains(&params.window) {
            wrong.push(("window".into(), format!("{} is not between 2 and {WINDOW_MAX}", params.window)));
        }
        if !(2..=params.window.max(2)).contains(&params.min_samples) {
            let reason =
                format!("{} is not between 2 and the window of {}", params.min_samples, params.window);
            wrong.push(("min_samples".into(), reason));
        }
        if let Some(periods) = params.periods_per_year.filter(|p| !(p.is_finite() && *p > 0.0)) {
            wrong.push(("periods_per_year".into(), format!("{periods} is not above zero")));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let state = HistoryState {
            window: params.window,
            open_point: i64::MIN,
            seen: false,
            first_at: 0,
            year: Year::default(),
            rows: 0,
            last: Vec::new(),
            series: Vec::new(),
        };
        let mut history = Self {
            every_ns: params.every.ns(),
            kind: params.returns,
            periods_per_year: params.periods_per_year,
            min_samples: params.min_samples,
            state,
        };
        (0..instruments).for_each(|_| history.add());
        Ok(history)
    }

    /// Room for one more instrument, numbered on.
    pub fn add(&mut self) {
        self.state.last.push(f64::NAN);
        self.state.series.push(Series::unknown(self.state.rows, self.state.window));
    }

    /// How many instruments it knows.
    pub fn len(&self) -> usize {
        self.state.last.len()
    }

    /// Whether it knows no instrument.
    pub fn is_empty(&self) -> bool {
        self.state.last.is_empty()
    }

    /// A price was seen. `ts` never goes back. What is no price (NaN, zero, negative) is passed over.
    #[inline]
    pub fn observe(&mut self, ts: i64, instrument: InstrumentId, price: f64) {
        if ts > self.state.open_point {
            self.advance(ts);
        }
        if price > 0.0
            && price < f64::INFINITY
            && let Some(last) = self.state.last.get_mut(instrument as usize)
        {
            *last = price;
            if !self.state.seen {
                (self.state.seen, self.state.first_at) = (true, ts);
            }
        }
    }

    /// Time has come to `ts`: points before it are closed. A point at `ts` stays open, for more may come at that time.
    pub fn advance(&mut self, ts: i64) {
        if ts <= self.state.open_point {
            return;
        }
        if self.state.seen {
            self.close();
        }
        let over = ts.rem_euclid(self.every_ns);
        self.state.open_point =
            if over == 0 { ts } else { ts.saturating_sub(over).saturating_add(self.every_ns) };
    }

    fn close(&mut self) {
        let (kind, window) = (self.kind, self.state.window);
        for (series, last) in self.state.series.iter_mut().zip(&self.state.last) {
            series.close(*last, kind, window);
        }
        self.state.year.sampled(self.state.first_at);
        self.state.rows = (self.state.rows + 1).min(window + 1);
        self.state.seen = false;
    }

    /// Every unit became `ratio` units: prices before are divided by it, so that the split makes no return.
    pub fn split(&mut self, instrument: InstrumentId, ratio: Decimal) {
        let (i, ratio) = (instrument as usize, to_f64(ratio));
        if ratio > 0.0
            && let Some(last) = self.state.last.get_mut(i)
        {
            *last /= ratio;
            self.state.series[i].split(ratio);
        }
    }

    /// The returns in the window, oldest first; NaN where the instrument had no price yet. All instruments have equally many.
    pub fn returns(&self, instrument: InstrumentId) -> &[f64] {
        self.state.series.get(instrument as usize).map_or(&[], |series| series.window(self.state.window))
    }

    /// How many samples a year has.
    pub fn periods_per_year(&self) -> f64 {
        self.periods_per_year.unwrap_or_else(|| self.state.year.periods(self.every_ns))
    }

    /// Fewest returns from which a volatility or covariance is told.
    pub fn min_samples(&self) -> usize {
        self.min_samples
    }

    /// How returns are reckoned.
    pub fn kind(&self) -> Returns {
        self.kind
    }

    /// Distance of the samples.
    pub fn every_ns(&self) -> i64 {
        self.every_ns
    }

    /// Volatility a year: the sample deviation (n - 1) of the returns times the root of the samples a year. `None` with fewer than
    /// `min_samples` returns.
    pub fn volatility(&self, instrument: InstrumentId) -> Option<f64> {
        let known = known(self.returns(instrument));
        if known.len() < self.min_samples {
            return None;
        }
        // A price that stands still moves by nothing, whatever rounding makes of the mean.
        if known.iter().all(|r| *r == known[0]) {
            return Some(0.0);
        }
        let count = known.len() as f64;
        let mean = known.iter().sum::<f64>() / count;
        let squares = known.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>();
        Some((squares / (count - 1.0) * self.periods_per_year()).sqrt())
    }

    /// The newest returns of several instruments, from the first sample on at which each of them has one: one slice for each, equally long.
    pub fn common(&self, instruments: &[InstrumentId]) -> Vec<&[f64]> {
        let all: Vec<&[f64]> = instruments.iter().map(|i| known(self.returns(*i))).collect();
        let shortest = all.iter().map(|r| r.len()).min().unwrap_or(0);
        all.into_iter().map(|r| &r[r.len() - shortest..]).collect()
    }

    /// What a snapshot holds.
    pub fn state(&self) -> &HistoryState {
        &self.state
    }

    /// Goes on from a snapshot. Instruments that it did not know begin empty; where `window` was changed, sampling begins anew.
    pub fn restore(&mut self, state: HistoryState) {
        if state.window != self.state.window {
            return;
        }
        let instruments = self.len();
        self.state = state;
        while self.len() < instruments {
            self.add();
        }
    }
}

/// An instrument's returns are unknown only before its first price, so what is known is the end of them.
fn known(returns: &[f64]) -> &[f64] {
    &returns[returns.iter().take_while(|r| r.is_nan()).count()..]
}

#[cfg(test)]
mod tests;
