//! Trading as plain state machines: no engine types, no clock, no IO.
//!
//! Money, prices and quantities of orders are exact ([`Decimal`]); market data is `f64`, as it comes. Times are UTC
//! nanoseconds. Everything is a function of the calls in their order, so a machine can be saved, restored and rerun.
//!
//! | module | what it is |
//! |---|---|
//! | [`money`] | exact decimals, rounding, the wire form `Decimal128(38, 18)` |
//! | [`instrument`] | what is traded: ticks, lots, margin, sessions, fees |
//! | [`order`] | orders and their life |
//! | [`market`] | what the market shows, as one tick |
//! | [`report`] | what a venue says of orders and accounts |
//! | [`paper`] | a venue that only pretends, the same way in every run |
//! | [`algo`] | large orders in slices |
//! | [`execution`] | the machine of one account, which ties all of it |
//! | [`signal`] | what strategies and people want |
//! | [`event`] | what the machine tells |
//! | [`ledger`] | one account: positions, cash, profit, margin |
//! | [`fees`] | what trading costs |
//! | [`session`] | when an instrument is traded |

pub mod algo;
pub mod event;
pub mod execution;
pub mod fees;
pub mod gate;
pub mod history;
pub mod instrument;
pub mod ledger;
pub mod market;
pub mod money;
pub mod order;
pub mod paper;
pub mod report;
pub mod session;
pub mod signal;
pub mod sizing;

pub use money::Decimal;
pub use tidemill_span as span;
