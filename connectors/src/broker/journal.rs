//! The journal of a broker's sink: what it is about to ask of the venue, and what came of it.
//!
//! A request stands in the journal, on the disk or in object storage, before it is sent; its outcome after it is known. So whoever starts after
//! a crash knows of each request that it was answered, or that it may have been sent and the venue must be asked. Each request
//! has a key: of an order its name, of a change or a cancel the order's name and the row that asked for it.
//!
//! One process writes. In a local folder it holds a lock beside the journal, which holds on one machine (or wherever the file system's locks
//! do). In object storage each entry is put under a number that must be free ([`segments`](super::segments)), so that machines are kept apart:
//! a newer run fences the older one, and a run that is older than the last one that opened the journal is refused. In both, each sending first
//! looks whether another process has written. Two machines with a journal each are kept apart only by the venue, which takes a client order id once.
//!
//! State: requests that a restart may hand over again, those of the last hour, and the venue's ids of working orders.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidemill_engine::connector::ConnectorError;

use super::lines::{Lines, failed};
use super::place::Place;

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
    place: Place,
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
    pub async fn open(folder: &Place, generation: u64, now: i64) -> Result<Self, ConnectorError> {
        let lock = match folder {
            Place::Local(folder) => lock(folder)?,
            Place::Store(_) => None,
        };
        let place = folder.join(FILE);
        let (lines, entries) = Lines::open_at::<Entry>(&place).await?;
        let mut journal = Self {
            lines,
            place,
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
            return Err(ConnectorError::Fenced(format!(
                "run {newest} of the job has opened `{}`, and this is run {generation}: another one works, or the job's checkpoints were                  removed: then give the sink another `journal`",
                journal.place
            )));
        }
        journal.lines.claim().await?;
        journal.append(now, [Record::Opened { generation }])?;
        journal.lines.publish().await?;
        Ok(journal)
    }

    fn fenced(&self) -> ConnectorError {
        ConnectorError::Fenced(format!("a newer run of the job writes `{}`", self.place))
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

    /// Refuses to go on where another process has written; call it right before sending.
    pub async fn check_ours(&self) -> Result<(), ConnectorError> {
        if self.lines.is_ours().await? { Ok(()) } else { Err(self.fenced()) }
    }

    /// As [`check_ours`](Self::check_ours), where the write that follows does not find it out itself.
    async fn check_writable(&self) -> Result<(), ConnectorError> {
        if self.place.local().is_some() { self.check_ours().await } else { Ok(()) }
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

    /// Writes what is about to be sent; durable when this returns.
    pub async fn intend(&mut self, now: i64, intents: Vec<(Asked, Request)>) -> Result<(), ConnectorError> {
        self.check_writable().await?;
        self.append(now, intents.into_iter().map(|(asked, request)| Record::Intent { asked, request }))?;
        self.lines.sync().await
    }

    /// Writes what came of a request; durable when this returns.
    pub async fn conclude(&mut self, now: i64, asked: Asked, outcome: Outcome) -> Result<(), ConnectorError> {
        self.check_writable().await?;
        self.append(now, [Record::Outcome { asked, outcome }])?;
        self.lines.sync().await
    }

    /// Writes that the venue does not have a request that may have been sent.
    pub async fn not_there(&mut self, now: i64, asked: Asked) -> Result<(), ConnectorError> {
        self.check_writable().await?;
        self.append(now, [Record::NotThere { asked }])?;
        self.lines.publish().await
    }

    /// The number of the last entry.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// A checkpoint that knew the journal up to entry `n` is committed: no row before it comes again. Drops what is not
    /// needed any more, once that is worth it.
    pub async fn committed(&mut self, n: u64, now: i64) -> Result<(), ConnectorError> {
        if self.lines.is_long(PRUNE_BYTES) { self.prune(n, now).await } else { Ok(()) }
    }

    async fn prune(&mut self, n: u64, now: i64) -> Result<(), ConnectorError> {
        self.check_writable().await?;
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
        self.lines.rewrite(&entries).await
    }
}

/// Locks the journal in a local folder; nothing where the file system has no locks.
fn lock(folder: &Path) -> Result<Option<File>, ConnectorError> {
    std::fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
    let path = folder.join("orders.lock");
    let opened = File::options().create(true).write(true).truncate(false).open(&path);
    let file = opened.map_err(|e| failed(&path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(ConnectorError::transient(
            format!("`{}`", folder.join(FILE).display()),
            "another run, or another sink of this job, writes this journal: stop it, or give the sink a `journal` of its own",
        )),
        Err(TryLockError::Error(e)) => {
            tracing::warn!(path = %path.display(), "the journal cannot be locked: {e}");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::segments::tests::places;
    use super::*;

    fn local(folder: &tempfile::TempDir) -> Place {
        Place::Local(folder.path().to_owned())
    }

    fn asked(key: &str, kind: Kind, order: &str) -> Asked {
        Asked { key: key.into(), kind, order: order.into(), symbol: "SPY".into() }
    }

    fn request(path: &str) -> Request {
        Request { method: "POST".into(), path: path.into(), body: Some("{}".into()) }
    }

    #[tokio::test]
    async fn a_local_journal_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let _one = Journal::open(&local(&folder), 1, 0).await.unwrap();
        let two = Journal::open(&local(&folder), 2, 0).await.unwrap_err();
        assert!(matches!(&two, ConnectorError::Transient(m) if m.contains("another run")), "{two}");
    }

    #[tokio::test]
    async fn it_knows_after_any_crash_what_was_sent_and_answered() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder, "orders") {
            knows(&place).await;
        }
    }

    async fn knows(place: &Place) {
        let mut journal = Journal::open(place, 1, 0).await.unwrap();
        let (a, b) = (asked("a", Kind::Order, "a"), asked("b", Kind::Order, "b"));
        journal.intend(1, vec![(a.clone(), request("/a")), (b.clone(), request("/b"))]).await.unwrap();
        journal.conclude(2, a.clone(), Outcome::Accepted(Some("v1".into()))).await.unwrap();
        let change = asked("a-1", Kind::Modify, "a");
        journal.intend(3, vec![(change.clone(), request("/c"))]).await.unwrap();
        journal.conclude(4, change, Outcome::Accepted(Some("v2".into()))).await.unwrap();
        let last = journal.last();
        drop(journal);
        let mut journal = Journal::open(place, 2, 5).await.unwrap();
        assert_eq!(journal.last(), last + 1);
        assert_eq!(journal.know("a"), Knowledge::Over(Outcome::Accepted(Some("v1".into()))));
        assert_eq!(journal.know("b"), Knowledge::Unknown(request("/b")));
        assert_eq!(journal.know("c"), Knowledge::New);
        assert_eq!(journal.venue_id("a"), Some("v2"));
        assert_eq!(journal.unanswered(), [(b.clone(), request("/b"))]);
        // Cut back, it still knows what may come again.
        journal.prune(last, KEEP_NS * 2).await.unwrap();
        assert_eq!(journal.know("a"), Knowledge::New);
        assert_eq!(journal.know("b"), Knowledge::Unknown(request("/b")));
        journal.conclude(6, b, Outcome::Rejected("no".into())).await.unwrap();
        drop(journal);
        let journal = Journal::open(place, 3, 7).await.unwrap();
        assert_eq!(journal.know("b"), Knowledge::Over(Outcome::Rejected("no".into())));
        assert!(journal.unanswered().is_empty());
    }

    #[tokio::test]
    async fn a_run_that_was_replaced_sends_nothing_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut old = Journal::open(&local(&folder), 1, 0).await.unwrap();
        // Where locks do not hold, as on some network file systems.
        let (mut other, _) = Lines::open::<Entry>(&folder.path().join(FILE)).unwrap();
        other.append(&[Entry { n: 9, at: 0, record: Record::Opened { generation: 2 } }]).unwrap();
        let intents = vec![(asked("a", Kind::Order, "a"), request("/a"))];
        assert!(matches!(old.intend(1, intents).await, Err(ConnectorError::Fenced(_))));
        assert!(matches!(old.check_ours().await, Err(ConnectorError::Fenced(_))));
    }

    /// Two machines, one journal in object storage.
    #[tokio::test]
    async fn of_two_machines_the_older_run_sends_nothing_and_cannot_come_back() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder, "orders").into_iter().skip(1) {
            let mut old = Journal::open(&place, 1, 0).await.unwrap();
            let a = asked("a", Kind::Order, "a");
            old.intend(1, vec![(a.clone(), request("/a"))]).await.unwrap();
            let mut new = Journal::open(&place, 2, 2).await.unwrap();
            assert_eq!(new.unanswered(), [(a.clone(), request("/a"))], "{place}");
            assert!(matches!(old.check_ours().await, Err(ConnectorError::Fenced(_))), "{place}");
            let b = asked("b", Kind::Order, "b");
            let intent = old.intend(3, vec![(b, request("/b"))]).await;
            assert!(matches!(intent, Err(ConnectorError::Fenced(_))), "{place}");
            drop(old);
            let back = Journal::open(&place, 1, 4).await.unwrap_err();
            assert!(matches!(&back, ConnectorError::Fenced(m) if m.contains("run 2")), "{place}: {back}");
            new.conclude(5, a, Outcome::Accepted(None)).await.unwrap();
            new.check_ours().await.unwrap();
            assert_eq!(new.know("b"), Knowledge::New, "{place}");
        }
    }
}
