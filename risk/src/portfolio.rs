//! Profit and loss of a portfolio in every scenario, kept up to date by what changes.
//!
//! A scenario is one return per instrument. The profit of the portfolio in scenario `s` is the sum over instruments of
//! `linear x r + quadratic x r^2`, where `r` is the instrument's return there. Returns are stored by instrument, one after the other, so a
//! position that changes reads one run of memory: O(scenarios), whatever the number of instruments. State: instruments x scenarios.
//!
//! **No drift.** Every contribution is rounded to a multiple of one quantum, a power of two, small enough that it does not matter
//! (2^-44 of the book's largest possible profit at most) and large enough that any sum of contributions is exact in `f64`. So additions and
//! subtractions undo each other to the last bit: the vector after a million changes *is* the vector computed from scratch, and neither order nor a
//! restart can be seen in it. The quantum is chosen anew (and the vector recomputed) when the book outgrows it or shrinks far below it, which is
//! a function of the calls alone.

mod lattice;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use lattice::Lattice;

/// What a position gains when its instrument returns `r` (0.01 is one percent): `linear x r + quadratic x r^2`, in money.
///
/// For shares and futures `linear` is the position's value. An option's are those of its underlying: see [`crate::stress::OptionPosition`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exposure {
    /// Value of the position, or of the deltas of its options.
    pub linear: f64,
    /// Half of gamma x price^2 of its options.
    pub quadratic: f64,
}

impl Exposure {
    /// The exposure of a value held.
    pub fn value(value: f64) -> Self {
        Self { linear: value, quadratic: 0.0 }
    }

    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self.linear == 0.0 && self.quadratic == 0.0
    }

    /// Profit when the instrument returns `r`.
    pub fn profit(self, r: f64) -> f64 {
        (self.linear + self.quadratic * r) * r
    }

    /// The largest profit or loss while returns stay within `reach`.
    fn extent(self, reach: f64) -> f64 {
        (self.linear.abs() + self.quadratic.abs() * reach) * reach
    }

    fn is_finite(self) -> bool {
        self.linear.is_finite() && self.quadratic.is_finite()
    }
}

/// A number that cannot be part of a portfolio.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PortfolioError {
    /// An exposure is not finite, or so large that its profits are not.
    #[error("exposure {0:?} is not a number that can be summed: check the price and the quantity")]
    Exposure(Exposure),
    /// The instrument is not part of the portfolio.
    #[error("there is no instrument {0}: add it first")]
    Unknown(usize),
}

/// A portfolio in its scenarios. See the module.
///
/// Scenarios are a window of the newest `scenarios` ones: [`push`](Self::push) replaces the oldest. An instrument that came later has fewer of
/// them ([`samples`](Self::samples)); its return in earlier ones counts as nought, and [`common`](Self::common) says how many of the newest
/// scenarios are known of everything held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Portfolio {
    /// Scenarios at most.
    scenarios: usize,
    /// Scenarios there are.
    used: usize,
    /// Where the next one goes.
    head: usize,
    /// Returns: instrument `i` has `returns[i * scenarios..][..scenarios]`.
    returns: Vec<f64>,
    exposures: Vec<Exposure>,
    /// By instrument: no return there is larger than this.
    reach: Vec<f64>,
    /// By instrument: how many of the newest scenarios it has.
    samples: Vec<usize>,
    pnl: Vec<f64>,
    lattice: Lattice,
    /// Instruments with an exposure.
    held: usize,
}

impl Portfolio {
    /// No instruments, and room for so many scenarios (at least one).
    pub fn new(scenarios: usize) -> Self {
        let scenarios = scenarios.max(1);
        Self {
            scenarios,
            used: 0,
            head: 0,
            returns: Vec::new(),
            exposures: Vec::new(),
            reach: Vec::new(),
            samples: Vec::new(),
            pnl: vec![0.0; scenarios],
            lattice: Lattice::default(),
            held: 0,
        }
    }

    /// A portfolio whose scenarios are all given: one list an instrument, oldest first, of equal length (the shortest counts). What is not
    /// finite counts as nought.
    pub fn with_returns(rows: &[Vec<f64>]) -> Self {
        let scenarios = rows.iter().map(Vec::len).min().unwrap_or(0);
        let mut portfolio = Self::new(scenarios);
        portfolio.used = scenarios;
        for row in rows {
            let i = portfolio.add();
            let own = &mut portfolio.returns[i * scenarios.max(1)..][..scenarios];
            for (own, r) in own.iter_mut().zip(row) {
                *own = if r.is_finite() { *r } else { 0.0 };
            }
            portfolio.samples[i] = scenarios;
            portfolio.reach[i] = largest(own);
        }
        portfolio
    }

    /// Adds an instrument without scenarios of its own yet; its number.
    pub fn add(&mut self) -> usize {
        self.returns.resize(self.returns.len() + self.scenarios, 0.0);
        self.exposures.push(Exposure::default());
        self.reach.push(0.0);
        self.samples.push(0);
        self.exposures.len() - 1
    }

    /// Instruments.
    pub fn instruments(&self) -> usize {
        self.exposures.len()
    }

    /// Scenarios there are: at most what the portfolio was made for.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there is no scenario.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// How many of the newest scenarios instrument `i` has.
    pub fn samples(&self, i: usize) -> usize {
        self.samples.get(i).copied().unwrap_or(0)
    }

    /// How many of the newest scenarios every instrument held has.
    pub fn common(&self) -> usize {
        let held = self.exposures.iter().zip(&self.samples).filter(|(e, _)| !e.is_none());
        held.map(|(_, n)| *n).min().unwrap_or(self.used).min(self.used)
    }

    /// What is held of instrument `i`.
    pub fn exposure(&self, i: usize) -> Exposure {
        self.exposures.get(i).copied().unwrap_or_default()
    }

    /// Instruments with an exposure, in their order.
    pub fn held(&self) -> impl Iterator<Item = (usize, Exposure)> + '_ {
        self.exposures.iter().copied().enumerate().filter(|(_, e)| !e.is_none())
    }

    /// Sets what is held of instrument `i`: O(scenarios).
    pub fn set(&mut self, i: usize, new: Exposure) -> Result<(), PortfolioError> {
        let Some(&old) = self.exposures.get(i) else { return Err(PortfolioError::Unknown(i)) };
        if old == new {
            return Ok(());
        }
        if !(new.is_finite() && new.extent(self.reach[i].max(1.0)) < lattice::EXTENT_MAX) {
            return Err(PortfolioError::Exposure(new));
        }
        self.held = self.held + usize::from(old.is_none()) - usize::from(new.is_none());
        self.exposures[i] = new;
        let reach = self.reach[i];
        if !self.lattice.grow(new.extent(reach) - old.extent(reach)) || self.held == 0 {
            self.rebuild();
            return Ok(());
        }
        let row = &self.returns[i * self.scenarios..][..self.scenarios];
        self.lattice.shift(&mut self.pnl, row, old, new);
        Ok(())
    }

    /// Adds the newest scenario: a return for each instrument (what is missing or not finite: none is known). Replaces the oldest where
    /// the window is full. O(instruments), and the whole where the quantum has to change.
    pub fn push(&mut self, returns: &[f64]) {
        let (slot, mut fits, mut profit) = (self.head, true, 0.0);
        for i in 0..self.exposures.len() {
            let known = returns.get(i).copied().filter(|r| r.abs() <= lattice::RETURN_MAX);
            let r = known.unwrap_or(0.0);
            // A gap ends what is known: scenarios before it don't count for this instrument.
            self.samples[i] = known.map_or(0, |_| (self.samples[i] + 1).min(self.scenarios));
            self.returns[i * self.scenarios + slot] = r;
            let exposure = self.exposures[i];
            if r.abs() > self.reach[i] {
                let more = exposure.extent(r.abs()) - exposure.extent(self.reach[i]);
                self.reach[i] = r.abs();
                fits &= exposure.is_none() || self.lattice.grow(more);
            }
            if !exposure.is_none() {
                profit += self.lattice.round(exposure.profit(r));
            }
        }
        self.head = (slot + 1) % self.scenarios;
        self.used = (self.used + 1).min(self.scenarios);
        if fits {
            self.pnl[slot] = profit;
        } else {
            self.rebuild();
        }
    }

    /// Chooses the quantum and computes all profits anew.
    fn rebuild(&mut self) {
        let mut extent = 0.0;
        for i in 0..self.exposures.len() {
            if self.exposures[i].is_none() {
                continue;
            }
            self.reach[i] = largest(&self.returns[i * self.scenarios..][..self.scenarios]);
            extent += self.exposures[i].extent(self.reach[i]);
        }
        self.lattice = Lattice::over(extent);
        let mut pnl = std::mem::take(&mut self.pnl);
        self.compute(&mut pnl);
        self.pnl = pnl;
    }

    /// The profits from scratch: what the kept ones must equal.
    fn compute(&self, pnl: &mut [f64]) {
        pnl.fill(0.0);
        for (i, exposure) in self.held() {
            let row = &self.returns[i * self.scenarios..][..self.scenarios];
            self.lattice.shift(pnl, row, Exposure::default(), exposure);
        }
    }

    /// Profits in the newest `n` scenarios, oldest first, as two runs (the window is a ring).
    pub fn newest(&self, n: usize) -> (&[f64], &[f64]) {
        self.window(&self.pnl, n)
    }

    /// Returns of instrument `i` in the newest `n` scenarios, oldest first.
    pub fn returns(&self, i: usize, n: usize) -> (&[f64], &[f64]) {
        self.window(&self.returns[i * self.scenarios..][..self.scenarios], n)
    }

    fn window<'a>(&self, row: &'a [f64], n: usize) -> (&'a [f64], &'a [f64]) {
        let n = n.min(self.used);
        match n.checked_sub(self.head) {
            None => (&row[self.head - n..self.head], &[]),
            Some(older) => (&row[self.scenarios - older..], &row[..self.head]),
        }
    }

    /// Profits in the newest `n` scenarios, oldest first, in one piece.
    pub fn profits(&self, n: usize, out: &mut Vec<f64>) {
        let (older, newer) = self.newest(n);
        out.clear();
        out.extend_from_slice(older);
        out.extend_from_slice(newer);
    }

    /// What the profits would be with `exposure` of instrument `i` in place of what is held, in the newest `n` scenarios, oldest first: for a trade that
    /// is only thought of.
    pub fn profits_with(
        &self,
        i: usize,
        exposure: Exposure,
        n: usize,
        out: &mut Vec<f64>,
    ) -> Result<(), PortfolioError> {
        let old = *self.exposures.get(i).ok_or(PortfolioError::Unknown(i))?;
        if !(exposure.is_finite() && exposure.extent(self.reach[i].max(1.0)) < lattice::EXTENT_MAX) {
            return Err(PortfolioError::Exposure(exposure));
        }
        self.profits(n, out);
        let (older, newer) = self.returns(i, n);
        for (p, r) in out.iter_mut().zip(older.iter().chain(newer)) {
            *p += exposure.profit(*r) - old.profit(*r);
        }
        Ok(())
    }
}

fn largest(row: &[f64]) -> f64 {
    row.iter().fold(0.0, |most, r| r.abs().max(most))
}
