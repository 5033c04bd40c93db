//! The figures of a backtest. One list of them serves the terminal, JSON, Parquet, the report and the choice of a sweep.
//!
//! Ratios are of returns by period ([`curve`](super::curve)), a year having as many as it says; the drawdown is of every
//! sample. No risk-free rate is taken off. Formulas and sources are in `tidemill_risk::performance`.

use serde_json::{Map, Value, json};
use tidemill_risk::performance::significance::SharpeSample;
use tidemill_risk::performance::{self as figures, Drawdown, trades};
use tidemill_trading::money;

use super::account::Account;
use super::curve::{self, Periods, Returns, YEAR};
use super::tap::Prices;
use crate::report::text;

/// How a figure is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A fraction, shown as a percentage.
    Percent,
    /// A plain number.
    Ratio,
    /// An amount in the account's currency.
    Money,
    /// A whole number.
    Count,
    /// Nanoseconds.
    Span,
    /// A probability.
    Probability,
}

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Its name in JSON, Parquet and `--metric`.
    pub name: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// How it is shown.
    pub unit: Unit,
    /// Its value, where there is one.
    pub value: Option<f64>,
}

impl Figure {
    /// For people.
    pub fn text(&self) -> String {
        let Some(value) = self.value else { return text::NONE.into() };
        match self.unit {
            Unit::Percent => text::percent(value, 2),
            Unit::Ratio => text::number(value, if value.abs() < 100.0 { 2 } else { 0 }),
            Unit::Money => text::number(value, 2),
            Unit::Count => text::number(value, 0),
            Unit::Span => text::span(value as i64),
            Unit::Probability => text::number(value, 3),
        }
    }
}

/// All figures of one backtest.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Their values, in the order in which they are shown.
    pub figures: Vec<Figure>,
    /// First and last sample.
    pub range: (i64, i64),
    /// Returns that ratios are made of.
    pub returns: Returns,
    /// The benchmark's, period by period.
    pub benchmark: Vec<Option<f64>>,
}

/// Names of figures by which a sweep may choose, and whether less is better.
pub const LESS_IS_BETTER: [&str; 4] = ["max_drawdown_length", "volatility", "costs", "turnover"];

impl Summary {
    /// The figures of an account; `trials` is how many variants were tried before this one was chosen, and the variance of
    /// their Sharpe ratios by period.
    pub fn of(account: &Account, prices: &Prices, periods: Periods, trials: Option<(usize, f64)>) -> Self {
        let fills: Vec<i64> = account.fills.iter().map(|f| f.ts).collect();
        let returns = curve::returns(&account.curve, &fills, account.start, periods);
        let benchmark = if prices.is_empty() { Vec::new() } else { curve::like(prices, &returns) };
        let first = account.curve.first().map_or(0, |p| p.ts);
        let last = account.curve.last().map_or(0, |p| p.ts);
        let mut summary = Self { figures: Vec::new(), range: (first, last), returns, benchmark };
        summary.account(account);
        summary.ratios(account, trials);
        summary.trading(account);
        summary.compared();
        summary
    }

    /// The value of a figure.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|f| f.name == name)?.value
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let mut out = Map::new();
        out.insert("from".into(), rfc3339(self.range.0));
        out.insert("to".into(), rfc3339(self.range.1));
        for figure in &self.figures {
            out.insert(figure.name.into(), figure.value.map_or(Value::Null, |v| json!(v)));
        }
        Value::Object(out)
    }

    fn add(&mut self, name: &'static str, label: &'static str, unit: Unit, value: Option<f64>) {
        let value = value.filter(|v| v.is_finite());
        self.figures.push(Figure { name, label, unit, value });
    }

    fn years(&self) -> f64 {
        (self.range.1 - self.range.0) as f64 / YEAR
    }

    fn account(&mut self, account: &Account) {
        let end = account.curve.last().map(|p| p.equity);
        let start = (!account.curve.is_empty()).then_some(account.start);
        let both = start.zip(end);
        let cagr = both.and_then(|(start, end)| figures::growth(start, end, self.years()));
        let total = both.filter(|(start, _)| *start > 0.0).map(|(start, end)| end / start - 1.0);
        let mut drawdown = Drawdown::new();
        drawdown.observe(self.range.0, account.start);
        for point in &account.curve {
            drawdown.observe(point.ts, point.equity);
        }
        self.add("start_equity", "Equity at the start", Unit::Money, start);
        self.add("end_equity", "Equity at the end", Unit::Money, end);
        self.add("total_return", "Total return", Unit::Percent, total);
        self.add("cagr", "CAGR", Unit::Percent, cagr);
        self.add("max_drawdown", "Max drawdown", Unit::Percent, start.map(|_| drawdown.deepest()));
        let length = start.map(|_| drawdown.longest_ns() as f64);
        self.add("max_drawdown_length", "Longest drawdown", Unit::Span, length);
        let calmar = cagr.filter(|_| drawdown.deepest() < 0.0).map(|c| c / -drawdown.deepest());
        self.add("calmar", "Calmar", Unit::Ratio, calmar);
    }

    fn ratios(&mut self, account: &Account, trials: Option<(usize, f64)>) {
        let (r, year) = (self.returns.values.clone(), self.returns.per_year);
        let sample = SharpeSample::of(&r);
        self.add("sharpe", "Sharpe", Unit::Ratio, figures::sharpe(&r, year));
        self.add("sortino", "Sortino", Unit::Ratio, figures::sortino(&r, year));
        self.add("omega", "Omega", Unit::Ratio, figures::omega(&r, 0.0));
        self.add("volatility", "Volatility a year", Unit::Percent, figures::annual_volatility(&r, year));
        self.add("tail_ratio", "Tail ratio", Unit::Ratio, figures::tail_ratio(&r));
        self.add("skewness", "Skewness", Unit::Ratio, figures::sample_skewness(&r));
        self.add("kurtosis", "Excess kurtosis", Unit::Ratio, figures::sample_excess_kurtosis(&r));
        self.add("var_95", "VaR 95 % a period", Unit::Percent, figures::historical_var(&r, 0.95));
        self.add("cvar_95", "CVaR 95 % a period", Unit::Percent, figures::historical_cvar(&r, 0.95));
        let sure = sample.as_ref().and_then(|s| figures::probabilistic_sharpe(s, 0.0));
        self.add("probabilistic_sharpe", "P(Sharpe > 0)", Unit::Probability, sure);
        let (count, variance) = trials.unwrap_or((1, 0.0));
        let deflated = sample.as_ref().and_then(|s| figures::deflated_sharpe(s, count, variance));
        self.add("deflated_sharpe", "Deflated Sharpe", Unit::Probability, deflated);
        self.add("trials", "Trials", Unit::Count, Some(count as f64));
        let record = sample.as_ref().and_then(|s| figures::min_track_record(s, 0.0, 0.95));
        self.add("min_track_record", "Periods that would prove it", Unit::Count, record.map(f64::ceil));
        self.add("periods", "Periods", Unit::Count, Some(r.len() as f64));
        self.add("period", "Length of a period", Unit::Span, Some(self.returns.every as f64));
        let gross: Vec<f64> = account.curve.iter().map(|p| p.gross).collect();
        let equity: Vec<f64> = account.curve.iter().map(|p| p.equity).collect();
        let over = |value: f64, i: usize| if equity[i] > 0.0 { value / equity[i] } else { 0.0 };
        let most = gross
            .iter()
            .enumerate()
            .map(|(i, g)| over(*g, i))
            .fold(None, |a: Option<f64>, v| Some(a.unwrap_or(v).max(v)));
        let net = (!equity.is_empty()).then(|| {
            account.curve.iter().enumerate().map(|(i, p)| over(p.net, i)).sum::<f64>() / equity.len() as f64
        });
        self.add("exposure", "Time in the market", Unit::Percent, trades::time_in_market(&gross));
        self.add(
            "gross_exposure",
            "Mean gross exposure",
            Unit::Percent,
            figures::mean_exposure(&gross, &equity),
        );
        self.add("net_exposure", "Mean net exposure", Unit::Percent, net);
        self.add("gross_exposure_max", "Largest gross exposure", Unit::Percent, most);
    }

    fn trading(&mut self, account: &Account) {
        let profits: Vec<f64> = account.trades.iter().map(|t| money::to_f64(t.net())).collect();
        let won = trades::trades(&profits).unwrap_or_default();
        let traded: f64 = account.fills.iter().map(|f| f.value).filter(|value| !value.is_nan()).sum();
        let mean = account.curve.iter().map(|p| p.equity).sum::<f64>() / account.curve.len().max(1) as f64;
        let turnover = figures::annual_turnover(traded, mean, self.years());
        let fees = match (account.curve.first(), account.curve.last()) {
            (Some(_), Some(last)) => last.fees - account.fees_before,
            _ => 0.0,
        };
        let carry: f64 =
            account.cash.iter().filter(|(reason, _)| CARRY.contains(&reason.as_str())).map(|(_, a)| -a).sum();
        let held = account.trades.iter().map(|t| (t.closed_at - t.opened_at) as f64).sum::<f64>();
        let held = (!account.trades.is_empty()).then(|| held / account.trades.len() as f64);
        self.add("trades", "Round trips", Unit::Count, Some(won.count as f64));
        self.add("win_rate", "Win rate", Unit::Percent, won.win_rate);
        self.add("profit_factor", "Profit factor", Unit::Ratio, won.profit_factor);
        self.add("expectancy", "Mean gain a trade", Unit::Money, won.expectancy);
        self.add("payoff_ratio", "Payoff ratio", Unit::Ratio, won.payoff_ratio);
        self.add("best_trade", "Best trade", Unit::Money, won.best);
        self.add("worst_trade", "Worst trade", Unit::Money, won.worst);
        self.add("holding_time", "Mean holding time", Unit::Span, held);
        self.add("orders", "Orders", Unit::Count, Some(account.orders as f64));
        self.add("fills", "Fills", Unit::Count, Some(account.fills.len() as f64));
        let refused = account.rejections.values().sum::<u64>();
        self.add("rejections", "Refused by the gate", Unit::Count, Some(refused as f64));
        self.add(
            "refused_by_venue",
            "Refused by the venue",
            Unit::Count,
            Some(account.refused_by_venue as f64),
        );
        self.add("traded", "Value traded", Unit::Money, Some(traded));
        self.add("turnover", "Turnover a year", Unit::Ratio, turnover);
        self.add("fees", "Fees", Unit::Money, Some(fees));
        self.add("carry", "Funding, borrow, interest", Unit::Money, Some(carry));
        self.add("costs", "Costs", Unit::Money, Some(fees + carry));
    }

    fn compared(&mut self) {
        if self.benchmark.is_empty() {
            return;
        }
        // Periods before the benchmark's first price have nothing to be compared with.
        let (own, other): (Vec<f64>, Vec<f64>) =
            self.returns.values.iter().zip(&self.benchmark).filter_map(|(r, b)| Some((*r, (*b)?))).unzip();
        let year = self.returns.per_year;
        self.add("benchmark_return", "Benchmark's return", Unit::Percent, figures::total_return(&other));
        self.add("alpha", "Alpha a year", Unit::Percent, figures::alpha(&own, &other, year));
        self.add("beta", "Beta", Unit::Ratio, figures::beta(&own, &other));
        self.add("correlation", "Correlation", Unit::Ratio, figures::correlation(&own, &other));
        self.add(
            "information_ratio",
            "Information ratio",
            Unit::Ratio,
            figures::information_ratio(&own, &other, year),
        );
    }
}

/// Cash that holding positions costs or brings.
const CARRY: [&str; 3] = ["funding", "borrow", "fee"];

/// A time in JSON.
pub fn rfc3339(ns: i64) -> Value {
    let time = chrono::DateTime::from_timestamp_nanos(ns);
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true).into()
}
