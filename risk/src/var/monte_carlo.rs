//! Outcomes drawn from a covariance: normal, or Student's t with its fat tails.
//!
//! Draws come from a PCG generator with a given seed: the same seed, covariance and order of instruments give the same outcomes, everywhere.
//! Drawing once and valuing many portfolios on the draws keeps their differences free of noise.

use nalgebra::DMatrix;
use rand::SeedableRng;
use rand_distr::{ChiSquared, Distribution, StandardNormal};
use rand_pcg::Pcg64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::portfolio::Exposure;

/// How outcomes are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Draw {
    /// How many.
    #[serde(default = "ten_thousand")]
    pub paths: usize,
    /// Seed of the generator.
    #[serde(default = "one")]
    pub seed: u64,
    /// Degrees of freedom of Student's t, above 2: the fewer, the fatter the tails. Default: normal.
    #[serde(default)]
    pub degrees: Option<f64>,
}

impl Default for Draw {
    fn default() -> Self {
        Self { paths: ten_thousand(), seed: one(), degrees: None }
    }
}

fn ten_thousand() -> usize {
    10_000
}

fn one() -> u64 {
    1
}

/// What cannot be drawn from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DrawError {
    /// It has a direction of negative variance.
    #[error(
        "the covariance is not positive semidefinite (pivot {pivot} of instrument {at}): use a shrunk one"
    )]
    NotPositive {
        /// Instrument at which it shows.
        at: usize,
        /// What is left of its variance.
        pivot: f64,
    },
    /// Rows, columns or numbers are missing.
    #[error("the covariance is not a square of finite numbers")]
    NotSquare,
    /// Student's t has no variance there.
    #[error("{0} degrees of freedom: there must be more than 2")]
    Degrees(f64),
}

/// Draws of returns around nought, over one period.
#[derive(Clone, Debug)]
pub struct Draws {
    paths: usize,
    /// Instrument `i` has `values[i * paths..][..paths]`.
    values: Vec<f64>,
}

/// The lower triangle `l` with `l l' = covariance` (Cholesky). A direction without variance is allowed: instruments that move as one, or
/// more instruments than samples.
pub fn factor(covariance: &DMatrix<f64>) -> Result<DMatrix<f64>, DrawError> {
    let n = covariance.nrows();
    if covariance.ncols() != n || !covariance.iter().all(|x| x.is_finite()) {
        return Err(DrawError::NotSquare);
    }
    let mut l = DMatrix::<f64>::zeros(n, n);
    for j in 0..n {
        let own: f64 = (0..j).map(|k| l[(j, k)] * l[(j, k)]).sum();
        let pivot = covariance[(j, j)] - own;
        let tolerance = 1e-10 * covariance[(j, j)].abs();
        if pivot < -tolerance || covariance[(j, j)] < 0.0 {
            return Err(DrawError::NotPositive { at: j, pivot });
        }
        if pivot <= tolerance {
            continue;
        }
        let root = pivot.sqrt();
        l[(j, j)] = root;
        for i in j + 1..n {
            let sum: f64 = (0..j).map(|k| l[(i, k)] * l[(j, k)]).sum();
            l[(i, j)] = (covariance[(i, j)] - sum) / root;
        }
    }
    Ok(l)
}

impl Draws {
    /// Draws from `covariance`. O(paths x instruments^2).
    pub fn new(draw: &Draw, covariance: &DMatrix<f64>) -> Result<Self, DrawError> {
        let fat = match draw.degrees {
            None => None,
            Some(degrees) if degrees > 2.0 && degrees.is_finite() => {
                Some((degrees, ChiSquared::new(degrees).map_err(|_| DrawError::Degrees(degrees))?))
            }
            Some(degrees) => return Err(DrawError::Degrees(degrees)),
        };
        let l = factor(covariance)?;
        let n = l.nrows();
        let mut rng = Pcg64::seed_from_u64(draw.seed);
        let mut values = vec![0.0; n * draw.paths];
        let mut z = vec![0.0; n];
        for path in 0..draw.paths {
            z.iter_mut().for_each(|z| *z = StandardNormal.sample(&mut rng));
            // One for all instruments: on a bad day everything is far out. Scaled, so that the variance stays.
            let scale = fat.as_ref().map_or(1.0, |(degrees, chi)| {
                let w: f64 = chi.sample(&mut rng);
                ((degrees - 2.0) / w.max(f64::MIN_POSITIVE)).sqrt()
            });
            for i in 0..n {
                let x: f64 = (0..=i).map(|k| l[(i, k)] * z[k]).sum();
                values[i * draw.paths + path] = x * scale;
            }
        }
        Ok(Self { paths: draw.paths, values })
    }

    /// Draws of instrument `i`.
    pub fn of(&self, i: usize) -> &[f64] {
        &self.values[i * self.paths..][..self.paths]
    }

    /// Profits over `horizon` periods of exposures to the instruments, whose means a period are `means`: returns are
    /// `h mean + sqrt(h) draw`.
    pub fn profits(&self, exposures: &[Exposure], means: &[f64], horizon: f64, out: &mut Vec<f64>) {
        out.clear();
        out.resize(self.paths, 0.0);
        let root = horizon.sqrt();
        for (i, (exposure, mean)) in exposures.iter().zip(means).enumerate() {
            if exposure.is_none() {
                continue;
            }
            for (profit, x) in out.iter_mut().zip(self.of(i)) {
                *profit += exposure.profit(horizon * mean + root * x);
            }
        }
    }
}
