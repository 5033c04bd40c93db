//! Historical simulation in which newer outcomes are likelier (Boudoukh, Richardson, Whitelaw, "The best of both worlds", 1998).

use super::{TailRisk, is_level, tail_of};

/// VaR and CVaR where an outcome that is `k` periods old has a probability proportional to `decay^k`. The sample is oldest first.
///
/// VaR is the lowest outcome at which the probabilities of it and of all below reach the tail (of equal outcomes, as one); CVaR is the mean of
/// the tail, where of that outcome's probability only what the tail needs counts. `None` where the sample is empty or has a number that is not
/// finite, the decay is not above 0 and at most 1, or the level is none.
pub fn age_weighted(sample: &[f64], decay: f64, level: f64) -> Option<TailRisk> {
    let fine = decay > 0.0 && decay <= 1.0 && is_level(level) && sample.iter().all(|x| x.is_finite());
    if !fine || sample.is_empty() {
        return None;
    }
    let tail = tail_of(level);
    let mut weight = 1.0;
    let mut weighted: Vec<(f64, f64)> = sample
        .iter()
        .rev()
        .map(|x| {
            let own = (*x, weight);
            weight *= decay;
            own
        })
        .collect();
    let whole: f64 = weighted.iter().map(|w| w.1).sum();
    // Stable: equal outcomes stay newest first, so sums have one order.
    weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut before, mut sum) = (0.0, 0.0);
    for (x, weight) in &weighted {
        let probability = weight / whole;
        // Within rounding of the tail is at it.
        if before + probability >= tail - 1e-12 {
            return Some(TailRisk { var: *x, cvar: (sum + (tail - before) * x) / tail });
        }
        before += probability;
        sum += probability * x;
    }
    weighted.last().map(|(x, _)| TailRisk { var: *x, cvar: (sum + (tail - before) * x) / tail })
}
