//! Places where tests kill the process: between two steps whose order matters.
//!
//! `TIDEMILL_FAULT=state-written:3` aborts at the third passage of that point. Unset, a passage
//! costs one look at a static.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Fault {
    name: String,
    nth: u64,
    passed: AtomicU64,
}

static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

fn read() -> Option<Fault> {
    let text = std::env::var("TIDEMILL_FAULT").ok()?;
    let (name, nth) = text.split_once(':')?;
    Some(Fault { name: name.to_owned(), nth: nth.parse().ok()?, passed: AtomicU64::new(0) })
}

/// Aborts the process if a test has asked for it here.
pub fn point(name: &str) {
    if let Some(fault) = FAULT.get_or_init(read)
        && fault.name == name
        && fault.passed.fetch_add(1, Ordering::Relaxed) + 1 == fault.nth
    {
        std::process::abort();
    }
}
