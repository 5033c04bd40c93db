//! The file of commands, and the log of what was read of it.
//!
//! The log is the truth: a line of the file is a command once it stands in the log, and stays one whatever becomes of the file.
//! The file goes on behind what was read as long as it still begins with it; else it is another file, all of which is new.
//!
//! In object storage the file is a folder of [objects](super::inbox), and the log a folder beside it: the log's writer fences earlier ones.

use std::fs::Metadata;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::storage::Location;

use super::inbox::{Inbox, Object};
use crate::broker::lines::{Lines, Tail, failed};
use crate::broker::place::Place;

/// A file of commands has no more bytes than this.
pub(super) const BYTES_MAX: u64 = 1 << 20;
/// A last line without an end is whole when nothing was written behind it for this long.
const SETTLED: Duration = Duration::from_millis(100);

/// A command that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its number in the log, from 1.
    pub n: u64,
    /// When it was read, UTC nanoseconds; never going back.
    pub ts: i64,
    /// Its first word, in lower case.
    pub command: String,
    /// What follows.
    pub reason: Option<String>,
    /// Bytes of the file up to the end of its line.
    bytes: u64,
    /// Their checksum.
    crc: u32,
    /// The object that it was read from, in object storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Object>,
}

impl Command {
    /// The line that it was, its words one space apart.
    pub fn line(&self) -> String {
        let reason = self.reason.iter().flat_map(|reason| reason.split_whitespace());
        std::iter::once(self.command.as_str()).chain(reason).collect::<Vec<_>>().join(" ")
    }
}

/// The file or folder, watched.
pub struct Switch {
    kept: Kept,
    clock: Clock,
    lines: Lines,
    commands: Vec<Command>,
    next: u64,
}

enum Kept {
    File(Watched),
    Store(Inbox),
}

/// A file.
struct Watched {
    file: PathBuf,
    /// What the file was like at the last look, and since when.
    seen: Option<(u64, SystemTime, Stopwatch)>,
    /// Nothing new can be in the file as it was seen.
    settled: bool,
}

/// The log of the commands at `place`.
pub fn log_of(place: &Place) -> Place {
    match place {
        Place::Local(file) => {
            let mut name = file.as_os_str().to_owned();
            name.push(".log");
            Place::Local(name.into())
        }
        Place::Store(_) => place.join("log"),
    }
}

/// The folder of commands of a control in object storage.
pub fn commands_in(location: &Location) -> Location {
    let path = location.path.clone().join("commands");
    Location {
        path,
        display: format!("{}/commands", location.display.trim_end_matches('/')),
        ..location.clone()
    }
}

/// Commands of a log, as they come.
pub struct Watch(Tail);

impl Watch {
    /// Of the log of the commands at `place`.
    pub fn new(place: &Place) -> Self {
        Self(Tail::new(&log_of(place)))
    }

    /// Commands that were read since the last call.
    pub async fn poll(&mut self) -> Result<Vec<Command>, ConnectorError> {
        self.0.poll().await
    }
}

impl Switch {
    /// Opens or makes the log of the commands at `place`. Commands up to `known` are known to the job: should the log have been lost, numbers go on from there.
    pub async fn open(place: &Place, clock: Clock, known: u64) -> Result<Self, ConnectorError> {
        let (mut lines, commands) = Lines::open_at::<Command>(&log_of(place)).await?;
        lines.claim().await?;
        let last = commands.last().map_or(0, |c| c.n);
        if last < known {
            tracing::warn!(%place, "the log of commands was lost: all commands that are there are taken as new");
        }
        let kept = match place {
            Place::Local(file) => Kept::File(Watched { file: file.clone(), seen: None, settled: false }),
            Place::Store(location) => Kept::Store(Inbox::new(commands_in(location), &commands)),
        };
        let mut switch = Self { kept, clock, lines, commands, next: last.max(known) + 1 };
        switch.shorten().await?;
        Ok(switch)
    }

    /// Puts a log of many segments into one.
    async fn shorten(&mut self) -> Result<(), ConnectorError> {
        if self.lines.is_long(u64::MAX) { self.lines.rewrite(&self.commands).await } else { Ok(()) }
    }

    /// Whether this may be the log whose command `n` was read at `ts` (as far as that is known), the last one that a job has taken:
    /// it has that command, or nothing at all, as when it was lost.
    pub fn is_log_of(&self, n: u64, ts: Option<i64>) -> bool {
        if n == 0 || self.commands.is_empty() {
            return true;
        }
        self.commands.iter().any(|c| c.n == n && ts.is_none_or(|ts| c.ts == ts))
    }

    /// Commands of the log behind number `n`.
    pub fn after(&self, n: u64) -> Vec<Command> {
        self.commands.iter().filter(|c| c.n > n).cloned().collect()
    }

    /// Commands that have come; in the log, durable, when this returns. None is older than `ts`.
    pub async fn look(&mut self, ts: i64) -> Result<Vec<Command>, ConnectorError> {
        let last = self.commands.last();
        let ts = last.map_or(ts, |last| last.ts.max(ts));
        let (mut news, objects) = match &mut self.kept {
            Kept::File(watched) => (watched.look(last, &self.clock)?, Vec::new()),
            Kept::Store(inbox) => {
                let found = inbox.look(&self.clock).await?;
                let commands = found.iter().flat_map(|(object, text)| {
                    text.lines().filter_map(|line| {
                        Some(Command { object: Some(object.clone()), ..Command::parse(line)? })
                    })
                });
                (commands.collect(), found.iter().map(|(object, _)| object.clone()).collect())
            }
        };
        if !news.is_empty() {
            let ts = ts.max(self.clock.now_ns());
            for (command, n) in news.iter_mut().zip(self.next..) {
                (command.n, command.ts) = (n, ts);
            }
            self.lines.append(&news)?;
            self.lines.sync().await?;
            self.next += news.len() as u64;
            self.commands.extend_from_slice(&news);
            self.shorten().await?;
        }
        if let Kept::Store(inbox) = &mut self.kept {
            inbox.logged(objects).await;
        }
        Ok(news)
    }
}

impl Command {
    /// The command of a line, not numbered yet; nothing where it has none.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let line = line.trim().trim_start_matches('\u{feff}');
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (command, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let reason = Some(reason.trim().to_owned()).filter(|reason| !reason.is_empty());
        Some(Self { n: 0, ts: 0, command: command.to_lowercase(), reason, bytes: 0, crc: 0, object: None })
    }
}

impl Watched {
    /// Commands that have come into the file behind `last`.
    fn look(&mut self, last: Option<&Command>, clock: &Clock) -> Result<Vec<Command>, ConnectorError> {
        let Ok(found) = std::fs::metadata(&self.file) else {
            (self.seen, self.settled) = (None, false);
            return Ok(Vec::new());
        };
        let whole = self.is_settled(&found, clock);
        if self.settled {
            return Ok(Vec::new());
        }
        if found.len() > BYTES_MAX {
            let file = self.file.display();
            return Err(ConnectorError::Fatal(format!(
                "`{file}` has {} bytes, a file of commands at most {BYTES_MAX}: empty it",
                found.len()
            )));
        }
        let text = std::fs::read(&self.file).map_err(|e| failed(&self.file, &e))?;
        self.settled = whole;
        Ok(news(last, &text, whole))
    }

    /// Whether the file has long been as it is now.
    fn is_settled(&mut self, found: &Metadata, clock: &Clock) -> bool {
        let changed = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        match &self.seen {
            Some((len, at, since)) if (*len, *at) == (found.len(), changed) => since.elapsed() >= SETTLED,
            _ => {
                self.seen = Some((found.len(), changed, clock.start()));
                self.settled = false;
                false
            }
        }
    }
}

/// Commands behind the `last` one of the log; that of the last line, should it have no end, only where the file is `whole`.
fn news(last: Option<&Command>, text: &[u8], whole: bool) -> Vec<Command> {
    let known = last.and_then(|last| {
        let begin = text.get(..usize::try_from(last.bytes).ok()?)?;
        (crc32fast::hash(begin) == last.crc).then_some(begin.len())
    });
    let mut at = known.unwrap_or(0);
    let mut news = Vec::new();
    while at < text.len() {
        let end = match text[at..].iter().position(|b| *b == b'\n') {
            Some(end) => at + end + 1,
            None if whole => text.len(),
            None => break,
        };
        let command = Command::parse(&String::from_utf8_lossy(&text[at..end]));
        at = end;
        news.extend(command.map(|c| Command { bytes: end as u64, crc: crc32fast::hash(&text[..end]), ..c }));
    }
    news
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures::TryStreamExt;
    use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

    use super::super::inbox;
    use super::*;
    use crate::broker::segments::tests::places;

    /// What `look` gives, until it has given `n` commands.
    async fn read(switch: &mut Switch, n: usize) -> Vec<(u64, String, Option<String>)> {
        let mut all = Vec::new();
        while all.len() < n {
            tokio::time::sleep(Duration::from_millis(1)).await;
            all.extend(switch.look(0).await.unwrap());
        }
        all.into_iter().map(|c| (c.n, c.command, c.reason)).collect()
    }

    fn command(n: u64, command: &str, reason: Option<&str>) -> (u64, String, Option<String>) {
        (n, command.to_owned(), reason.map(str::to_owned))
    }

    fn append(path: &Path, text: &str) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn lines_are_commands_once_however_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desk/switch");
        let mut switch = Switch::open(&Place::Local(path.clone()), Clock::System, 0).await.unwrap();
        assert_eq!(switch.look(0).await.unwrap(), []);
        append(&path, "# the desk's switch\n\nhalt\n");
        assert_eq!(read(&mut switch, 1).await, [command(1, "halt", None)]);
        // Without a line end; and its end afterwards is no other command.
        append(&path, "RESUME  all is well ");
        assert_eq!(read(&mut switch, 1).await, [command(2, "resume", Some("all is well"))]);
        append(&path, "\r\nhalt a\nreduce\tb\n");
        assert_eq!(
            read(&mut switch, 2).await,
            [command(3, "halt", Some("a")), command(4, "reduce", Some("b"))]
        );
        // Replaced, removed, written again.
        std::fs::write(&path, "flatten").unwrap();
        assert_eq!(read(&mut switch, 1).await, [command(5, "flatten", None)]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(switch.look(0).await.unwrap(), []);
        std::fs::write(&path, "halt\n").unwrap();
        assert_eq!(read(&mut switch, 1).await, [command(6, "halt", None)]);

        // Whoever comes next has read what this one has, at the same times, and goes on behind it.
        let before = switch.after(0);
        drop(switch);
        append(&path, "resume\n");
        let mut switch = Switch::open(&Place::Local(path.clone()), Clock::System, 4).await.unwrap();
        assert_eq!((switch.after(0), switch.after(5).len()), (before, 1));
        assert_eq!(read(&mut switch, 1).await, [command(7, "resume", None)]);
        let times: Vec<i64> = switch.after(0).iter().map(|c| c.ts).collect();
        assert!(times.is_sorted());

        // The log is lost: what stands in the file counts.
        drop(switch);
        std::fs::remove_file(log_of(&Place::Local(path.clone())).local().unwrap()).unwrap();
        let mut switch = Switch::open(&Place::Local(path.clone()), Clock::System, 7).await.unwrap();
        assert_eq!(read(&mut switch, 2).await, [command(8, "halt", None), command(9, "resume", None)]);
    }

    #[tokio::test]
    async fn a_file_that_is_no_switch_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("switch");
        std::fs::write(&path, vec![b'x'; BYTES_MAX as usize + 1]).unwrap();
        let mut switch = Switch::open(&Place::Local(path.clone()), Clock::System, 0).await.unwrap();
        let error = switch.look(0).await.unwrap_err().to_string();
        assert!(error.contains("1048577 bytes") && error.contains("empty it"), "{error}");
    }

    #[tokio::test]
    async fn objects_are_commands_once_and_those_of_the_command_line_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder, "switch").into_iter().skip(1) {
            let Place::Store(location) = &place else { continue };
            let commands = commands_in(location);
            let there = async || {
                let found: Vec<_> = commands.store.list(Some(&commands.path)).try_collect().await.unwrap();
                found.len()
            };
            let put = async |name: &str, text: &'static str| {
                let path = commands.path.clone().join(name);
                commands.store.put(&path, PutPayload::from_static(text.as_bytes())).await.unwrap();
            };
            let mut switch = Switch::open(&place, Clock::System, 0).await.unwrap();
            let mut watch = Watch::new(&place);
            assert_eq!(switch.look(0).await.unwrap(), [], "{place}");
            let name = inbox::put(&commands, "HALT fat finger\n", 5).await.unwrap();
            assert_eq!(read(&mut switch, 1).await, [command(1, "halt", Some("fat finger"))], "{place}");
            let seen = watch.poll().await.unwrap();
            assert_eq!(
                seen.iter().map(|c| c.object.as_ref().unwrap().name.as_str()).collect::<Vec<_>>(),
                [name]
            );
            assert_eq!(there().await, 0, "{place}");
            put("mine", "# by hand\nresume").await;
            assert_eq!(read(&mut switch, 1).await, [command(2, "resume", None)], "{place}");
            put("mine", "reduce\nhalt\n").await;
            assert_eq!(
                read(&mut switch, 2).await,
                [command(3, "reduce", None), command(4, "halt", None)],
                "{place}"
            );

            // Whoever comes next reads none of it again, and the run before can read no more.
            let before = switch.after(0);
            let mut next = Switch::open(&place, Clock::System, 4).await.unwrap();
            assert_eq!(next.after(0), before, "{place}");
            assert_eq!(next.look(0).await.unwrap(), [], "{place}");
            inbox::put(&commands, "resume", 6).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(matches!(switch.look(0).await, Err(ConnectorError::Fenced(_))), "{place}");
            assert_eq!(there().await, 2, "{place}: a run that is fenced removes nothing");
            assert_eq!(read(&mut next, 1).await, [command(5, "resume", None)], "{place}");
            assert!(next.after(0).iter().map(|c| c.ts).is_sorted(), "{place}");
            assert_eq!(there().await, 1, "{place}");
        }
    }
}
