//! Points where tests make a process fail: between two steps whose order matters, and in front of writes.
//!
//! `TIDEMILL_FAULT=NAME:FIRST[xCOUNT][:ACTION]`, several separated by commas. The action happens when the point
//! is passed for the `FIRST`th time, and at the `COUNT - 1` passages after that:
//!
//! | action | at a point |
//! |---|---|
//! | `abort` (the default) | the process aborts |
//! | `stop` | the process gets SIGSTOP |
//! | `delay=MS` | the thread sleeps |
//! | `eio`, `enospc` | the write fails with this error; only where the caller can fail ([`io`]) |
//!
//! Unset, a passage costs one look at a static.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Abort,
    Stop,
    Delay(Duration),
    /// An error of the operating system, by its number.
    Fail(i32),
}

#[derive(Debug)]
struct Fault {
    name: String,
    first: u64,
    count: u64,
    action: Action,
    passed: AtomicU64,
}

static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();

fn faults() -> &'static [Fault] {
    FAULTS.get_or_init(|| match std::env::var("TIDEMILL_FAULT") {
        Err(_) => Vec::new(),
        Ok(text) => {
            let read: Option<Vec<Fault>> = text.split(',').map(parse).collect();
            read.unwrap_or_else(|| {
                tracing::error!(
                    "TIDEMILL_FAULT={text} is not NAME:FIRST[xCOUNT][:ACTION]: no fault is injected"
                );
                Vec::new()
            })
        }
    })
}

fn parse(text: &str) -> Option<Fault> {
    let mut parts = text.trim().split(':');
    let name = parts.next().filter(|name| !name.is_empty())?.to_owned();
    let times = parts.next()?;
    let (first, count) = times.split_once('x').unwrap_or((times, "1"));
    let action = match parts.next() {
        None | Some("abort") => Action::Abort,
        Some("stop") => Action::Stop,
        Some("eio") => Action::Fail(5),
        Some("enospc") => Action::Fail(28),
        Some(other) => Action::Delay(Duration::from_millis(other.strip_prefix("delay=")?.parse().ok()?)),
    };
    if parts.next().is_some() {
        return None;
    }
    let (first, count) = (first.parse().ok()?, count.parse().ok()?);
    Some(Fault { name, first, count, action, passed: AtomicU64::new(0) })
}

impl Fault {
    /// Counts a passage; whether the action is due.
    fn due(&self) -> bool {
        let passage = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        passage >= self.first && passage - self.first < self.count
    }
}

/// Aborts, stops or delays the process if a test has set that for this point.
pub fn point(name: &str) {
    if let Err(error) = io(name) {
        tracing::error!("the fault point {name} cannot fail with an error ({error})");
    }
}

/// A point in front of a write: besides what [`point`] does, the write may fail.
pub fn io(name: &str) -> std::io::Result<()> {
    for fault in faults() {
        if fault.name != name || !fault.due() {
            continue;
        }
        match fault.action {
            Action::Abort => std::process::abort(),
            Action::Stop => stop(),
            Action::Delay(time) => std::thread::sleep(time),
            Action::Fail(number) => return Err(std::io::Error::from_raw_os_error(number)),
        }
    }
    Ok(())
}

/// Sends this process SIGSTOP, by the `kill` program: the crate has no unsafe code.
fn stop() {
    let me = std::process::id().to_string();
    let sent = std::process::Command::new("kill").args(["-STOP", &me]).status();
    if !sent.is_ok_and(|status| status.success()) {
        tracing::error!("this process could not be stopped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_its_point_its_passages_and_its_action() {
        let read = |text| parse(text).map(|f| (f.name, f.first, f.count, f.action));
        assert_eq!(read("state-written:3"), Some(("state-written".into(), 3, 1, Action::Abort)));
        assert_eq!(read("jsonl-write:2x4:enospc"), Some(("jsonl-write".into(), 2, 4, Action::Fail(28))));
        assert_eq!(read("a:1:delay=30"), Some(("a".into(), 1, 1, Action::Delay(Duration::from_millis(30)))));
        for wrong in ["", "a", ":1", "a:x", "a:1:later", "a:1:eio:2", "a:1:delay=soon"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_fault_is_due_at_its_passages_only() {
        let fault = parse("a:2x3:eio").unwrap();
        assert_eq!((0..6).map(|_| fault.due()).collect::<Vec<_>>(), [false, true, true, true, false, false]);
    }

    #[test]
    fn errors_are_those_of_the_operating_system() {
        assert_eq!(std::io::Error::from_raw_os_error(28).kind(), std::io::ErrorKind::StorageFull);
    }
}
