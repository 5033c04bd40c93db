//! All figures of a book at one instant.

use nalgebra::DMatrix;
use tidemill_risk::covariance;
use tidemill_risk::performance::benchmark as measured;
use tidemill_risk::portfolio::{Exposure, Portfolio};
use tidemill_risk::var::moments::{self, Moments};
use tidemill_risk::var::monte_carlo::Draws;
use tidemill_risk::var::tail::Tail;
use tidemill_risk::var::weighted::age_weighted;
use tidemill_risk::var::{
    Method, TailRisk, component, cornish_fisher, ewma, normal, overlapping, parametric,
};

use super::Covariance;
use super::book::Book;
use super::config::Config;
use super::rows::{Of, Rows};
use super::value::{Valued, value};

/// Memory that is used again and again; nothing in it shows.
pub(super) struct Scratch {
    tail: Tail,
    figures: Vec<TailRisk>,
    profits: Vec<f64>,
    other: Vec<f64>,
    sums: Vec<f64>,
    own: Vec<f64>,
    draws: Option<Drawn>,
}

/// Draws, and what they were drawn for.
struct Drawn {
    samples: u64,
    common: usize,
    held: Vec<usize>,
    means: Vec<f64>,
    draws: Option<Draws>,
}

impl Scratch {
    pub fn new(config: &Config) -> Self {
        let none = || Tail::new(Vec::new()).expect("no level is a wrong one");
        Self {
            tail: Tail::new(config.levels.clone()).unwrap_or_else(none),
            figures: Vec::new(),
            profits: Vec::new(),
            other: Vec::new(),
            sums: Vec::new(),
            own: Vec::new(),
            draws: None,
        }
    }
}

/// Where figures go.
struct Sheet<'a> {
    at: (i64, u64, u64),
    rows: &'a mut Rows,
    equity: Option<f64>,
}

impl Sheet<'_> {
    fn figure(&mut self, measure: &str, of: Of<'_>, value: f64) {
        self.rows.push(self.at, measure, of, value);
    }

    /// A figure in money.
    fn money(&mut self, measure: &str, of: Of<'_>, value: f64) {
        self.rows.push(self.at, measure, Of { equity: self.equity, ..of }, value);
    }
}

/// Tells everything that is known at `ts`; `sampled` where a sample has just been taken.
pub(super) fn measure(
    book: &mut Book,
    config: &Config,
    scratch: &mut Scratch,
    ts: i64,
    sampled: bool,
    rows: &mut Rows,
) {
    if sampled {
        book.held.clear();
        book.forecasts.clear();
        book.forecasts.resize(config.methods.len() * config.levels.len(), None);
    }
    let Some(valued) = value(book, config, ts) else { return };
    let mut sheet = Sheet { at: (ts, book.src, book.seq), rows, equity: book.equity };
    valued.tell_greeks(book, |symbol, measure, value| {
        sheet.figure(measure, Of { symbol: Some(symbol), ..Of::default() }, value)
    });
    stress(&valued, book, config, &mut sheet);
    let portfolio = book.portfolio(config);
    for (i, exposure) in valued.exposures.iter().enumerate() {
        if portfolio.set(i, *exposure).is_err() {
            // Beyond what can be summed: no figure is better than a wrong one.
            return;
        }
    }
    let Some(portfolio) = &book.portfolio else { return };
    let n = portfolio.common();
    if n < config.min_samples {
        return;
    }
    portfolio.profits(n, &mut scratch.profits);
    let Some(moments) = Moments::of(&scratch.profits) else { return };
    let deviation = ewma::deviation(&scratch.profits, config.decay).unwrap_or(f64::NAN);
    let mut forecasts = Vec::new();
    let context = Context { book, portfolio, config, moments, deviation };
    for method in &config.methods {
        let mut first = None;
        for horizon in &config.horizons {
            let h = f64::from(*horizon);
            let found = context.tails(*method, *horizon, scratch);
            for (level, risk) in config.levels.iter().zip(&found) {
                let Some(risk) = risk else { continue };
                let of = Of {
                    method: Some(method.name()),
                    level: Some(*level),
                    horizon: Some(*horizon),
                    ..Of::default()
                };
                sheet.money("var", of, risk.var);
                sheet.money("cvar", of, risk.cvar);
            }
            if *horizon == 1 {
                first = Some(found);
            }
            let spread = match method {
                Method::Parametric => moments.deviation,
                Method::Ewma => deviation,
                _ => continue,
            };
            let of = Of { method: Some(method.name()), horizon: Some(*horizon), ..Of::default() };
            sheet.money("volatility", of, spread * h.sqrt());
        }
        if sampled && config.backtest {
            let found = first.unwrap_or_else(|| context.tails(*method, 1, scratch));
            forecasts.extend(found.iter().map(|risk| risk.map(|risk| risk.var)));
        }
    }
    if config.components {
        components(book, portfolio, n, config, &mut sheet);
    }
    relations(book, portfolio, n, config, scratch, &mut sheet);
    if sampled && config.backtest {
        book.held = portfolio.held().map(|(i, e)| (i as u32, e)).collect();
        book.forecasts = forecasts;
        tests(book, config, &mut sheet);
    }
}

/// What all methods read.
struct Context<'a> {
    book: &'a Book,
    portfolio: &'a Portfolio,
    config: &'a Config,
    moments: Moments,
    deviation: f64,
}

impl Context<'_> {
    /// VaR and CVaR of one method over one horizon, by level.
    fn tails(&self, method: Method, horizon: u32, scratch: &mut Scratch) -> Vec<Option<TailRisk>> {
        let (config, h) = (self.config, f64::from(horizon));
        let each = |f: &dyn Fn(f64) -> Option<TailRisk>| -> Vec<Option<TailRisk>> {
            config.levels.iter().map(|level| f(*level)).collect()
        };
        match method {
            Method::Parametric => return each(&|level| parametric(&self.moments, level, h)),
            Method::CornishFisher => return each(&|level| cornish_fisher(&self.moments, level, h)),
            Method::Ewma => return each(&|level| normal(self.deviation, level, h)),
            Method::MonteCarlo => {
                self.draw(scratch);
                scratch.sums.clear();
                if let Some(drawn) = &scratch.draws
                    && let Some(draws) = &drawn.draws
                {
                    let exposures: Vec<Exposure> =
                        drawn.held.iter().map(|i| self.portfolio.exposure(*i)).collect();
                    draws.profits(&exposures, &drawn.means, h, &mut scratch.sums);
                }
                return select(&mut scratch.tail, &scratch.sums, &mut scratch.figures);
            }
            Method::Historical | Method::Filtered | Method::AgeWeighted => {}
        }
        let sample = match method {
            Method::Filtered => {
                ewma::filtered(&scratch.profits, config.decay, &mut scratch.other);
                &scratch.other
            }
            _ => &scratch.profits,
        };
        let summed = config.overlapping && horizon > 1;
        if summed {
            overlapping(sample, horizon as usize, &mut scratch.sums);
        }
        let sample = if summed { &scratch.sums } else { sample };
        let found = match method {
            Method::AgeWeighted => each(&|level| age_weighted(sample, config.age_decay, level)),
            _ => select(&mut scratch.tail, sample, &mut scratch.figures),
        };
        match summed {
            true => found,
            false => found.into_iter().map(|risk| risk.map(|risk| risk.over(h))).collect(),
        }
    }

    /// Draws outcomes of what is held, unless they are there already.
    fn draw(&self, scratch: &mut Scratch) {
        let portfolio = self.portfolio;
        let held: Vec<usize> = portfolio.held().map(|(i, _)| i).collect();
        let (samples, common) = (self.book.samples, portfolio.common());
        let known = |d: &Drawn| d.samples == samples && d.common == common && d.held == held;
        if scratch.draws.as_ref().is_some_and(known) {
            return;
        }
        let returns: Vec<Vec<f64>> = held
            .iter()
            .map(|i| {
                let (older, newer) = portfolio.returns(*i, common);
                [older, newer].concat()
            })
            .collect();
        let covariance = match self.config.covariance {
            Covariance::Sample => Some(DMatrix::from_fn(held.len(), held.len(), |i, j| {
                moments::covariance(&returns[i], &returns[j]).unwrap_or(f64::NAN)
            })),
            Covariance::Ewma => covariance::ewma(&returns, self.config.decay).ok(),
            Covariance::LedoitWolf => covariance::ledoit_wolf(&returns).ok().map(|shrunk| shrunk.covariance),
        };
        let means = returns.iter().map(|r| moments::mean(r)).collect();
        let draws = covariance.and_then(|covariance| Draws::new(&self.config.draw, &covariance).ok());
        scratch.draws = Some(Drawn { samples, common, held, means, draws });
    }
}

/// The tail of a sample by level; none where the sample is empty.
fn select(tail: &mut Tail, sample: &[f64], figures: &mut Vec<TailRisk>) -> Vec<Option<TailRisk>> {
    tail.measure(sample, &[], figures);
    match figures.is_empty() {
        true => vec![None; tail.levels().len()],
        false => figures.iter().map(|risk| Some(*risk)).collect(),
    }
}

/// Parts of VaR and CVaR.
fn components(book: &Book, portfolio: &Portfolio, n: usize, config: &Config, sheet: &mut Sheet<'_>) {
    for method in &config.methods {
        for level in &config.levels {
            let parts = match method {
                Method::Historical => component::historical(portfolio, n, *level),
                Method::Parametric => component::parametric(portfolio, n, *level),
                _ => continue,
            };
            for part in parts {
                let of = Of {
                    method: Some(method.name()),
                    level: Some(*level),
                    horizon: Some(1),
                    symbol: Some(&book.symbols[part.instrument].name),
                    ..Of::default()
                };
                sheet.money("component_var", of, part.var);
                sheet.money("component_cvar", of, part.cvar);
                sheet.figure("marginal_var", of, part.marginal_var);
            }
        }
    }
}

/// Betas and correlations.
fn relations(
    book: &Book,
    portfolio: &Portfolio,
    n: usize,
    config: &Config,
    scratch: &mut Scratch,
    sheet: &mut Sheet<'_>,
) {
    let row = |i: usize, n: usize, out: &mut Vec<f64>| {
        let (older, newer) = portfolio.returns(i, n);
        out.clear();
        out.extend_from_slice(older);
        out.extend_from_slice(newer);
    };
    if let Some(name) = &config.benchmark
        && let Some(benchmark) = book.find(name)
        && let both = n.min(portfolio.samples(benchmark))
        && both >= config.min_samples
    {
        row(benchmark, both, &mut scratch.other);
        portfolio.profits(both, &mut scratch.own);
        let of = Of { other: Some(name), ..Of::default() };
        if let Some(beta) = measured::beta(&scratch.own, &scratch.other) {
            sheet.money("beta", of, beta);
        }
        if let Some(correlation) = measured::correlation(&scratch.own, &scratch.other) {
            sheet.figure("correlation", of, correlation);
        }
        for (i, _) in portfolio.held() {
            row(i, both, &mut scratch.own);
            if let Some(beta) = measured::beta(&scratch.own, &scratch.other) {
                sheet.figure("beta", Of { symbol: Some(&book.symbols[i].name), ..of }, beta);
            }
        }
    }
    if config.correlations {
        let held: Vec<usize> = portfolio.held().map(|(i, _)| i).collect();
        for (k, i) in held.iter().enumerate() {
            row(*i, n, &mut scratch.own);
            for j in &held[k + 1..] {
                row(*j, n, &mut scratch.other);
                if let Some(correlation) = measured::correlation(&scratch.own, &scratch.other) {
                    let (a, b) = (&book.symbols[*i].name, &book.symbols[*j].name);
                    let (a, b) = if a < b { (a, b) } else { (b, a) };
                    sheet.figure(
                        "correlation",
                        Of { symbol: Some(a), other: Some(b), ..Of::default() },
                        correlation,
                    );
                }
            }
        }
    }
}

/// Profits in the named scenarios.
fn stress(valued: &Valued, book: &Book, config: &Config, sheet: &mut Sheet<'_>) {
    for (name, shocks) in &config.stress {
        let of = Of { method: Some(name), ..Of::default() };
        let mut sum = 0.0;
        let mut parts = Vec::new();
        for (i, position) in &valued.positions {
            let move_of = |symbol: &str| shocks.of(symbol, config.sectors.get(symbol).map(String::as_str));
            let profit = position.shocked(&book.symbols[*i].name, move_of, shocks.vol());
            sum += profit;
            parts.push((*i, profit));
        }
        sheet.money("stress", of, sum);
        // A part that isn't known takes the whole with it, and the other parts say little.
        if config.components && sum.is_finite() {
            for (i, profit) in parts {
                sheet.money("stress", Of { symbol: Some(&book.symbols[i].name), ..of }, profit);
            }
        }
    }
}

/// How forecasts have done.
fn tests(book: &Book, config: &Config, sheet: &mut Sheet<'_>) {
    let places = config.methods.iter().flat_map(|m| config.levels.iter().map(move |l| (*m, *l)));
    for ((method, level), test) in places.zip(&book.tests) {
        if test.periods == 0 {
            continue;
        }
        let of = Of { method: Some(method.name()), level: Some(level), horizon: Some(1), ..Of::default() };
        sheet.figure("exceedances", of, test.failures as f64);
        sheet.figure("var_samples", of, test.periods as f64);
        let results = [
            ("kupiec", "kupiec_p", test.coverage(level)),
            ("christoffersen", "christoffersen_p", test.independence()),
            ("conditional_coverage", "conditional_coverage_p", test.conditional(level)),
        ];
        for (statistic, p_value, result) in results {
            if let Some(result) = result {
                sheet.figure(statistic, of, result.statistic);
                sheet.figure(p_value, of, result.p_value);
            }
        }
    }
}
