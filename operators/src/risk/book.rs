//! The portfolio as rows tell it, and when its figures are due.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_risk::portfolio::{Exposure, Portfolio};
use tidemill_risk::var_test::VarTest;

use super::When;
use super::config::Config;
use super::measure::{Scratch, measure};
use super::rows::Rows;

/// Everything that is remembered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Book {
    numbers: BTreeMap<String, u32>,
    /// By number.
    pub symbols: Vec<Symbol>,
    /// Returns and profits; made with the first sample.
    pub portfolio: Option<Portfolio>,
    pub equity: Option<f64>,
    /// Time and origin of the last row.
    now: Option<i64>,
    pub src: u64,
    pub seq: u64,
    /// Up to when splits and dividends have happened.
    acted: Option<i64>,
    /// Something happened at `now` after which figures are told.
    moved: bool,
    /// When the interval ends in which a price came that no sample has yet.
    due: Option<i64>,
    /// Samples taken so far.
    pub samples: u64,
    /// What was held at the last sample.
    pub held: Vec<(u32, Exposure)>,
    /// VaR as it was forecast there, by method and level.
    pub forecasts: Vec<Option<f64>>,
    /// How forecasts did, by method and level.
    pub tests: Vec<VarTest>,
}

/// One symbol.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Symbol {
    pub name: String,
    /// Units held.
    pub quantity: f64,
    /// Last price; NaN before the first.
    pub price: f64,
    /// Price at the last sample; NaN before.
    pub sampled: f64,
    /// Dividends for a unit that the last price may still have in it.
    pub owed: f64,
    /// Dividends for a unit since the last sample that prices have lost.
    pub paid: f64,
}

impl Book {
    /// The number of a symbol.
    pub fn id(&mut self, name: &str) -> u32 {
        if let Some(id) = self.numbers.get(name) {
            return *id;
        }
        let id = self.symbols.len() as u32;
        self.numbers.insert(name.to_owned(), id);
        self.symbols.push(Symbol {
            name: name.to_owned(),
            quantity: 0.0,
            price: f64::NAN,
            sampled: f64::NAN,
            owed: 0.0,
            paid: 0.0,
        });
        id
    }

    /// The number of a symbol that has been seen.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).map(|id| *id as usize)
    }

    /// A row comes.
    #[inline]
    pub fn at(&mut self, ts: i64, src: u64, seq: u64) {
        (self.now, self.src, self.seq) = (Some(ts), src, seq);
    }

    /// A price is seen.
    #[inline]
    pub fn price(&mut self, id: u32, price: f64, config: &Config) {
        let symbol = &mut self.symbols[id as usize];
        symbol.price = price;
        symbol.paid += std::mem::take(&mut symbol.owed);
        if self.due.is_none() {
            self.due = self.now.map(|now| config.end(now));
        }
        self.moved |= config.when == When::Tick;
    }

    /// A position is told.
    pub fn position(&mut self, id: u32, quantity: f64, config: &Config) {
        let held = &mut self.symbols[id as usize].quantity;
        self.moved |= config.when != When::Sample && *held != quantity;
        *held = quantity;
    }

    /// Equity is told.
    pub fn equity(&mut self, equity: f64) {
        if equity.is_finite() {
            self.equity = Some(equity);
        }
    }

    /// Whether something has to be told once every row before `ts` has come.
    #[inline]
    pub fn is_due(&self, ts: i64) -> bool {
        self.now.is_some_and(|now| ts > now) && (self.moved || self.due.is_some_and(|due| ts > due))
    }

    /// Every row before `ts` has come: tells what is due, in order.
    #[inline]
    pub fn pass(&mut self, ts: i64, config: &Config, scratch: &mut Scratch, rows: &mut Rows) {
        if !config.actions.is_empty() {
            self.act(ts, config, scratch, rows);
        }
        if self.is_due(ts) {
            self.settle(ts, config, scratch, rows);
        }
    }

    /// Splits and dividends up to `ts`, each after what was due before it: that order is one of time alone, so it shows nowhere when this
    /// is called.
    fn act(&mut self, ts: i64, config: &Config, scratch: &mut Scratch, rows: &mut Rows) {
        let done = self.acted.map_or(0, |done| config.actions.partition_point(|a| a.ts <= done));
        for action in config.actions[done..].iter().take_while(|a| a.ts <= ts) {
            if self.is_due(action.ts) {
                self.settle(action.ts, config, scratch, rows);
            }
            action.happen(self);
        }
        self.acted = self.acted.max(Some(ts));
    }

    #[cold]
    fn settle(&mut self, ts: i64, config: &Config, scratch: &mut Scratch, rows: &mut Rows) {
        let sample = self.due.filter(|due| ts > *due);
        // A change at a sample's very instant is part of it.
        if let Some(now) = self.now.filter(|now| self.moved && sample != Some(*now)) {
            measure(self, config, scratch, now, false, rows);
        }
        self.moved = false;
        if let Some(end) = sample {
            self.due = None;
            self.sample(config);
            measure(self, config, scratch, end, true, rows);
        }
    }

    /// Takes the returns since the last sample.
    fn sample(&mut self, config: &Config) {
        let mut returns = Vec::with_capacity(self.symbols.len());
        for symbol in &mut self.symbols {
            returns.push((symbol.price + std::mem::take(&mut symbol.paid)) / symbol.sampled - 1.0);
            symbol.sampled = symbol.price;
        }
        self.test(&returns);
        let portfolio = self.portfolio(config);
        if returns.iter().any(|r| r.is_finite()) {
            portfolio.push(&returns);
            self.samples += 1;
        }
    }

    /// The portfolio, with a place for every symbol.
    pub fn portfolio(&mut self, config: &Config) -> &mut Portfolio {
        let portfolio = self.portfolio.get_or_insert_with(|| Portfolio::new(config.window));
        while portfolio.instruments() < self.symbols.len() {
            portfolio.add();
        }
        portfolio
    }

    /// Compares what the positions of the last sample have made with what was forecast.
    fn test(&mut self, returns: &[f64]) {
        if self.held.is_empty() {
            return;
        }
        let profit: f64 = self.held.iter().map(|(id, e)| e.profit(returns[*id as usize])).sum();
        self.tests.resize(self.forecasts.len(), VarTest::default());
        for (test, forecast) in self.tests.iter_mut().zip(&self.forecasts) {
            if let Some(var) = forecast {
                test.observe(profit, *var);
            }
        }
    }
}
