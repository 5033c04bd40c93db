//! A dataset's log: one small JSON file per commit, numbered, created only if absent.
//!
//! `<dataset>/_tidemill/<version>.json`, versions from 1 without a hole. Whoever creates a version has
//! committed it; there is no other lock. Every 32nd commit also leaves `<version>.checkpoint.json`, the
//! state up to there, so that opening a dataset reads a few files however long its history.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::layout::Layout;

pub(crate) mod store;

/// One commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Its number.
    pub version: u64,
    /// Tells it from any other attempt at the same number.
    pub id: String,
    /// When it was made, milliseconds since the epoch, by the committer's clock.
    pub at_ms: i64,
    /// What made it: `backfill`, `compact`, `expire`, …
    pub by: String,
    /// What it changed, in order.
    pub actions: Vec<Action>,
}

/// One change of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The dataset has this layout from now on.
    Layout(Layout),
    /// A file counts from now on.
    Add(Added),
    /// A file, the archive's own or foreign, does not count any more. It is still there, for readers
    /// that have begun; `expire` deletes it later.
    Remove {
        /// Its path, relative to the dataset.
        path: String,
    },
    /// A removed file has been deleted.
    Forget {
        /// Its path, relative to the dataset.
        path: String,
    },
    /// A range has been filled from a source.
    Cover(Covered),
    /// Something in a range is missing, and it is known.
    Miss(Gap),
    /// What the log says of ranges and gaps before this time (ns) is void: the rows have been dropped.
    Uncover {
        /// The end of what is void.
        to: i64,
    },
}

/// A file of the archive's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// Its path, relative to the dataset.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// First and last event time, nanoseconds.
    pub ts: (i64, i64),
    /// Where its rows come from.
    pub origin: Origin,
}

/// Where a file's rows come from. Files are compacted only with files of the same writer, so that a
/// writer can still tell its own rows from others'.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A `parquet` sink.
    Sink {
        /// `JOB.SINK`, as its files' names have it.
        writer: String,
        /// The largest checkpoint number in the names of the files.
        after: u64,
        /// The largest generation in the names of the files.
        generation: u64,
    },
    /// Ranges filled from a source.
    Range {
        /// The source.
        source: String,
        /// The keys whose rows are in the file.
        keys: BTreeSet<RangeKey>,
    },
    /// Some other tool.
    Other,
}

impl Origin {
    /// Whose the file is, for grouping: `(kind, name)`.
    pub fn writer(&self) -> (&'static str, &str) {
        match self {
            Self::Sink { writer, .. } => ("sink", writer),
            Self::Range { source, .. } => ("range", source),
            Self::Other => ("other", ""),
        }
    }

    /// The origin of rows of both; `None` where they have different writers.
    pub(crate) fn merged(&self, other: &Origin) -> Option<Origin> {
        Some(match (self, other) {
            (Self::Sink { writer, after, generation }, Self::Sink { writer: w, after: a, generation: g })
                if w == writer =>
            {
                Self::Sink { writer: w.clone(), after: *after.max(a), generation: *generation.max(g) }
            }
            (Self::Range { source, keys }, Self::Range { source: s, keys: k }) if s == source => {
                Self::Range { source: s.clone(), keys: keys.union(k).cloned().collect() }
            }
            (Self::Other, Self::Other) => Self::Other,
            _ => return None,
        })
    }
}

/// Whose rows a range is of: column values that all its rows have, such as `symbol = BTCUSDT`.
/// Empty: all rows of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RangeKey(pub BTreeMap<String, String>);

impl RangeKey {
    /// All rows of the source.
    pub fn all() -> Self {
        Self::default()
    }

    /// Narrows it to rows with this value in this column.
    pub fn with(mut self, column: &str, value: &str) -> Self {
        self.0.insert(column.to_owned(), value.to_owned());
        self
    }
}

impl std::fmt::Display for RangeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("*");
        }
        for (i, (column, value)) in self.0.iter().enumerate() {
            write!(f, "{}{column}={value}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A range that has been filled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Covered {
    /// From where: `binance.klines`, `csv:prices.csv`, …
    pub source: String,
    /// Whose rows.
    pub key: RangeKey,
    /// Its first event time, nanoseconds.
    pub from: i64,
    /// Its end, exclusive.
    pub to: i64,
    /// Whether everything the source has for it is there.
    pub complete: bool,
}

/// Something missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Missing from where.
    pub source: String,
    /// Whose rows.
    pub key: RangeKey,
    /// Last event time before it, nanoseconds (or the first that is missing).
    pub from: i64,
    /// First event time after it, nanoseconds.
    pub to: i64,
    /// Why it is thought missing: `trade_id 17 to 29 are not there`.
    pub reason: String,
}

/// What the log says up to some version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The last commit that is in it; 0: none.
    pub version: u64,
    /// The layout, once the dataset has been created.
    pub layout: Option<Layout>,
    /// The archive's own files that count, by path.
    pub files: BTreeMap<String, Added>,
    /// Removed files not yet deleted, and when they were removed (ms since the epoch).
    pub removed: BTreeMap<String, i64>,
    /// Ranges, by source, key and time.
    pub ranges: Vec<Covered>,
    /// Known gaps, in the same order.
    pub gaps: Vec<Gap>,
}

impl State {
    /// Takes a commit in; it must be the next.
    pub fn apply(&mut self, commit: &Commit) {
        self.version = commit.version;
        for action in &commit.actions {
            match action {
                Action::Layout(layout) => self.layout = Some(layout.clone()),
                Action::Add(added) => {
                    self.files.insert(added.path.clone(), added.clone());
                }
                Action::Remove { path } => {
                    self.files.remove(path);
                    self.removed.insert(path.clone(), commit.at_ms);
                }
                Action::Forget { path } => {
                    self.removed.remove(path);
                }
                Action::Cover(covered) => self.cover(covered),
                Action::Miss(gap) => self.gaps.push(gap.clone()),
                Action::Uncover { to } => {
                    self.gaps.retain(|g| g.to > *to);
                    self.ranges.retain(|r| r.to > *to);
                    self.ranges.iter_mut().for_each(|r| r.from = r.from.max(*to));
                }
            }
        }
        self.ranges.sort_by(|a, b| (&a.source, &a.key, a.from).cmp(&(&b.source, &b.key, b.from)));
        self.gaps.sort_by(|a, b| (&a.source, &a.key, a.from, a.to).cmp(&(&b.source, &b.key, b.from, b.to)));
    }

    /// A range is as its last filling says: what older fillings said of it is forgotten, gaps
    /// included. Neighbours that touch become one.
    fn cover(&mut self, new: &Covered) {
        let same = |source: &str, key: &RangeKey| source == new.source && *key == new.key;
        self.gaps.retain(|g| !(same(&g.source, &g.key) && g.from >= new.from && g.to <= new.to));
        let mut new = new.clone();
        let mut rest = Vec::with_capacity(self.ranges.len() + 2);
        for old in std::mem::take(&mut self.ranges) {
            let touches = old.from <= new.to && old.to >= new.from;
            if old.source != new.source || old.key != new.key || !touches {
                rest.push(old);
            } else if old.complete == new.complete {
                new.from = new.from.min(old.from);
                new.to = new.to.max(old.to);
            } else {
                if old.from < new.from {
                    rest.push(Covered { to: new.from, ..old.clone() });
                }
                if old.to > new.to {
                    rest.push(Covered { from: new.to, ..old });
                }
            }
        }
        rest.push(new);
        self.ranges = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(from: i64, to: i64, complete: bool) -> Covered {
        Covered { source: "s".into(), key: RangeKey::all(), from, to, complete }
    }

    fn after(ranges: &[(i64, i64, bool)]) -> Vec<(i64, i64, bool)> {
        let mut state = State::default();
        let actions = ranges.iter().map(|(f, t, c)| Action::Cover(covered(*f, *t, *c))).collect();
        state.apply(&Commit { version: 1, id: String::new(), at_ms: 0, by: String::new(), actions });
        state.ranges.iter().map(|r| (r.from, r.to, r.complete)).collect()
    }

    #[test]
    fn ranges_join_and_the_last_filling_counts() {
        assert_eq!(after(&[(0, 10, true), (10, 20, true)]), [(0, 20, true)]);
        assert_eq!(after(&[(0, 10, true), (11, 20, true)]), [(0, 10, true), (11, 20, true)]);
        assert_eq!(after(&[(0, 10, true), (3, 5, false)]), [(0, 3, true), (3, 5, false), (5, 10, true)]);
        assert_eq!(after(&[(0, 10, true), (3, 5, false), (2, 6, true)]), [(0, 10, true)]);
        assert_eq!(after(&[(5, 10, false), (0, 7, true)]), [(0, 7, true), (7, 10, false)]);
    }

    /// By painting every instant: whatever the order of fillings, each instant is as its last one says.
    #[test]
    fn ranges_are_as_painted() {
        let mut seed = 7u64;
        let mut next = |n: i64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 33) as i64) % n
        };
        for _ in 0..300 {
            let mut painted = [None; 40];
            let mut fillings = Vec::new();
            for _ in 0..next(8) + 1 {
                let (from, len, complete) = (next(30), next(9) + 1, next(2) == 0);
                painted[from as usize..(from + len) as usize].fill(Some(complete));
                fillings.push((from, from + len, complete));
            }
            let mut found = [None; 40];
            for (from, to, complete) in after(&fillings) {
                assert!(found[from as usize..to as usize].iter().all(Option::is_none), "{fillings:?}");
                found[from as usize..to as usize].fill(Some(complete));
            }
            assert_eq!(found, painted, "{fillings:?}");
        }
    }

    #[test]
    fn filling_again_forgets_the_gaps_within() {
        let gap = |from, to| Gap { source: "s".into(), key: RangeKey::all(), from, to, reason: "x".into() };
        let mut state = State::default();
        let commit =
            |version, actions| Commit { version, id: String::new(), at_ms: 5, by: String::new(), actions };
        state.apply(&commit(1, vec![Action::Miss(gap(1, 2)), Action::Miss(gap(8, 12))]));
        state.apply(&commit(2, vec![Action::Cover(covered(0, 10, true))]));
        assert_eq!(state.gaps, [gap(8, 12)]);
    }
}
