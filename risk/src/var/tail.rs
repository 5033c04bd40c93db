//! The lower tail of a sample: exact, by selection instead of sorting, and faster still when asked again after a small change.
//!
//! With `n` outcomes and tail `a`, the place of the quantile is `h = (n - 1) a`: VaR lies between the outcomes of rank `floor(h)` and the next,
//! linearly (NumPy's default); CVaR is the mean of the outcomes of rank 0 to `floor(h)` (empyrical's `conditional_value_at_risk`).

use super::{TailRisk, is_level, tail_of};

/// Rank below the quantile, and how far towards the next it is. A whole number that rounding missed is taken as whole.
pub fn place(n: usize, level: f64) -> (usize, f64) {
    let h = n.saturating_sub(1) as f64 * tail_of(level);
    let whole = h.round();
    let h = if (h - whole).abs() < 1e-9 { whole } else { h };
    (h as usize, h.fract())
}

/// Historical VaR and CVaR of a sample at one level. `None` where it is empty, an outcome is not finite or the level is none.
pub fn historical(sample: &[f64], level: f64) -> Option<TailRisk> {
    if !sample.iter().all(|x| x.is_finite()) {
        return None;
    }
    let mut out = Vec::new();
    Tail::new(vec![level])?.measure(sample, &[], &mut out);
    out.pop()
}

/// VaR and CVaR at several levels, again and again, of samples that change little from one time to the next.
///
/// It remembers which outcomes were near the tail: one pass drops those that are above, and only the few that are left are sorted. The result
/// never depends on what it remembers, only the time does.
#[derive(Clone, Debug)]
pub struct Tail {
    levels: Vec<f64>,
    /// Outcomes up to this are likely to be enough.
    guess: f64,
    /// Order-preserving images of outcomes.
    keys: Vec<i64>,
}

impl Tail {
    /// `None` where a level is not between 0 and 1.
    pub fn new(levels: Vec<f64>) -> Option<Self> {
        levels.iter().all(|l| is_level(*l)).then_some(Self { levels, guess: f64::INFINITY, keys: Vec::new() })
    }

    /// The levels.
    pub fn levels(&self) -> &[f64] {
        &self.levels
    }

    /// The figures of a sample in two parts, in the order of the levels. None where the sample is empty or there
    /// is no level. Outcomes must be finite.
    pub fn measure(&mut self, older: &[f64], newer: &[f64], out: &mut Vec<TailRisk>) {
        out.clear();
        let n = older.len() + newer.len();
        if n == 0 || self.levels.is_empty() {
            return;
        }
        let need = self.levels.iter().map(|level| place(n, *level).0 + 2).max().unwrap_or(0).min(n);
        let aim = (need + need / 8 + 8).min(n);
        if self.keys.len() <= n {
            self.keys.resize(n + 1, 0);
        }
        let mut kept = self.gather(older, self.guess, 0);
        kept = self.gather(newer, self.guess, kept);
        if kept < need {
            kept = self.gather(older, f64::INFINITY, 0);
            kept = self.gather(newer, f64::INFINITY, kept);
        }
        if kept > aim + aim / 2 {
            self.keys[..kept].select_nth_unstable(aim - 1);
            kept = aim;
        }
        let keys = &mut self.keys[..kept];
        keys.sort_unstable();
        self.guess = match kept < aim {
            false => value(keys[aim - 1]),
            // Too few to tell: as much further as the outcomes that there are lie apart.
            true => {
                let (middle, last) = (value(keys[kept / 2]), value(keys[kept - 1]));
                last + (last - middle) * (aim - kept) as f64 / (kept - kept / 2) as f64
            }
        };
        out.extend(self.levels.iter().map(|level| {
            let (below, part) = place(n, *level);
            let var = value(keys[below]);
            let next = value(keys[(below + 1).min(n - 1)]);
            let sum: f64 = keys[..=below].iter().map(|k| value(*k)).sum();
            TailRisk { var: var + (next - var) * part, cvar: sum / (below + 1) as f64 }
        }));
    }

    /// Puts the keys of outcomes up to `most` behind the first `kept`; how many there are then.
    #[inline]
    fn gather(&mut self, part: &[f64], most: f64, mut kept: usize) -> usize {
        for x in part {
            // Written always and counted when wanted: no branch that could be mispredicted.
            self.keys[kept] = key(*x);
            kept += usize::from(*x <= most);
        }
        kept
    }
}

/// An integer that orders as the number does (-0.0 before 0.0).
fn key(x: f64) -> i64 {
    let bits = x.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// The number of a [`key`].
fn value(key: i64) -> f64 {
    f64::from_bits((key ^ ((key >> 63) as u64 >> 1) as i64) as u64)
}
