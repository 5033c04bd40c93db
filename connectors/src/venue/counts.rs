//! What a feed counts beside its rows: kept in the engine's counts, logged now and then.

use std::collections::BTreeMap;

use tidemill_engine::metrics;

use super::protocol::Output;

/// Notices of one feed that are logged in full; the others are only counted.
const NOTICES_MAX: u64 = 100;

/// A feed's counts, and the log lines made of them.
#[derive(Debug)]
pub(crate) struct Counts {
    node: String,
    counts: metrics::Counts,
    /// Not added yet: frames are too many for a lock each.
    frames: u64,
    notices: u64,
    told: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub fn new(node: &str, counts: metrics::Counts) -> Self {
        Self { node: node.to_owned(), counts, frames: 0, notices: 0, told: BTreeMap::new() }
    }

    pub fn add(&self, name: &'static str, n: u64) {
        self.counts.add(name, n);
    }

    pub fn frame(&mut self) {
        self.frames += 1;
    }

    /// Adds what was counted on the side.
    pub fn settle(&mut self) {
        if self.frames > 0 {
            let frames = std::mem::take(&mut self.frames);
            self.add("frames", frames);
        }
    }

    /// Keeps the highest value that was seen.
    pub fn raise(&self, name: &'static str, value: u64) {
        self.counts.raise(name, value);
    }

    /// Takes what a protocol counted, and logs what it was told.
    pub fn take(&mut self, out: &mut Output) {
        for (name, n) in std::mem::take(&mut out.counts) {
            self.add(name, n);
        }
        for notice in std::mem::take(&mut out.notices) {
            self.add("notices", 1);
            self.notices += 1;
            match self.notices {
                n if n < NOTICES_MAX => tracing::warn!(source = self.node, "{notice}"),
                NOTICES_MAX => {
                    tracing::warn!(source = self.node, "{notice} (further notices are only counted)")
                }
                _ => {}
            }
        }
    }

    /// Logs the counts where they have changed.
    pub fn tell(&mut self) {
        self.settle();
        let counts = self.counts.read();
        if counts != self.told {
            let parts: Vec<String> =
                counts.iter().map(|(name, n)| format!("{} {n}", name.replace('_', " "))).collect();
            tracing::info!(source = self.node, "{}", parts.join(", "));
            self.told = counts;
        }
    }
}
