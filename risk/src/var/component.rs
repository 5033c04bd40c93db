//! Which position a portfolio's VaR comes from (Euler's theorem: VaR grows with the book, so it is the sum of each position times its
//! marginal VaR; Tasche 1999, Hallerbach 2003).
//!
//! Historical: the marginal VaR of an instrument is its return in the scenarios at the quantile, its component its profit there. Parametric:
//! `mean_i + z cov(r_i, portfolio) / deviation`. Components sum to the portfolio's figure in both.

use serde::{Deserialize, Serialize};

use super::moments::{Moments, covariance, mean};
use super::tail::place;
use super::{is_level, tail_of};
use crate::distribution::{normal_pdf, normal_quantile};
use crate::portfolio::Portfolio;

/// An instrument's part in VaR and CVaR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// Which instrument.
    pub instrument: usize,
    /// Change of VaR for one more unit of money in the instrument.
    pub marginal_var: f64,
    /// Its part of VaR.
    pub var: f64,
    /// Its part of CVaR.
    pub cvar: f64,
}

fn joined((older, newer): (&[f64], &[f64]), out: &mut Vec<f64>) {
    out.clear();
    out.extend_from_slice(older);
    out.extend_from_slice(newer);
}

/// Parts in historical VaR and CVaR over the newest `n` scenarios, of the instruments held. Of scenarios with equal profits the older
/// one is the worse. Empty where there is no scenario or the level is none. O(instruments held x tail).
pub fn historical(portfolio: &Portfolio, n: usize, level: f64) -> Vec<Component> {
    let mut profits = Vec::new();
    portfolio.profits(n, &mut profits);
    if profits.is_empty() || !is_level(level) {
        return Vec::new();
    }
    let (below, part) = place(profits.len(), level);
    let mut worst: Vec<u32> = (0..profits.len() as u32).collect();
    let order = |a: &u32, b: &u32| profits[*a as usize].total_cmp(&profits[*b as usize]).then(a.cmp(b));
    let need = (below + 2).min(worst.len());
    worst.select_nth_unstable_by(need - 1, order);
    worst.truncate(need);
    worst.sort_unstable_by(order);
    let (at, next) = (worst[below] as usize, worst[need - 1] as usize);
    let component = |(i, exposure): (usize, crate::portfolio::Exposure)| {
        let (older, newer) = portfolio.returns(i, profits.len());
        let r = |s: usize| if s < older.len() { older[s] } else { newer[s - older.len()] };
        let between = |a: f64, b: f64| a + (b - a) * part;
        let sum: f64 = worst[..=below].iter().map(|s| exposure.profit(r(*s as usize))).sum();
        Component {
            instrument: i,
            marginal_var: between(r(at), r(next)),
            var: between(exposure.profit(r(at)), exposure.profit(r(next))),
            cvar: sum / (below + 1) as f64,
        }
    };
    portfolio.held().map(component).collect()
}

/// Parts in parametric VaR and CVaR over the newest `n` scenarios, of the instruments held. Empty where there are less than two scenarios,
/// the portfolio does not move or the level is none. O(instruments held x scenarios).
pub fn parametric(portfolio: &Portfolio, n: usize, level: f64) -> Vec<Component> {
    let (mut profits, mut own, mut row) = (Vec::new(), Vec::new(), Vec::new());
    portfolio.profits(n, &mut profits);
    let Some(moments) = Moments::of(&profits).filter(|m| m.deviation > 0.0 && is_level(level)) else {
        return Vec::new();
    };
    let tail = tail_of(level);
    let z = normal_quantile(tail);
    let beyond = -normal_pdf(z) / tail;
    let component = |(i, exposure): (usize, crate::portfolio::Exposure)| {
        joined(portfolio.returns(i, n), &mut row);
        own.clear();
        own.extend(row.iter().map(|r| exposure.profit(*r)));
        let along = |x: &[f64]| covariance(x, &profits).unwrap_or(0.0) / moments.deviation;
        Component {
            instrument: i,
            marginal_var: mean(&row) + z * along(&row),
            var: mean(&own) + z * along(&own),
            cvar: mean(&own) + beyond * along(&own),
        }
    };
    portfolio.held().map(component).collect()
}
