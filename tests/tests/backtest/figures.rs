//! The figures of a backtest from scratch, from its written tables: textbook formulas, none of them the program's own.

/// Nanoseconds of a minute.
pub const MINUTE: i64 = 60_000_000_000;

/// The account at a time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub ts: i64,
    pub equity: f64,
    pub gross: f64,
    pub net: f64,
}

/// Ends of periods, and the last equity of each.
pub fn closes(samples: &[Sample], every: i64) -> Vec<(i64, f64)> {
    let mut closes: Vec<(i64, f64)> = Vec::new();
    for sample in samples {
        let end = (sample.ts + every - 1) / every * every;
        match closes.last_mut().filter(|last| last.0 == end) {
            Some(last) => last.1 = sample.equity,
            None => closes.push((end, sample.equity)),
        }
    }
    closes
}

/// Returns from each value to the next.
pub fn returns(start: f64, closes: &[(i64, f64)]) -> Vec<f64> {
    let before = std::iter::once(start).chain(closes.iter().map(|c| c.1));
    before.zip(closes).map(|(before, close)| close.1 / before - 1.0).collect()
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The mean of a power of what is above the mean.
fn central(values: &[f64], power: i32) -> f64 {
    let centre = mean(values);
    mean(&values.iter().map(|v| (v - centre).powi(power)).collect::<Vec<_>>())
}

/// Mean by sample deviation.
pub fn sharpe(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    mean(values) / (central(values, 2) * n / (n - 1.0)).sqrt()
}

/// Mean by the root of the mean square of losses, a year.
pub fn sortino(values: &[f64], year: f64) -> f64 {
    let losses: Vec<f64> = values.iter().map(|v| if *v < 0.0 { v * v } else { 0.0 }).collect();
    mean(values) / mean(&losses).sqrt() * year.sqrt()
}

/// The value below which a part of the values is, between two of them where it must be.
pub fn quantile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() - 1) as f64 * p;
    let (low, part) = (place.floor() as usize, place.fract());
    sorted[low] + (sorted[(low + 1).min(sorted.len() - 1)] - sorted[low]) * part
}

/// How far each value is below the highest so far.
pub fn drawdowns(start: f64, values: &[f64]) -> Vec<f64> {
    (0..values.len())
        .map(|i| {
            let peak = values[..=i].iter().copied().fold(start, f64::max);
            values[i] / peak - 1.0
        })
        .collect()
}

/// Slope of `y` on `x`, and what is left of the mean of `y`.
pub fn line(y: &[f64], x: &[f64]) -> (f64, f64) {
    let (my, mx) = (mean(y), mean(x));
    let both: f64 = y.iter().zip(x).map(|(y, x)| (y - my) * (x - mx)).sum();
    let slope = both / x.iter().map(|x| (x - mx) * (x - mx)).sum::<f64>();
    (slope, my - slope * mx)
}

/// The standard normal distribution: Simpson's rule over its density.
pub fn normal(z: f64) -> f64 {
    let steps = 20_000;
    let h = z / f64::from(steps);
    let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let inner: f64 = (1..steps).map(|i| density(f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    0.5 + (density(0.0) + inner + density(z)) * h / 3.0
}

/// Its inverse, by halves.
pub fn normal_inverse(p: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if normal(middle) < p { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// The probability that the true Sharpe ratio is above zero, of returns chosen from `trials` whose ratios a period vary by `variance`
/// (Bailey and López de Prado 2014, equations 1 and 2).
pub fn deflated_sharpe(values: &[f64], trials: f64, variance: f64) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    let best = if trials > 1.0 {
        let z = |p: f64| normal_inverse(1.0 - p);
        variance.sqrt() * ((1.0 - EULER) * z(1.0 / trials) + EULER * z(1.0 / (trials * std::f64::consts::E)))
    } else {
        0.0
    };
    let (ratio, two) = (sharpe(values), central(values, 2));
    let (skewness, kurtosis) = (central(values, 3) / two.powf(1.5), central(values, 4) / (two * two));
    let spread = (1.0 - skewness * ratio + (kurtosis - 1.0) / 4.0 * ratio * ratio).sqrt();
    normal((ratio - best) * (values.len() as f64 - 1.0).sqrt() / spread)
}
