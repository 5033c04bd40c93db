//! Log lines on standard error; above the live lines where there are some.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;

static LIVE: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Sets what log lines must be written above.
pub fn above(lines: Option<MultiProgress>) {
    *LIVE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = lines;
}

/// Starts logging; `TIDEMILL_LOG` or `RUST_LOG` choose what is logged (default: info).
pub fn start() {
    let text = std::env::var("TIDEMILL_LOG")
        .or_else(|_| std::env::var("RUST_LOG"))
        .unwrap_or_else(|_| "info".into());
    let filter = EnvFilter::try_new(&text).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(|| Above)
        .init();
}

struct Above;

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let live = LIVE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match live.as_ref() {
            Some(lines) => lines.suspend(|| io::stderr().write_all(bytes))?,
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
