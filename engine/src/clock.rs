//! The engine's only view of wall-clock time.
//!
//! Everything that may look at a clock is handed a [`Clock`]; tests hand it one they move.
//! No operator gets one: an operator's output is a function of its rows.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A source of wall-clock time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that moves only when it is set; nanoseconds since the epoch.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub fn now_ns(&self) -> i64 {
        match self {
            #[allow(clippy::disallowed_methods)]
            Clock::System => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |d| d.as_nanos() as i64)
                .saturating_add(offset_ns()),
            Clock::Manual(ns) => ns.load(Ordering::Relaxed),
        }
    }

    /// Starts a stopwatch.
    pub fn start(&self) -> Stopwatch {
        match self {
            #[allow(clippy::disallowed_methods)]
            Clock::System => Stopwatch(Started::Instant(std::time::Instant::now())),
            Clock::Manual(ns) => Stopwatch(Started::Manual(ns.clone(), ns.load(Ordering::Relaxed))),
        }
    }
}

/// By how much tests have set the machine's clock wrong: the number of nanoseconds that the file named by
/// `TIDEMILL_CLOCK_OFFSET` holds now. 0 where the variable is not set, and no file is looked at.
fn offset_ns() -> i64 {
    static FILE: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os("TIDEMILL_CLOCK_OFFSET").map(Into::into));
    let Some(file) = file else { return 0 };
    std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Measures time that has passed on the clock that started it.
#[derive(Clone, Debug)]
pub struct Stopwatch(Started);

#[derive(Clone, Debug)]
enum Started {
    Instant(std::time::Instant),
    Manual(Arc<AtomicI64>, i64),
}

impl Stopwatch {
    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Started::Instant(at) => at.elapsed(),
            Started::Manual(ns, at) => Duration::from_nanos((ns.load(Ordering::Relaxed) - at).max(0) as u64),
        }
    }
}
