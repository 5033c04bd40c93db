//! Rules that look at several symbols at once, through the shrunk covariance of their returns.
//!
//! Each symbol's returns are taken in the direction of its signal, so that all parts are of one sign: a short symbol's are turned round.

use tidemill_risk::allocation::{equal_risk, kelly_weights};
use tidemill_risk::covariance::{Shrunk, ledoit_wolf};

use super::params::Kelly;
use super::{Cause, Sizing, Wish};
use crate::history::History;
use crate::market::InstrumentId;

impl Sizing {
    /// This symbol's part of equity by the joint Kelly solution; never below zero.
    pub(super) fn joint_kelly(&self, rule: &Kelly, want: &Wish<'_>, direction: f64) -> Result<f64, Cause> {
        let this = want.signal.instrument;
        let own = want.expected(direction)?;
        if own == 0.0 {
            return Ok(0.0);
        }
        let mut members = Vec::new();
        let mut means = Vec::new();
        for i in self.sharing(this) {
            let active = self.state.active[i as usize];
            if i == this {
                members.push((i, direction));
                means.push(own);
            } else if let Some(expected) = active.expected {
                members.push((i, f64::from(active.direction)));
                means.push(expected);
            }
        }
        let shrunk = self.shrunk(&members, want.history)?;
        let covariance = shrunk.covariance * want.history.periods_per_year();
        let weights = kelly_weights(&means, &covariance, rule.fraction);
        let weights = weights.map_err(|why| self.covariance_error(&members, why.to_string()))?;
        // What would stand against its own signal gets nothing, and does not count for the whole.
        let gross: f64 = weights.iter().map(|weight| weight.max(0.0)).sum();
        let scale = if gross > rule.max { rule.max / gross } else { 1.0 };
        Ok(part_of(this, &members, &weights).max(0.0) * scale)
    }

    /// This symbol's part of one, with equal contributions to risk.
    pub(super) fn equal_risk(&self, want: &Wish<'_>, direction: f64) -> Result<f64, Cause> {
        let this = want.signal.instrument;
        let members: Vec<(InstrumentId, f64)> = self
            .sharing(this)
            .into_iter()
            .map(|i| {
                let theirs = f64::from(self.state.active[i as usize].direction);
                // Without a signal it counts as long: that is what it will most likely be.
                (
                    i,
                    if i == this {
                        direction
                    } else if theirs < 0.0 {
                        -1.0
                    } else {
                        1.0
                    },
                )
            })
            .collect();
        let shrunk = self.shrunk(&members, want.history)?;
        let weights = equal_risk(&shrunk.covariance);
        let weights = weights.map_err(|why| self.covariance_error(&members, why.to_string()))?;
        Ok(part_of(this, &members, &weights))
    }

    /// The covariance of the members' returns, for one sample.
    fn shrunk(&self, members: &[(InstrumentId, f64)], history: &History) -> Result<Shrunk, Cause> {
        let ids: Vec<InstrumentId> = members.iter().map(|(i, _)| *i).collect();
        let mut series: Vec<Vec<f64>> = history.common(&ids).into_iter().map(<[f64]>::to_vec).collect();
        let samples = series.first().map_or(0, Vec::len);
        if samples < history.min_samples() {
            return Err(Cause::FewSamples(samples, history.min_samples(), self.names(members)));
        }
        for (returns, (i, direction)) in series.iter_mut().zip(members) {
            if returns.iter().all(|r| *r == returns[0]) {
                return Err(Cause::ZeroVolatility(self.known[*i as usize].symbol.clone()));
            }
            returns.iter_mut().for_each(|r| *r *= direction);
        }
        ledoit_wolf(&series).map_err(|why| self.covariance_error(members, why.to_string()))
    }

    fn covariance_error(&self, members: &[(InstrumentId, f64)], why: String) -> Cause {
        Cause::Covariance { symbols: self.names(members), why }
    }

    fn names(&self, members: &[(InstrumentId, f64)]) -> String {
        let names: Vec<&str> = members.iter().map(|(i, _)| self.known[*i as usize].symbol.as_str()).collect();
        names.join(", ")
    }
}

fn part_of(this: InstrumentId, members: &[(InstrumentId, f64)], weights: &[f64]) -> f64 {
    let place = members.iter().position(|(i, _)| *i == this);
    place.and_then(|place| weights.get(place)).copied().unwrap_or(0.0)
}
