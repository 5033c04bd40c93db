//! `gap_fill(table, ts, interval [, keys [, from, to]])`: rows for the intervals that have none.
//!
//! ```sql
//! SELECT symbol, ts, locf(close) OVER (PARTITION BY symbol ORDER BY ts) AS close
//! FROM gap_fill((SELECT symbol, time_bucket('1m', ts) AS ts, last(price, ts) AS close FROM trades GROUP BY 1, 2),
//!               ts, '1m', 'symbol')
//! ```
//!
//! For each key, between each of its rows and the next, rows are added an interval apart; the key's columns
//! and `ts` are set, all others are null. With `from` and `to` a key's rows also begin at the one and go on
//! up to, not including, the other. Rows that are there stay as they are; a key without any gets none, and
//! rows without a time are left out. Add columns with `locf` or `interpolate` for values. The output is in
//! order of keys and time. State: one row.

pub(crate) mod exec;
pub(crate) mod node;

#[cfg(test)]
mod tests;
