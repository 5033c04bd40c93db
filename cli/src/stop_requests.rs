//! Requests to stop this process: Ctrl-C and SIGTERM, one request however many signals carry it.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signals this soon after a request belong to it. `timeout` signals its child and then the process group of both, and some
/// supervisors do the same: the second signal is no order to stop without a checkpoint.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// Watches the signals.
pub struct StopRequests {
    terminate: Signal,
    interrupt: Option<Signal>,
    /// Until when signals belong to the request that came last.
    one_request_until: Option<Instant>,
}

impl StopRequests {
    /// Ctrl-C and SIGTERM; from here on they do not end the process by themselves.
    pub fn watch() -> std::io::Result<Self> {
        let interrupt = Some(signal(SignalKind::interrupt())?);
        Ok(Self { interrupt, ..Self::watch_terminate()? })
    }

    /// SIGTERM alone.
    pub fn watch_terminate() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: None, one_request_until: None })
    }

    /// Waits for the next request, past the signals that belong to the one before.
    pub async fn next(&mut self) {
        while let Some(until) = self.one_request_until {
            tokio::select! {
                biased;
                _ = tokio::time::sleep_until(until) => self.one_request_until = None,
                _ = self.signal() => {}
            }
        }
        self.signal().await;
        self.one_request_until = Some(Instant::now() + ONE_REQUEST);
    }

    async fn signal(&mut self) {
        match &mut self.interrupt {
            Some(interrupt) => tokio::select! {
                _ = interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            },
            None => {
                self.terminate.recv().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signalled(signals: &[&str]) {
        let me = std::process::id();
        let kills: Vec<String> = signals.iter().map(|signal| format!("kill -{signal} {me}")).collect();
        let sent = std::process::Command::new("sh").args(["-c", &kills.join("; ")]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    /// Given SIGTERM and SIGINT at once, as `timeout` and a terminal together send them, when they are waited for, then they
    /// are one request; a signal that comes later is the second.
    #[tokio::test]
    async fn signals_that_come_together_are_one_request() {
        let mut requests = StopRequests::watch().unwrap();
        signalled(&["TERM", "INT"]);
        requests.next().await;
        let early = tokio::time::timeout(4 * ONE_REQUEST, requests.next()).await;
        assert!(early.is_err(), "the second signal was taken as a second request");
        signalled(&["INT"]);
        requests.next().await;
    }
}
