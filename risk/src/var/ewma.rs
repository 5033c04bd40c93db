//! Exponentially weighted volatility (RiskMetrics Technical Document, 1996), and outcomes scaled by it (Hull and White 1998; Barone-Adesi
//! et al. 1999).

/// RiskMetrics' decay for daily outcomes.
pub const DAILY: f64 = 0.94;

/// Deviation of the next outcome: `v = lambda v + (1 - lambda) x^2` over the sample, oldest first, begun with the first outcome's
/// square. The mean is taken to be nought. `None` of nothing, or where it is not finite.
pub fn deviation(sample: &[f64], lambda: f64) -> Option<f64> {
    let (first, rest) = sample.split_first()?;
    let variance = rest.iter().fold(first * first, |v, x| lambda * v + (1.0 - lambda) * x * x);
    Some(variance.sqrt()).filter(|d| d.is_finite())
}

/// The sample with each outcome multiplied by today's volatility over that of its own time, as it was known before that outcome.
///
/// The volatility begins as the sample's root mean square: with the first outcome's square, as [`deviation`] does, a first outcome near nought
/// would blow up those after it.
pub fn filtered(sample: &[f64], lambda: f64, out: &mut Vec<f64>) {
    out.clear();
    let mut variance = sample.iter().map(|x| x * x).sum::<f64>() / sample.len().max(1) as f64;
    for x in sample {
        // Against the volatility of its time now; today's comes when it is known.
        out.push(if variance > 0.0 { x / variance.sqrt() } else { 0.0 });
        variance = lambda * variance + (1.0 - lambda) * x * x;
    }
    let today = variance.sqrt();
    out.iter_mut().for_each(|x| *x *= today);
}
