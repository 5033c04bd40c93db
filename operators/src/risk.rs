//! `risk`: what a portfolio may lose, as it changes.
//!
//! Time: prices are sampled at whole multiples of `every`; a sample is taken once time has passed its end, from rows up to it, and its
//! rows have that `ts`. At equal `ts` prices count before positions. State: `window` returns a symbol, one profit a scenario. A position that changes
//! costs O(window), whatever the number of symbols ([`tidemill_risk::portfolio`]).

mod book;
mod config;
mod corporate;
mod inputs;
mod measure;
mod rows;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::duration::Span;
use tidemill_engine::keyed::KeyedState;
use tidemill_engine::keys::KeyReader;
use tidemill_engine::operator::{Operator, OperatorError, Output, State};
use tidemill_engine::row;
use tidemill_risk::options::OptionKind;
use tidemill_risk::stress::Shocks;
use tidemill_risk::var::Method;
use tidemill_risk::var::monte_carlo::Draw;

use book::Book;
use config::Config;
use corporate::Action;
use inputs::{Port, Told};
use measure::Scratch;
use rows::Rows;

/// Value at risk, expected shortfall, stress losses, greeks and betas of a portfolio, as positions and prices change.
///
/// Reads a stream of positions and one or more of prices. Positions are rows of `symbol` and a quantity: each sets what is held of the
/// symbol. Of an `execution` operator's output, rows whose `event` is `position` do so, and those whose `event` is `equity` tell the equity.
/// Prices are trades (`price`), bars (`close`) or quotes (`bid` and `ask`: their middle). Prices that are null, not finite, zero or below are
/// left out, as are rows without a symbol.
///
/// Returns are taken from the last price of each symbol at the end of each interval of `every`; an interval in which no price came is no sample (a
/// weekend adds no noughts), and a symbol without a price in an interval keeps the last. VaR and the rest are computed on the profits that **today's**
/// positions would have made in each sample of the window.
///
/// One row a figure: `measure`, `method`, `level`, `horizon` (in samples), `symbol`, `other`, `value`, `fraction` (`value` by equity, where equity is
/// known). What doesn't apply is null.
///
/// | measure | value |
/// |---|---|
/// | `var`, `cvar` | profit at the quantile, and mean of the profits beyond it, by `method`, `level` and `horizon`. **Losses are negative** |
/// | `component_var`, `component_cvar` | part of it that `symbol` makes: parts sum to the whole (`components: true`) |
/// | `marginal_var` | change of VaR for one more unit of money in `symbol` |
/// | `volatility` | standard deviation of profits |
/// | `beta` | of `symbol` to the benchmark (`other`); without a `symbol`: money that moves as the benchmark does |
/// | `correlation` | of the portfolio with the benchmark; with `correlations: true` of every two symbols held |
/// | `stress` | profit in the scenario that `method` names; options are valued anew. With `components: true` by `symbol` too |
/// | `delta`, `gamma`, `vega`, `theta`, `rho` | greeks of all options held of `symbol` (vega and rho for 1.00, theta a year) |
/// | `exceedances`, `var_samples` | how often the loss of a sample was beyond the VaR forecast before it, and of how many |
/// | `kupiec`, `christoffersen`, `conditional_coverage` | likelihood ratios that test these, each with its p-value as `kupiec_p` and so on |
///
/// Methods: `historical` (linear interpolation), `age_weighted`, `filtered` (scaled by EWMA volatility), `parametric` (normal), `cornish_fisher`, `ewma`
/// (normal, no mean), `monte_carlo` (drawn from a `covariance`). Horizons are by the square root of time; with `overlapping: true`,
/// `historical`, `age_weighted` and `filtered` take sums of that many samples in a row instead.
///
/// Splits and dividends are no losses where `corporate_actions` tells of them: a split scales what is held and the prices before it, a dividend
/// is part of its sample's return. Positions told after a split are in new units. An option on the symbol has new terms then: list it anew.
///
/// **Nothing is said that isn't known.** While a position has no price, or an option no volatility, there are no rows at all; while less than
/// `min_samples` samples are known of everything held (a symbol that came late has few), there are `stress` and greeks only.
///
/// Options are told apart by `options`: their value moves by delta and gamma of their underlying, whose symbol components name.
///
/// ```yaml
/// operators:
///   risk:
///     kind: risk
///     from: [positions, bars]
///     with:
///       every: 1d
///       window: 500
///       levels: [0.95, 0.99]
///       horizons: [1, 10]
///       methods: [historical, parametric, cornish_fisher]
///       benchmark: SPY
///       components: true
///       stress:
///         crash: { SPY: -0.2, "sector:banks": -0.35, "*": -0.15, vol: 0.25 }
///       sectors: { banks: [BAC, AIG] }
///       options:
///         SPY_PUT_150: { underlying: SPY, strike: 150, expiry: "2013-12-20", kind: put, volatility: 0.2 }
///       multipliers: { SPY_PUT_150: 100 }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Which of the streams has positions. Default: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<String>,
    /// Which have prices. Default: all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Vec<String>>,
    /// Column of the symbol, in all streams. Default `symbol`.
    #[serde(default = "symbol")]
    pub symbol: String,
    /// Column of the quantity held, negative when short. Default: `position`, else `quantity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<String>,
    /// Column of the price. Default: `price`, else `close`, else the middle of `bid` and `ask`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
    /// Interval of the samples. Default `1d`.
    #[serde(default = "day")]
    pub every: Span,
    /// Shifts the ends of intervals from whole multiples of `every` since the epoch (UTC).
    #[serde(default)]
    pub offset: Span,
    /// Samples that are kept. Default 500.
    #[serde(default = "five_hundred")]
    pub window: usize,
    /// Samples that must be known of everything held. Default: 100, or `window` where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_samples: Option<usize>,
    /// Levels of confidence. Default `[0.95, 0.99]`.
    #[serde(default = "levels")]
    pub levels: Vec<f64>,
    /// Horizons in samples. Default `[1]`.
    #[serde(default = "one_sample")]
    pub horizons: Vec<u32>,
    /// How VaR is found. Default `[historical, parametric]`.
    #[serde(default = "methods")]
    pub methods: Vec<Method>,
    /// Whether horizons above one are sums of samples in a row instead of a square root of time.
    #[serde(default)]
    pub overlapping: bool,
    /// Decay of volatility for `ewma` and `filtered`. Default 0.94.
    #[serde(default = "decay")]
    pub decay: f64,
    /// How much less likely an outcome is than the next newer one, for `age_weighted`. Default 0.99.
    #[serde(default = "age_decay")]
    pub age_decay: f64,
    /// How outcomes are drawn for `monte_carlo`.
    #[serde(default)]
    pub monte_carlo: Draw,
    /// From what `monte_carlo` draws. Default `sample`.
    #[serde(default)]
    pub covariance: Covariance,
    /// Symbol to which betas are reckoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<String>,
    /// Whether VaR, CVaR and stress losses are told by symbol too (VaR for `historical` and `parametric`).
    #[serde(default)]
    pub components: bool,
    /// Whether the correlation of every two symbols held is told.
    #[serde(default)]
    pub correlations: bool,
    /// Whether VaR is tested against what happened. Default true.
    #[serde(default = "yes")]
    pub backtest: bool,
    /// Scenarios by name: moves of prices as parts of them, by symbol, `sector:NAME` or `*` (all others); `vol` is added to the volatility of options.
    #[serde(default)]
    pub stress: BTreeMap<String, Shocks>,
    /// Symbols by sector, for `stress`.
    #[serde(default)]
    pub sectors: BTreeMap<String, Vec<String>>,
    /// Value of one unit at a price of one, by symbol: contract size times currency. Default 1.
    #[serde(default)]
    pub multipliers: BTreeMap<String, f64>,
    /// Symbols that are options.
    #[serde(default)]
    pub options: BTreeMap<String, OptionTerms>,
    /// A CSV file of splits and dividends, relative to the graph, with the columns `ts,symbol,kind,value`, as that of `execution`: `kind` is
    /// `split` (new units for an old one) or `dividend` (cash for a unit). For prices that are not adjusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corporate_actions: Option<String>,
    /// When figures are told. Default `sample`.
    #[serde(default)]
    pub when: When,
}

/// A European option.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionTerms {
    /// Symbol of what it is on.
    pub underlying: String,
    /// Strike price.
    pub strike: f64,
    /// When it ends: a date (its last instant, UTC) or an RFC 3339 time. From then on it counts as gone.
    pub expiry: String,
    /// `call` or `put`.
    pub kind: OptionKind,
    /// Volatility a year (0.2: 20 %). Default: what the option's own last price implies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volatility: Option<f64>,
    /// Interest rate a year.
    #[serde(default)]
    pub rate: f64,
    /// Dividend yield a year.
    #[serde(default)]
    pub dividend: f64,
}

/// How the covariance of returns is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Covariance {
    /// The window's own.
    #[default]
    Sample,
    /// Exponentially weighted by `decay`, without a mean.
    Ewma,
    /// Shrunk towards equal variances without correlation (Ledoit and Wolf 2004): for more symbols than samples.
    LedoitWolf,
}

/// When figures are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At each sample.
    #[default]
    Sample,
    /// And when a position's quantity has changed: once for all changes of one instant.
    Change,
    /// And when a price has.
    Tick,
}

fn symbol() -> String {
    "symbol".into()
}
fn day() -> Span {
    Span::from_ns(86_400_000_000_000)
}
fn five_hundred() -> usize {
    500
}
fn levels() -> Vec<f64> {
    vec![0.95, 0.99]
}
fn one_sample() -> Vec<u32> {
    vec![1]
}
fn methods() -> Vec<Method> {
    vec![Method::Historical, Method::Parametric]
}
fn decay() -> f64 {
    tidemill_risk::var::ewma::DAILY
}
fn age_decay() -> f64 {
    0.99
}
fn yes() -> bool {
    true
}

/// See [`Params`].
#[derive(Debug)]
pub struct Risk;

impl OperatorKind for Risk {
    const KIND: &'static str = "risk";
    type Params = Params;
    const INPUTS: (usize, usize) = (2, 16);

    fn plan(params: Params, inputs: &[StreamInfo], cx: &PlanContext) -> Result<OperatorPlan, Problems> {
        let mut problems = Problems::new();
        let ports = inputs::ports(&params, inputs, &mut problems);
        let actions = crate::execution::read_corporate(params.corporate_actions.as_deref(), cx);
        let actions = actions.unwrap_or_else(|wrong| {
            problems.extend(wrong);
            Vec::new()
        });
        let config = Config::of(params, actions.into_iter().map(Action::from).collect(), &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let (config, ports, schemas) = (Arc::new(config), Arc::new(ports), inputs[0].schema.clone());
        Ok(OperatorPlan {
            schema: row::stream_schema(&rows::fields()),
            distribution: Distribution::Keyed(vec![Vec::new(); inputs.len()]),
            ordered: true,
            passes: Vec::new(),
            build: Arc::new(move || {
                Box::new(Watch {
                    config: config.clone(),
                    ports: ports.clone(),
                    state: KeyedState::new(Vec::new(), &schemas, Vec::new()),
                    everything: KeyReader::new(Vec::new()),
                    scratch: Scratch::new(&config),
                    rows: Rows::default(),
                })
            }),
        })
    }
}

/// One instance: all rows are on one worker.
struct Watch {
    config: Arc<Config>,
    ports: Arc<Vec<Port>>,
    /// One book, under the empty key.
    state: KeyedState<Vec<Book>>,
    everything: KeyReader,
    scratch: Scratch,
    rows: Rows,
}

impl Operator for Watch {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(any) = inputs.iter().flatten().find(|batch| batch.num_rows() > 0) else { return Ok(()) };
        self.state.rows_with(&self.everything, any)?;
        let book = &mut self.state.store_mut()[0];
        let mut told: Vec<Told> = Vec::with_capacity(inputs.len());
        for (port, batch) in self.ports.iter().zip(inputs) {
            if let Some(batch) = batch.as_ref().filter(|batch| batch.num_rows() > 0) {
                told.push(port.read(batch)?);
            }
        }
        // Prices before positions, then in the order of `from`.
        told.sort_by_key(|t| t.rank);
        while let Some(next) = next_of(&told) {
            let told = &mut told[next];
            let (ts, i) = (told.ts[told.at], told.at);
            told.at += 1;
            book.pass(ts, &self.config, &mut self.scratch, &mut self.rows);
            told.tell(i, book, &self.config);
        }
        self.rows.send(out)
    }

    fn advance(&mut self, watermark: i64, out: &mut Output) -> Result<(), OperatorError> {
        if self.state.keys().is_empty() || !self.state.store()[0].is_due(watermark) {
            return Ok(());
        }
        self.state.touch(&[0]);
        let book = &mut self.state.store_mut()[0];
        book.pass(watermark, &self.config, &mut self.scratch, &mut self.rows);
        self.rows.send(out)
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(&mut self.state)
    }
}

/// The batch whose next row is the earliest; of equal ones the first.
fn next_of(told: &[Told]) -> Option<usize> {
    let mut best: Option<(i64, usize)> = None;
    for (i, told) in told.iter().enumerate() {
        if let Some(ts) = told.ts.get(told.at)
            && best.is_none_or(|(earliest, _)| *ts < earliest)
        {
            best = Some((*ts, i));
        }
    }
    best.map(|(_, i)| i)
}
