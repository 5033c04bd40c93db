//! Why a signal has no size.

use thiserror::Error;

/// A signal that cannot be sized: nothing is ordered for it.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{cause}")]
pub struct SizingError {
    rule: &'static str,
    /// Why.
    pub cause: Cause,
}

impl SizingError {
    pub(super) fn new(rule: &'static str, cause: Cause) -> Self {
        Self { rule, cause }
    }

    /// The rule, by its path in the graph, such as `sizing.kelly`.
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

/// Why a signal cannot be sized.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Cause {
    /// The instrument's number is none.
    #[error("nothing is known of the instrument")]
    Unknown,
    /// The graph has no rule.
    #[error(
        "the graph has no `sizing`, so nothing says how large it is: write `sizing: {{ equity: 0.1 }}`, say, or let signals have a `target` or `weight`"
    )]
    NoRule,
    /// No price to count units by.
    #[error("no price of {0} is known")]
    NoPrice(String),
    /// No rate of its currency.
    #[error("no rate of {0}'s currency is known")]
    NoRate(String),
    /// Equity is not known, zero or below.
    #[error("equity is {0}, so it has no parts")]
    Equity(f64),
    /// The signal's strength is negative or no number.
    #[error("strength {0} of the signal is not a number from zero on")]
    Strength(f64),
    /// The part of equity is no number.
    #[error("{0} is no part of equity")]
    Weight(f64),
    /// Volatility is neither given nor measured.
    #[error("the volatility of {0} is not known: the signal has none, and too few returns were sampled")]
    NoVolatility(String),
    /// Its price did not move.
    #[error("the volatility of {0} is zero: its price did not move")]
    ZeroVolatility(String),
    /// The signal's volatility makes no sense.
    #[error("volatility {0} of the signal is not a number above zero")]
    Volatility(f64),
    /// No average true range.
    #[error("the signal has no `atr`")]
    NoAtr,
    /// The signal's average true range makes no sense.
    #[error("atr {0} of the signal is not a number above zero")]
    Atr(f64),
    /// No expectation.
    #[error("the signal has no `expected` return")]
    NoExpected,
    /// The signal's expectation makes no sense.
    #[error("expected return {0} of the signal is no number")]
    Expected(f64),
    /// Too few samples: how many, how many are needed, of which symbols.
    #[error("{0} of {1} samples that all of {2} have are too few for their covariance")]
    FewSamples(usize, usize, String),
    /// The covariance cannot be used.
    #[error("the covariance of {symbols} cannot be used: {why}")]
    Covariance {
        /// Of which symbols.
        symbols: String,
        /// Why.
        why: String,
    },
    /// Beyond 28 digits.
    #[error("the numbers are too large to reckon with")]
    TooLarge,
}
