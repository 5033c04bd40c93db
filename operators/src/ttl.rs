//! The parameter `ttl` of keyed operators: how long a key lives after its last row, in event time.

use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;

/// A time to live in nanoseconds; `None`: for ever.
pub fn ns(ttl: Option<Span>) -> Result<Option<i64>, Problem> {
    match ttl.map(|ttl| ttl.ns()) {
        Some(ns) if ns <= 0 => {
            Err(Problem::new("ttl", "is not above 0").hint("write `7d`, or leave it out to keep every key"))
        }
        ns => Ok(ns),
    }
}
