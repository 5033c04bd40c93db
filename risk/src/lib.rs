//! Risk and statistics as plain functions and structs: no engine types, no clock, no IO.
//!
//! | module | what it is |
//! |---|---|
//! | [`allocation`] | weights: Kelly, inverse volatility, equal risk, minimum variance |
//! | [`cointegration`] | pairs that move together |
//! | [`covariance`] | sample, weighted, shrunk, rolling |
//! | [`distribution`] | normal and chi-square |
//! | [`options`] | Black-Scholes-Merton: prices, greeks, implied volatility |
//! | [`performance`] | figures of a series of returns |
//! | [`portfolio`] | profits of a portfolio in every scenario, kept up to date |
//! | [`stress`] | named shocks, options valued anew |
//! | [`var`] | value at risk and expected shortfall by seven methods |
//! | [`var_test`] | Kupiec and Christoffersen |

pub mod allocation;
pub mod cointegration;
pub mod covariance;
pub mod distribution;
pub mod options;
pub mod performance;
pub mod portfolio;
pub mod stress;
pub mod var;
pub mod var_test;

#[cfg(test)]
mod oracle;
