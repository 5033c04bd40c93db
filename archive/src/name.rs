//! Names of files: the archive's own, and those of the `parquet` sink.

/// How the archive's own files end: they count only where the log adds them.
pub const OWN_SUFFIX: &str = ".tm.parquet";
/// The folder of a dataset's log.
pub const LOG_FOLDER: &str = "_tidemill";

/// Whether a file (by its name, without folders) is the archive's own.
pub fn is_own(name: &str) -> bool {
    name.ends_with(OWN_SUFFIX)
}

/// Whether a file counts without the log: Parquet, neither hidden nor staged nor the archive's own.
pub fn is_foreign(name: &str) -> bool {
    (name.ends_with(".parquet") || name.ends_with(".pq"))
        && !is_own(name)
        && !name.starts_with(['_', '.'])
        && !name.contains('#')
}

/// What the name of a `parquet` sink's file tells:
/// `JOB.SINK.after-CHECKPOINT-SHARD-NUMBER.gGENERATION.parquet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkFile {
    /// `JOB.SINK`, as it stands in the name.
    pub writer: String,
    /// The last checkpoint before its rows.
    pub after: u64,
    /// The start of the job that wrote it.
    pub generation: u64,
}

impl SinkFile {
    /// Takes a name apart; `None` where no `parquet` sink gave it.
    pub fn parse(name: &str) -> Option<Self> {
        let (rest, generation) = name.strip_suffix(".parquet")?.rsplit_once(".g")?;
        let (writer, place) = rest.rsplit_once(".after-")?;
        let mut parts = place.split('-');
        let after = parts.next()?.parse().ok()?;
        let numbers = (parts.next()?.parse::<u64>().is_ok(), parts.next()?.parse::<u64>().is_ok());
        if numbers != (true, true) || parts.next().is_some() || writer.is_empty() {
            return None;
        }
        Some(Self { writer: writer.to_owned(), after, generation: generation.parse().ok()? })
    }
}

/// The columns and values in a path's Hive folders, decoded.
pub fn hive_values(path: &str) -> Vec<(String, String)> {
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    let pairs = folders.split('/').filter_map(|folder| folder.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), decode(value))).collect()
}

/// `%2F` and the like spelled out; what is no such escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escaped = (bytes[i] == b'%')
            .then(|| text.get(i + 1..i + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        out.push(escaped.unwrap_or(bytes[i]));
        i += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_whose_file_it_is() {
        let name = "momentum.history.after-00000000000000000012-0003-0001.g0000000007.parquet";
        let file = SinkFile::parse(name).unwrap();
        assert_eq!(file, SinkFile { writer: "momentum.history".into(), after: 12, generation: 7 });
        for stranger in
            ["x.parquet", "a.after-1-2.g3.parquet", "a.after-1-2-3-4.g3.parquet", ".after-1-2-3.g4.parquet"]
        {
            assert_eq!(SinkFile::parse(stranger), None, "{stranger}");
        }
        assert!(is_foreign(name) && is_foreign("part-0.parquet"));
        for hidden in ["_x.parquet", ".x.parquet", "x.parquet#1", "x.csv", "0a-0.tm.parquet"] {
            assert!(!is_foreign(hidden), "{hidden}");
        }
        assert!(is_own("0a-0.tm.parquet"));
    }

    #[test]
    fn folders_give_values() {
        let values = hive_values("date=2024-01-02/symbol=BTC%2FUSD/x=100%/f.parquet");
        let expected = [("date", "2024-01-02"), ("symbol", "BTC/USD"), ("x", "100%")];
        assert_eq!(values, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert!(hive_values("f.parquet").is_empty());
    }
}
