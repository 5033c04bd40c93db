//! Deadlines of tests. They only guard against hanging: no test's verdict depends on how fast the machine is.

use std::time::Duration;

use tidemill_engine::clock::{Clock, Stopwatch};

/// How long anything may take on an idle machine before it counts as hung.
const HANG: Duration = Duration::from_secs(180);

/// `base`, scaled by the machine's load (processes that want to run, per core) and by `TIDEMILL_PATIENCE`.
pub fn patience(base: Duration) -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load = load.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let factor = std::env::var("TIDEMILL_PATIENCE").ok().and_then(|text| text.parse::<f64>().ok());
    scaled(base, load / cores as f64, factor.unwrap_or(1.0))
}

fn scaled(base: Duration, load_per_core: f64, factor: f64) -> Duration {
    let times = load_per_core.clamp(1.0, 20.0) * factor.clamp(0.01, 1000.0);
    base.mul_f64(times)
}

/// Ends a test that hangs. The load is looked at again when the time is over, so that a machine which becomes busy
/// after the start gives more of it.
#[derive(Clone, Debug)]
pub struct HangGuard {
    since: Stopwatch,
    base: Duration,
}

/// A guard of minutes.
pub fn hang_guard() -> HangGuard {
    HangGuard { since: Clock::System.start(), base: HANG }
}

impl HangGuard {
    /// Whether the time is over.
    pub fn is_over(&self) -> bool {
        let elapsed = self.since.elapsed();
        elapsed >= self.base && elapsed >= patience(self.base)
    }

    /// Fails the test when the time is over; `what` says what has not come.
    pub fn check(&self, what: impl FnOnce() -> String) {
        if self.is_over() {
            panic!("hung after {} s: {}", self.since.elapsed().as_secs(), what());
        }
    }

    /// Waits until `done`, looking every few milliseconds.
    pub fn wait_until(&self, what: impl Fn() -> String, mut done: impl FnMut() -> bool) {
        while !done() {
            self.check(&what);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The longest that `future` may take before it counts as hung.
pub async fn guarded<F: std::future::Future>(what: &str, future: F) -> F::Output {
    let guard = hang_guard();
    tokio::pin!(future);
    loop {
        match tokio::time::timeout(Duration::from_secs(5), &mut future).await {
            Ok(output) => return output,
            Err(_) => guard.check(|| what.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_gets_more_time_and_an_idle_one_no_less() {
        let base = Duration::from_secs(60);
        assert_eq!(scaled(base, 0.1, 1.0), base);
        assert_eq!(scaled(base, 3.0, 1.0), 3 * base);
        assert_eq!(scaled(base, 1.0, 2.0), 2 * base);
        assert_eq!(scaled(base, 1e9, 1.0), 20 * base);
    }

    #[test]
    fn a_guard_is_over_only_behind_its_time() {
        let guard = HangGuard { since: Clock::System.start(), base: Duration::ZERO };
        assert!(guard.is_over());
        assert!(!hang_guard().is_over());
    }
}
