//! Performance figures of returns, equity and trades.
//!
//! Returns are simple and per period, losses negative; `per_year` is the number of periods in a year. Every function gives none where there
//! is no answer (no data, a number that isn't finite, nothing to divide by), and never NaN. Each names its formula and its source.
//!
//! | module | what |
//! |---|---|
//! | [`ratios`] | growth, volatility, Sharpe, Sortino, Calmar, omega, rolling Sharpe |
//! | [`drawdown`] | depth and length of drawdowns, as a stream too |
//! | [`tail`] | quantiles, value at risk, expected shortfall, Cornish-Fisher, EWMA volatility |
//! | [`benchmark`] | alpha, beta, information ratio |
//! | [`trades`] | win rate, profit factor, expectancy, exposure, turnover |
//! | [`significance`] | probabilistic and deflated Sharpe ratio, minimum track record |
//! | [`calendar`] | monthly returns |
//! | [`moments`] | mean, deviation, skewness, kurtosis |

pub mod benchmark;
pub mod calendar;
pub mod drawdown;
pub mod moments;
pub mod ratios;
pub mod significance;
pub mod tail;
pub mod trades;

use serde::{Deserialize, Serialize};

pub use benchmark::{alpha, beta, correlation, excess_return, information_ratio, tracking_error, treynor};
pub use calendar::{MonthlyReturn, monthly_returns, year_month};
pub use drawdown::{Drawdown, drawdowns, max_drawdown, max_drawdown_periods};
pub use moments::{deviation, kurtosis, mean, sample_excess_kurtosis, sample_skewness, skewness, variance};
pub use ratios::{
    annual_return, annual_volatility, calmar, downside_deviation, growth, omega, returns_of, rolling_sharpe,
    sharpe, sortino, total_return,
};
pub use significance::{
    SharpeSample, deflated_sharpe, expected_max_sharpe, min_track_record, probabilistic_sharpe,
};
pub use tail::{
    cornish_fisher_quantile, cornish_fisher_var, ewma_step, ewma_volatility, historical_cvar, historical_var,
    normal_cvar, normal_var, quantile, tail_ratio,
};
pub use trades::{Trades, annual_turnover, mean_exposure, time_in_market};

/// The figures of a series of returns, all at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many returns.
    pub periods: usize,
    /// prod(1 + r) - 1.
    pub total_return: Option<f64>,
    /// The compound annual growth rate.
    pub annual_return: Option<f64>,
    /// A year.
    pub annual_volatility: Option<f64>,
    /// A year.
    pub sharpe: Option<f64>,
    /// A year.
    pub sortino: Option<f64>,
    /// Annual growth over the maximum drawdown.
    pub calmar: Option<f64>,
    /// Around zero.
    pub omega: Option<f64>,
    /// 0 or negative.
    pub max_drawdown: Option<f64>,
    /// From a peak until it was reached again, or until the end.
    pub max_drawdown_periods: Option<u64>,
    /// |95 % quantile| / |5 % quantile|.
    pub tail_ratio: Option<f64>,
    /// Corrected for the size of the sample.
    pub skewness: Option<f64>,
    /// Corrected for the size of the sample; 0 is normal.
    pub excess_kurtosis: Option<f64>,
    /// Historical value at risk at 95 %: a loss is negative.
    pub var_95: Option<f64>,
    /// Historical expected shortfall at 95 %: a loss is negative.
    pub cvar_95: Option<f64>,
    /// The best period's return.
    pub best: Option<f64>,
    /// The worst period's return.
    pub worst: Option<f64>,
    /// The part of periods with a return above zero.
    pub positive: Option<f64>,
    /// The probability that the true Sharpe ratio is above zero.
    pub probabilistic_sharpe: Option<f64>,
}

/// All figures of some returns with so many periods a year.
pub fn summary(returns: &[f64], per_year: f64) -> Summary {
    let sound = moments::checked(returns, 1);
    let part = |count: usize| moments::ratio(count as f64, returns.len() as f64);
    Summary {
        periods: returns.len(),
        total_return: total_return(returns),
        annual_return: annual_return(returns, per_year),
        annual_volatility: annual_volatility(returns, per_year),
        sharpe: sharpe(returns, per_year),
        sortino: sortino(returns, per_year),
        calmar: calmar(returns, per_year),
        omega: omega(returns, 0.0),
        max_drawdown: max_drawdown(returns),
        max_drawdown_periods: max_drawdown_periods(returns),
        tail_ratio: tail_ratio(returns),
        skewness: sample_skewness(returns),
        excess_kurtosis: sample_excess_kurtosis(returns),
        var_95: historical_var(returns, 0.95),
        cvar_95: historical_cvar(returns, 0.95),
        best: sound.and_then(|r| r.iter().copied().max_by(f64::total_cmp)),
        worst: sound.and_then(|r| r.iter().copied().min_by(f64::total_cmp)),
        positive: sound.and_then(|r| part(r.iter().filter(|x| **x > 0.0).count())),
        probabilistic_sharpe: SharpeSample::of(returns).and_then(|sample| probabilistic_sharpe(&sample, 0.0)),
    }
}

#[cfg(test)]
mod tests;
