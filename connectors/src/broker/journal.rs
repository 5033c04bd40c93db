//! The journal of a broker's sink: what it is about to ask of the venue, and what came of it.
//!
//! A request stands in the journal, on the disk, before it is sent; its outcome after it is known. So whoever starts after
//! a crash knows of each request that it was answered, or that it may have been sent and the venue must be asked. Each request
//! has a key: of an order its name, of a change or a cancel the order's name and the row that asked for it.
//!
//! One process writes: it holds a lock beside the journal, and looks before each sending whether somebody else has written. That holds on
//! one machine (or wherever the file system's locks do); two machines with a journal each are kept apart only by the venue, which takes
//! a client order id once.
//!
//! State: requests that a restart may hand over again, those of the last hour, and the venue's ids of working orders.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidemill_engine::connector::ConnectorError;

use super::lines::{Lines, failed};

/// Bytes from which on the journal is cut back at a commit.
const PRUNE_BYTES: u64 = 4 << 20;
/// Answered requests are kept for so long, for readers that are behind.
const KEEP_NS: i64 = 3_600_000_000_000;
/// The file in its folder.
pub const FILE: &str = "orders.journal";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A new order.
    Order,
    /// A change of an order.
    Modify,
    /// The end of an order.
    Cancel,
}

/// A request as it goes over the wire, without what proves who sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `POST`, `PATCH`, `DELETE`, ….
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Body.
    pub body: Option<String>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The venue has it; its id of the order, which a change may have given another.
    Accepted(Option<String>),
    /// The venue refused it, or it was refused before it was sent: why.
    Rejected(String),
}

/// Who asked for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What tells requests apart.
    pub key: String,
    /// What is asked for.
    pub kind: Kind,
    /// The order's name.
    pub order: String,
    /// Of what.
    pub symbol: String,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Record {
    /// A run of the job has opened the journal.
    Opened {
        /// The run's generation.
        generation: u64,
    },
    /// This is about to be sent.
    Intent {
        /// Who asked for what.
        asked: Asked,
        /// The wire's words.
        request: Request,
    },
    /// The venue was asked after a restart, and does not have it: it is asked again, and sent, when its row comes again.
    NotThere {
        /// Who asked for what.
        asked: Asked,
    },
    /// This is what came of it.
    Outcome {
        /// Who asked for what.
        asked: Asked,
        /// What came of it.
        outcome: Outcome,
    },
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number; the numbers never begin anew.
    pub n: u64,
    /// When, UTC nanoseconds of this machine.
    pub at: i64,
    /// What.
    pub record: Record,
}

/// What is known of a request.
#[derive(Clone, Debug)]
struct Known {
    asked: Asked,
    /// Number and entry of the intent.
    intent: Option<Entry>,
    outcome: Option<Entry>,
}

/// The journal, open and locked.
#[derive(Debug)]
pub struct Journal {
    lines: Lines,
    lock: Option<File>,
    path: PathBuf,
    generation: u64,
    next: u64,
    known: BTreeMap<String, Known>,
    /// The venue's present ids of orders, by name, and the number of the entry that gave it.
    venue_ids: BTreeMap<String, (u64, String)>,
}

/// What the journal knows of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Nothing: it was never sent.
    New,
    /// It may have been sent; this is what.
    Unknown(Request),
    /// It was answered.
    Over(Outcome),
}

impl Journal {
    /// Opens the journal in `folder` for a run of `generation`; `now` is written into it.
    pub fn open(folder: &Path, generation: u64, now: i64) -> Result<Self, ConnectorError> {
        std::fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
        let path = folder.join(FILE);
        let lock = folder.join("orders.lock");
        let fail = |e: std::io::Error| failed(&lock, &e);
        let file = File::options().create(true).write(true).truncate(false).open(&lock).map_err(fail)?;
        let lock = match file.try_lock() {
            Ok(()) => Some(file),
            Err(TryLockError::WouldBlock) => {
                return Err(ConnectorError::transient(
                    format!("`{}`", path.display()),
                    "another run, or another sink of this job, writes this journal: stop it, or give the sink a `journal` of its own",
                ));
            }
            Err(TryLockError::Error(e)) => {
                tracing::warn!(path = %path.display(), "the journal cannot be locked: {e}");
                None
            }
        };
        let (lines, entries) = Lines::open::<Entry>(&path)?;
        let mut journal = Self {
            lines,
            path,
            generation,
            next: 1,
            known: BTreeMap::new(),
            venue_ids: BTreeMap::new(),
            lock,
        };
        let mut newest = 0;
        for entry in entries {
            if let Record::Opened { generation } = entry.record {
                newest = newest.max(generation);
            }
            journal.learn(entry);
        }
        if journal.lock.is_none() && newest > generation {
            return Err(journal.fenced());
        }
        journal.append(now, [Record::Opened { generation }])?;
        Ok(journal)
    }

    fn fenced(&self) -> ConnectorError {
        ConnectorError::Fenced(format!("a newer run of the job writes `{}`", self.path.display()))
    }

    fn learn(&mut self, entry: Entry) {
        self.next = self.next.max(entry.n + 1);
        let (Record::Intent { asked, .. } | Record::Outcome { asked, .. }) = &entry.record else { return };
        if let Record::Outcome { asked, outcome: Outcome::Accepted(Some(id)) } = &entry.record {
            let newest = self.venue_ids.get(&asked.order).is_none_or(|(n, _)| *n < entry.n);
            if newest {
                self.venue_ids.insert(asked.order.clone(), (entry.n, id.clone()));
            }
        }
        let known = self.known.entry(asked.key.clone()).or_insert_with(|| Known {
            asked: asked.clone(),
            intent: None,
            outcome: None,
        });
        match &entry.record {
            Record::Intent { .. } => known.intent = Some(entry),
            _ => known.outcome = Some(entry),
        }
    }

    fn append(&mut self, now: i64, records: impl IntoIterator<Item = Record>) -> Result<(), ConnectorError> {
        let entries: Vec<Entry> =
            records.into_iter().zip(self.next..).map(|(record, n)| Entry { n, at: now, record }).collect();
        self.lines.append(&entries)?;
        entries.into_iter().for_each(|entry| self.learn(entry));
        Ok(())
    }

    /// Refuses to go on where somebody else has written; call it right before sending.
    pub fn check_ours(&self) -> Result<(), ConnectorError> {
        if self.lines.is_ours() { Ok(()) } else { Err(self.fenced()) }
    }

    /// What is known of a request.
    pub fn know(&self, key: &str) -> Knowledge {
        match self.known.get(key) {
            Some(Known { outcome: Some(Entry { record: Record::Outcome { outcome, .. }, .. }), .. }) => {
                Knowledge::Over(outcome.clone())
            }
            Some(Known { intent: Some(Entry { record: Record::Intent { request, .. }, .. }), .. }) => {
                Knowledge::Unknown(request.clone())
            }
            _ => Knowledge::New,
        }
    }

    /// Requests that may have been sent and were not answered, oldest first.
    pub fn unanswered(&self) -> Vec<(Asked, Request)> {
        let open = self.known.values().filter(|known| known.outcome.is_none());
        let mut open: Vec<(u64, Asked, Request)> = open
            .filter_map(|known| match &known.intent {
                Some(Entry { n, record: Record::Intent { request, .. }, .. }) => {
                    Some((*n, known.asked.clone(), request.clone()))
                }
                _ => None,
            })
            .collect();
        open.sort_by_key(|(n, ..)| *n);
        open.into_iter().map(|(_, asked, request)| (asked, request)).collect()
    }

    /// The venue's present id of an order.
    pub fn venue_id(&self, order: &str) -> Option<&str> {
        self.venue_ids.get(order).map(|(_, id)| id.as_str())
    }

    /// Writes what is about to be sent; on the disk when this returns.
    pub async fn intend(&mut self, now: i64, intents: Vec<(Asked, Request)>) -> Result<(), ConnectorError> {
        self.check_ours()?;
        self.append(now, intents.into_iter().map(|(asked, request)| Record::Intent { asked, request }))?;
        self.lines.sync().await
    }

    /// Writes what came of a request; on the disk when this returns.
    pub async fn conclude(&mut self, now: i64, asked: Asked, outcome: Outcome) -> Result<(), ConnectorError> {
        self.check_ours()?;
        self.append(now, [Record::Outcome { asked, outcome }])?;
        self.lines.sync().await
    }

    /// Writes that the venue does not have a request that may have been sent.
    pub fn not_there(&mut self, now: i64, asked: Asked) -> Result<(), ConnectorError> {
        self.check_ours()?;
        self.append(now, [Record::NotThere { asked }])
    }

    /// The number of the last entry.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// A checkpoint that knew the journal up to entry `n` is committed: no row before it comes again. Drops what nobody asks
    /// for any more, once that is worth it.
    pub fn committed(&mut self, n: u64, now: i64) -> Result<(), ConnectorError> {
        if self.lines.bytes() >= PRUNE_BYTES { self.prune(n, now) } else { Ok(()) }
    }

    fn prune(&mut self, n: u64, now: i64) -> Result<(), ConnectorError> {
        self.check_ours()?;
        let over = |known: &Known| {
            let last = known.outcome.as_ref().or(known.intent.as_ref());
            known.outcome.is_some() && last.is_some_and(|entry| entry.n <= n && entry.at < now - KEEP_NS)
        };
        self.known.retain(|_, known| !over(known));
        // A working order can always be found at the venue by its name: its id here only saves asking.
        let known = &self.known;
        self.venue_ids.retain(|order, (id_n, _)| *id_n > n || known.contains_key(order));
        let mut entries: Vec<Entry> = self
            .known
            .values()
            .flat_map(|known| [&known.intent, &known.outcome])
            .flatten()
            .cloned()
            .collect();
        entries.sort_by_key(|entry| entry.n);
        let opened = Record::Opened { generation: self.generation };
        entries.push(Entry { n: self.next, at: now, record: opened });
        self.next += 1;
        self.lines.rewrite(&entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(key: &str, kind: Kind, order: &str) -> Asked {
        Asked { key: key.into(), kind, order: order.into(), symbol: "SPY".into() }
    }

    fn request(path: &str) -> Request {
        Request { method: "POST".into(), path: path.into(), body: Some("{}".into()) }
    }

    #[tokio::test]
    async fn it_knows_after_any_crash_what_was_sent_and_answered() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), 1, 0).unwrap();
        let two = Journal::open(folder.path(), 2, 0).unwrap_err();
        assert!(matches!(&two, ConnectorError::Transient(m) if m.contains("another run")), "{two}");
        let (a, b) = (asked("a", Kind::Order, "a"), asked("b", Kind::Order, "b"));
        journal.intend(1, vec![(a.clone(), request("/a")), (b.clone(), request("/b"))]).await.unwrap();
        journal.conclude(2, a.clone(), Outcome::Accepted(Some("v1".into()))).await.unwrap();
        let change = asked("a-1", Kind::Modify, "a");
        journal.intend(3, vec![(change.clone(), request("/c"))]).await.unwrap();
        journal.conclude(4, change, Outcome::Accepted(Some("v2".into()))).await.unwrap();
        let last = journal.last();
        drop(journal);
        let mut journal = Journal::open(folder.path(), 2, 5).unwrap();
        assert_eq!(journal.last(), last + 1);
        assert_eq!(journal.know("a"), Knowledge::Over(Outcome::Accepted(Some("v1".into()))));
        assert_eq!(journal.know("b"), Knowledge::Unknown(request("/b")));
        assert_eq!(journal.know("c"), Knowledge::New);
        assert_eq!(journal.venue_id("a"), Some("v2"));
        assert_eq!(journal.unanswered(), [(b.clone(), request("/b"))]);
        // Cut back, it still knows what may come again.
        journal.prune(last, KEEP_NS * 2).unwrap();
        assert_eq!(journal.know("a"), Knowledge::New);
        assert_eq!(journal.know("b"), Knowledge::Unknown(request("/b")));
        journal.conclude(6, b, Outcome::Rejected("no".into())).await.unwrap();
        drop(journal);
        let journal = Journal::open(folder.path(), 3, 7).unwrap();
        assert_eq!(journal.know("b"), Knowledge::Over(Outcome::Rejected("no".into())));
        assert!(journal.unanswered().is_empty());
    }

    #[tokio::test]
    async fn a_run_that_was_replaced_sends_nothing_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut old = Journal::open(folder.path(), 1, 0).unwrap();
        // Where locks do not hold, as on some network file systems.
        let (mut other, _) = Lines::open::<Entry>(&folder.path().join(FILE)).unwrap();
        other.append(&[Entry { n: 9, at: 0, record: Record::Opened { generation: 2 } }]).unwrap();
        let intents = vec![(asked("a", Kind::Order, "a"), request("/a"))];
        assert!(matches!(old.intend(1, intents).await, Err(ConnectorError::Fenced(_))));
        assert!(matches!(old.check_ours(), Err(ConnectorError::Fenced(_))));
    }
}
