//! Parameters, checked once.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate};
use tidemill_engine::component::Problems;
use tidemill_engine::problem::Problem;
use tidemill_risk::options::OptionKind;
use tidemill_risk::stress::Shocks;
use tidemill_risk::var::monte_carlo::Draw;
use tidemill_risk::var::{Method, is_level};

use super::corporate::Action;
use super::{Covariance, OptionTerms, Params, When};

/// The longest interval of samples.
const EVERY_MAX_NS: i64 = 3660 * 86_400_000_000_000;
/// The most samples.
const WINDOW_MAX: usize = 100_000;
/// The most Monte Carlo paths.
const PATHS_MAX: usize = 10_000_000;

/// What the running part needs of [`Params`].
#[derive(Debug)]
pub(super) struct Config {
    every: i64,
    offset: i64,
    pub window: usize,
    pub min_samples: usize,
    pub levels: Vec<f64>,
    pub horizons: Vec<u32>,
    pub methods: Vec<Method>,
    pub overlapping: bool,
    pub decay: f64,
    pub age_decay: f64,
    pub draw: Draw,
    pub covariance: Covariance,
    pub benchmark: Option<String>,
    pub components: bool,
    pub correlations: bool,
    pub backtest: bool,
    pub stress: Vec<(String, Shocks)>,
    pub sectors: BTreeMap<String, String>,
    pub multipliers: BTreeMap<String, f64>,
    pub options: BTreeMap<String, Terms>,
    pub when: When,
    /// In order of time.
    pub actions: Vec<Action>,
}

/// An option's terms.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub underlying: String,
    pub strike: f64,
    /// UTC nanoseconds.
    pub expiry: i64,
    pub kind: OptionKind,
    pub volatility: Option<f64>,
    pub rate: f64,
    pub dividend: f64,
}

impl Config {
    pub fn of(params: Params, actions: Vec<Action>, problems: &mut Problems) -> Self {
        let mut check = |fine: bool, path: &str, reason: &str, hint: &str| {
            if !fine {
                problems.push(Problem::new(path, reason).hint(hint));
            }
        };
        let every = params.every.ns();
        check(
            (1..=EVERY_MAX_NS).contains(&every),
            "every",
            "must be longer than zero, and ten years at most",
            "`every: 1d`, say",
        );
        check(
            (2..=WINDOW_MAX).contains(&params.window),
            "window",
            "must be 2 to 100000 samples",
            "`window: 500`, say",
        );
        let min_samples = params.min_samples.unwrap_or(params.window.min(100));
        check(
            (2..=params.window).contains(&min_samples),
            "min_samples",
            "must be at least 2, and not above `window`",
            "`min_samples: 100`, say",
        );
        check(
            params.levels.iter().all(|l| is_level(*l)),
            "levels",
            "a level is above 0 and below 1",
            "`levels: [0.95, 0.99]`",
        );
        let horizons = params.horizons.iter().all(|h| (1..=10_000).contains(h));
        check(horizons, "horizons", "a horizon is 1 to 10000 samples", "`horizons: [1, 10]`");
        let fraction = |x: f64| x > 0.0 && x < 1.0;
        check(
            fraction(params.decay),
            "decay",
            "must be above 0 and below 1",
            "`decay: 0.94` is RiskMetrics' for days",
        );
        check(
            params.age_decay > 0.0 && params.age_decay <= 1.0,
            "age_decay",
            "must be above 0 and at most 1",
            "`age_decay: 0.99`, say",
        );
        check(
            (1..=PATHS_MAX).contains(&params.monte_carlo.paths),
            "monte_carlo.paths",
            "must be 1 to 10000000",
            "`paths: 10000`, say",
        );
        let fat = params.monte_carlo.degrees.is_none_or(|d| d > 2.0 && d.is_finite());
        check(
            fat,
            "monte_carlo.degrees",
            "must be above 2, where Student's t has a variance",
            "`degrees: 5`, say",
        );
        for (name, shocks) in &params.stress {
            if let Some((key, why)) = shocks.mistake() {
                check(false, &format!("stress.{name}.{key}"), why, "`-0.2` is a fall by a fifth");
            }
            let sectors = shocks.0.keys().filter_map(|key| key.strip_prefix("sector:"));
            for unknown in sectors.filter(|s| !params.sectors.contains_key(*s)) {
                let reason = format!("there is no sector `{unknown}`");
                check(
                    false,
                    &format!("stress.{name}.sector:{unknown}"),
                    &reason,
                    "list its symbols under `sectors`",
                );
            }
        }
        let mut sectors = BTreeMap::new();
        for (sector, symbols) in params.sectors {
            for symbol in symbols {
                if let Some(other) = sectors.insert(symbol.clone(), sector.clone()) {
                    let reason = format!("`{symbol}` is in sector `{other}` too");
                    check(false, &format!("sectors.{sector}"), &reason, "a symbol has one sector");
                }
            }
        }
        for (symbol, multiplier) in &params.multipliers {
            let fine = multiplier.is_finite() && *multiplier > 0.0;
            check(
                fine,
                &format!("multipliers.{symbol}"),
                "must be a number above 0",
                "`100` for a usual option contract",
            );
        }
        let mut options = BTreeMap::new();
        for (symbol, terms) in &params.options {
            let path = format!("options.{symbol}");
            let positive = |x: f64| x > 0.0 && x.is_finite();
            check(
                positive(terms.strike),
                &format!("{path}.strike"),
                "must be a price above 0",
                "`strike: 150`, say",
            );
            let known = terms.volatility.is_none_or(positive);
            check(
                known,
                &format!("{path}.volatility"),
                "must be above 0",
                "`volatility: 0.2` is 20 % a year",
            );
            let rates = terms.rate.is_finite() && terms.dividend.is_finite();
            check(rates, &path, "rates must be finite numbers", "`rate: 0.02` is 2 % a year");
            let chained = params.options.contains_key(&terms.underlying);
            check(
                !chained,
                &format!("{path}.underlying"),
                "is an option itself",
                "name what has a price of its own",
            );
            let expiry = expiry(&terms.expiry);
            check(
                expiry.is_some(),
                &format!("{path}.expiry"),
                "is not a time",
                "write 2025-12-19 or 2025-12-19T21:00:00Z",
            );
            options.insert(symbol.clone(), Terms::of(terms, expiry.unwrap_or_default()));
        }
        Self {
            every: every.max(1),
            offset: params.offset.ns(),
            window: params.window,
            min_samples,
            levels: params.levels,
            horizons: params.horizons,
            methods: params.methods,
            overlapping: params.overlapping,
            decay: params.decay,
            age_decay: params.age_decay,
            draw: params.monte_carlo,
            covariance: params.covariance,
            benchmark: params.benchmark,
            components: params.components,
            correlations: params.correlations,
            backtest: params.backtest,
            stress: params.stress.into_iter().collect(),
            sectors,
            multipliers: params.multipliers,
            options,
            when: params.when,
            actions,
        }
    }

    /// The end of the interval that holds `ts`: an instant at an end belongs to what ends there.
    pub fn end(&self, ts: i64) -> i64 {
        let into = ts.saturating_sub(self.offset).rem_euclid(self.every);
        if into == 0 { ts } else { ts.saturating_add(self.every - into) }
    }
}

impl Terms {
    fn of(terms: &OptionTerms, expiry: i64) -> Self {
        Self {
            underlying: terms.underlying.clone(),
            strike: terms.strike,
            expiry,
            kind: terms.kind,
            volatility: terms.volatility,
            rate: terms.rate,
            dividend: terms.dividend,
        }
    }
}

/// A time, or the end of a date.
fn expiry(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_nanos_opt();
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.succ_opt()?;
    day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_nanos_opt()
}
