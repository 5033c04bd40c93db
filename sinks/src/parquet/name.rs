//! Names of the files: whose they are, and between which checkpoints.

use std::fmt;

/// A file's name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName {
    /// The last checkpoint before its rows.
    pub after: u64,
    /// The shard that wrote it.
    pub shard: usize,
    /// Its number among the shard's files of that interval.
    pub number: usize,
    /// The run that wrote it.
    pub generation: u64,
}

impl FileName {
    /// The file's name for a job and a sink.
    pub fn name(&self, job: &str, sink: &str) -> String {
        let Self { after, shard, number, generation } = self;
        format!("{}after-{after:020}-{shard:04}-{number:04}.g{generation:010}.parquet", prefix(job, sink))
    }

    /// Takes a name apart; `None` where it is not of this job and sink.
    pub fn parse(name: &str, job: &str, sink: &str) -> Option<Self> {
        let rest = name.strip_prefix(&prefix(job, sink))?.strip_prefix("after-")?.strip_suffix(".parquet")?;
        let (place, generation) = rest.split_once(".g")?;
        let mut parts = place.split('-');
        let file = Self {
            after: parts.next()?.parse().ok()?,
            shard: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
            generation: generation.parse().ok()?,
        };
        parts.next().is_none().then_some(file)
    }
}

/// `JOB.SINK`, as the names of its files begin.
pub fn writer(job: &str, sink: &str) -> String {
    format!("{}.{}", Plain(job), Plain(sink))
}

/// `JOB.SINK.`; characters that could be taken for something else are spelled out.
fn prefix(job: &str, sink: &str) -> String {
    format!("{}.", writer(job, sink))
}

struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => write!(f, "{c}")?,
                c => write!(f, "~{:x}~", c as u32)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_for_their_own_sink_only() {
        let file = FileName { after: 12, shard: 3, number: 99_999, generation: 4 };
        for (job, sink) in [("momentum", "history"), ("a.b", "c/d"), ("", "x")] {
            let name = file.name(job, sink);
            assert_eq!(FileName::parse(&name, job, sink), Some(file), "{name}");
            assert_eq!(FileName::parse(&name, job, "other"), None);
            assert!(!name.contains('/'));
            // The archive reads the same in it.
            let seen = tidemill_archive::name::SinkFile::parse(&name);
            let seen = seen.map(|s| (s.writer, s.after, s.generation));
            assert_eq!(seen, Some((writer(job, sink), file.after, file.generation)));
        }
        assert_ne!(file.name("a.b", "c"), file.name("a", "b.c"));
        for stranger in [
            "part-0.parquet",
            "j.s.after-1.parquet",
            "j.s.after-1-2-3-4.g1.parquet",
            "j.s.after-x-0-0.g1.parquet",
        ] {
            assert_eq!(FileName::parse(stranger, "j", "s"), None);
        }
    }
}
