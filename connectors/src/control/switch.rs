//! The file of commands, and the log of what was read of it.
//!
//! The log is the truth: a line of the file is a command once it stands in the log, and stays one whatever becomes of the file.
//! The file goes on behind what was read as long as it still begins with it; else it is another file, all of which is new.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;

use crate::broker::lines::{Lines, Tail, failed};

/// A file of commands has no more bytes than this.
const BYTES_MAX: u64 = 1 << 20;
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
}

impl Command {
    /// The line that it was, its words one space apart.
    pub fn line(&self) -> String {
        let reason = self.reason.iter().flat_map(|reason| reason.split_whitespace());
        std::iter::once(self.command.as_str()).chain(reason).collect::<Vec<_>>().join(" ")
    }
}

/// The file, watched.
pub struct Switch {
    file: PathBuf,
    clock: Clock,
    lines: Lines,
    commands: Vec<Command>,
    next: u64,
    /// What the file was like at the last look, and since when.
    seen: Option<(u64, SystemTime, Stopwatch)>,
    /// Nothing new can be in the file as it was seen.
    settled: bool,
}

/// The log of `file`.
pub fn log_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".log");
    name.into()
}

/// Commands of a file's log, as they come.
pub struct Watch(Tail);

impl Watch {
    /// Of the log of `file`.
    pub fn new(file: &Path) -> Self {
        Self(Tail::new(log_of(file)))
    }

    /// Commands that were read since the last call.
    pub fn poll(&mut self) -> Result<Vec<Command>, String> {
        self.0.poll()
    }
}

impl Switch {
    /// Opens or makes the log of `file`. Commands up to `known` are known to the job: should the log have been lost, numbers go on from there.
    pub fn open(file: &Path, clock: Clock, known: u64) -> Result<Self, ConnectorError> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
        }
        let (lines, commands) = Lines::open::<Command>(&log_of(file))?;
        let last = commands.last().map_or(0, |c| c.n);
        if last < known {
            tracing::warn!(
                file = %file.display(),
                "the log of commands was lost: all lines of the file are taken as new commands"
            );
        }
        let next = last.max(known) + 1;
        Ok(Self { file: file.to_owned(), clock, lines, commands, next, seen: None, settled: false })
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

    /// Commands that have come into the file; in the log, on the disk, when this returns. None is older than `ts`.
    pub async fn look(&mut self, ts: i64) -> Result<Vec<Command>, ConnectorError> {
        let Ok(found) = std::fs::metadata(&self.file) else {
            (self.seen, self.settled) = (None, false);
            return Ok(Vec::new());
        };
        let whole = self.is_settled(&found);
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
        let news = self.news(&text, whole, ts);
        if !news.is_empty() {
            self.lines.append(&news)?;
            self.lines.sync().await?;
            self.next += news.len() as u64;
            self.commands.extend_from_slice(&news);
        }
        Ok(news)
    }

    /// Whether the file has long been as it is now.
    fn is_settled(&mut self, found: &Metadata) -> bool {
        let changed = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        match &self.seen {
            Some((len, at, since)) if (*len, *at) == (found.len(), changed) => since.elapsed() >= SETTLED,
            _ => {
                self.seen = Some((found.len(), changed, self.clock.start()));
                self.settled = false;
                false
            }
        }
    }

    /// Lines behind what the log knows; the last one, should it have no end, only where the file is `whole`.
    fn news(&self, text: &[u8], whole: bool, ts: i64) -> Vec<Command> {
        let known = self.commands.last().and_then(|last| {
            let begin = text.get(..usize::try_from(last.bytes).ok()?)?;
            (crc32fast::hash(begin) == last.crc).then_some(begin.len())
        });
        let mut at = known.unwrap_or(0);
        let ts = self.commands.last().map_or(ts, |last| last.ts.max(ts)).max(self.clock.now_ns());
        let mut news = Vec::new();
        while at < text.len() {
            let end = match text[at..].iter().position(|b| *b == b'\n') {
                Some(end) => at + end + 1,
                None if whole => text.len(),
                None => break,
            };
            let line = String::from_utf8_lossy(&text[at..end]);
            let line = line.trim().trim_start_matches('\u{feff}');
            at = end;
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (command, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let reason = Some(reason.trim().to_owned()).filter(|reason| !reason.is_empty());
            news.push(Command {
                n: self.next + news.len() as u64,
                ts,
                command: command.to_lowercase(),
                reason,
                bytes: end as u64,
                crc: crc32fast::hash(&text[..end]),
            });
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut switch = Switch::open(&path, Clock::System, 0).unwrap();
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
        let mut switch = Switch::open(&path, Clock::System, 4).unwrap();
        assert_eq!((switch.after(0), switch.after(5).len()), (before, 1));
        assert_eq!(read(&mut switch, 1).await, [command(7, "resume", None)]);
        let times: Vec<i64> = switch.after(0).iter().map(|c| c.ts).collect();
        assert!(times.is_sorted());

        // The log is lost: what stands in the file counts.
        drop(switch);
        std::fs::remove_file(log_of(&path)).unwrap();
        let mut switch = Switch::open(&path, Clock::System, 7).unwrap();
        assert_eq!(read(&mut switch, 2).await, [command(8, "halt", None), command(9, "resume", None)]);
    }

    #[tokio::test]
    async fn a_file_that_is_no_switch_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("switch");
        std::fs::write(&path, vec![b'x'; BYTES_MAX as usize + 1]).unwrap();
        let mut switch = Switch::open(&path, Clock::System, 0).unwrap();
        let error = switch.look(0).await.unwrap_err().to_string();
        assert!(error.contains("1048577 bytes") && error.contains("empty it"), "{error}");
    }
}
