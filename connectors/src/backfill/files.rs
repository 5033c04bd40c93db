//! Histories that are files: CSV, JSON lines and Parquet by a mapping, each file one range.
//!
//! A file is known by its name: `csv:eurusd_20140501.csv.gz`. One that was brought in is left out the next time;
//! if it has changed since, `force` brings it in again and replaces all its rows. Files are read one after
//! another, in order of their names, and never held in memory whole.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidemill_archive::Covered;
use tidemill_engine::row;
use tokio::runtime::Handle;

use super::continuity::Rule;
use super::mapping::{From, Mapping, Options, Pair};
use super::ranges::{Cut, Span, WHOLE};
use super::{Failure, History, Rows, Work, csv_file, jsonl_file, mapping, parquet_file};
use crate::files::{self, FileRef, Place};

/// What the files are.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Comma separated values, or by another character.
    Csv(csv_file::Dialect),
    /// Daily bars as Yahoo gives them: `Date,Open,High,Low,Close,Adj Close,Volume`.
    Yahoo,
    /// One JSON object a line.
    Jsonl,
    /// Parquet.
    Parquet,
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Csv(_) => "csv",
            Self::Yahoo => "yahoo",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
        }
    }

    fn extensions(&self) -> &'static [&'static str] {
        match self {
            Self::Csv(_) | Self::Yahoo => &[".csv", ".csv.gz", ".csv.zst"],
            Self::Jsonl => &[".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz"],
            Self::Parquet => &[".parquet"],
        }
    }
}

/// Files of one kind.
pub struct FileHistory {
    kind: Kind,
    files: Vec<FileRef>,
    /// One for each file: symbols may come from their names.
    mappings: Vec<Mapping>,
    options: Options,
}

impl FileHistory {
    /// The files that `paths` mean (files, folders, globs, URLs); finds what is wrong with the mapping.
    pub async fn new(
        kind: Kind,
        paths: &[String],
        base: &Path,
        mut options: Options,
    ) -> Result<Self, String> {
        let mut found: Vec<FileRef> = Vec::new();
        for path in paths {
            for file in files::list(path, base, kind.extensions()).await? {
                if let Some(other) = found.iter().find(|f| f.name == file.name && f.display != file.display) {
                    return Err(format!(
                        "`{}` and `{}` have the same name, by which files are told apart",
                        other.display, file.display
                    ));
                }
                if !found.iter().any(|f| f.display == file.display) {
                    found.push(file);
                }
            }
        }
        if let Kind::Yahoo = kind {
            options.every_ns = Some(super::ranges::DAY_NS);
            let mut pairs = mapping::pairs("start=Date,adj_close=Adj Close")?;
            pairs.retain(|p| !options.map.iter().any(|o| o.column == p.column));
            options.map.extend(pairs);
            let yahoo = "ts: timestamp, symbol: symbol, start: timestamp, open: f64, high: f64, low: f64, close: f64, adj_close: f64?, volume: f64";
            options.schema.get_or_insert(mapping::schema(yahoo)?);
        }
        let schema = Self::schema(&kind, &found, &options).await?;
        let mut mappings = Vec::new();
        for file in &found {
            let mut own = options.clone();
            if let (Kind::Yahoo, None) = (&kind, &own.symbol) {
                own.symbol = Some(stem(&file.name).to_owned());
            }
            mappings.push(Mapping::new(schema.clone(), &own)?);
        }
        if let Some(ids) = &options.ids
            && !schema.field_with_name(ids).is_ok_and(|f| f.data_type().is_integer())
        {
            return Err(format!("--ids {ids}: the schema has no whole-number column of that name"));
        }
        Ok(Self { kind, files: found, mappings, options })
    }

    async fn schema(kind: &Kind, files: &[FileRef], options: &Options) -> Result<SchemaRef, String> {
        match (&options.schema, kind, files.first()) {
            (Some(spec), ..) => {
                let told = |p: Vec<tidemill_engine::problem::Problem>| {
                    p.iter().map(|p| format!("--{p}")).collect::<Vec<_>>().join("; ")
                };
                spec.resolve("schema").map_err(told)
            }
            (None, Kind::Parquet, Some(first)) => {
                let times = options.map.iter().find(|p| p.column == row::TS);
                let times: Vec<String> = match times {
                    Some(Pair { from: From::Name(name), .. }) => vec![name.clone()],
                    _ => {
                        vec!["ts".into(), "timestamp".into(), "time".into(), "datetime".into(), "date".into()]
                    }
                };
                let (name, local) = (first.display.clone(), local(first).await.map_err(|e| e.to_string())?);
                let path = local.path.clone();
                let read = tokio::task::spawn_blocking(move || parquet_file::schema(&name, &path, &times));
                let schema = read.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
                Ok(match &options.symbol {
                    Some(_) if schema.index_of("symbol").is_err() => {
                        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
                        fields.push(Arc::new(arrow::datatypes::Field::new(
                            "symbol",
                            row::symbol_type(),
                            false,
                        )));
                        Arc::new(arrow::datatypes::Schema::new(fields))
                    }
                    _ => schema,
                })
            }
            _ => Err(
                "--schema is missing: name one (trade, quote, bar), or write `ts: timestamp, price: f64, …`"
                    .into(),
            ),
        }
    }
}

/// A file's name without folders and endings.
fn stem(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.split('.').next().unwrap_or(name)
}

#[async_trait]
impl History for FileHistory {
    fn columns(&self) -> SchemaRef {
        self.mappings
            .first()
            .map_or_else(|| Arc::new(arrow::datatypes::Schema::empty()), |m| m.schema.clone())
    }

    fn partition_by(&self) -> Vec<String> {
        match self.options.every_ns {
            // A file for every day of hourly bars would hold 24 rows.
            Some(ns) if ns >= 3_600_000_000_000 && self.columns().index_of("symbol").is_ok() => {
                vec!["symbol".into()]
            }
            Some(ns) if ns >= 3_600_000_000_000 => Vec::new(),
            _ => vec!["date".into()],
        }
    }

    fn rule(&self) -> Rule {
        match (&self.options.ids, self.options.every_ns, &self.kind) {
            (Some(column), ..) => Rule::Ids(column.clone()),
            // Markets that close have no bars then.
            (None, Some(interval_ns), Kind::Csv(_) | Kind::Jsonl | Kind::Parquet)
                if self.columns().index_of("symbol").is_err() || self.options.symbol.is_some() =>
            {
                Rule::Every { column: row::TS.into(), interval_ns }
            }
            _ => Rule::None,
        }
    }

    async fn plan(&self, _there: &[Covered], _force: bool) -> Result<Vec<Work>, Failure> {
        let work = self.files.iter().enumerate().map(|(index, file)| Work {
            source: format!("{}:{}", self.kind.name(), file.name),
            key: Vec::new(),
            label: file.name.clone(),
            span: WHOLE,
            cut: Cut::Whole,
            size: file.size.max(1),
            index,
        });
        Ok(work.collect())
    }

    async fn fetch(&self, work: &Work, _piece: Span, out: &mut Rows) -> Result<(), Failure> {
        let (file, mapping) = (self.files[work.index].clone(), self.mappings[work.index].clone());
        let kind = self.kind.clone();
        let local = match kind {
            Kind::Parquet => Some(local(&file).await?),
            _ => None,
        };
        blocking(out, move |out| {
            let name = file.display.as_str();
            match (&kind, &local) {
                (Kind::Parquet, Some(local)) => parquet_file::read(name, &local.path, &mapping, out),
                (Kind::Csv(dialect), _) => {
                    bytes(&file, out, |b, out| csv_file::read(name, b, &mapping, dialect, out))
                }
                (Kind::Yahoo, _) => {
                    bytes(&file, out, |b, out| csv_file::read(name, b, &mapping, &Default::default(), out))
                }
                (Kind::Jsonl | Kind::Parquet, _) => {
                    bytes(&file, out, |b, out| jsonl_file::read(name, b, &mapping, out))
                }
            }
        })
        .await
    }
}

/// Runs a reader on a blocking thread with `out`, which comes back when it has ended.
pub(super) async fn blocking(
    out: &mut Rows,
    read: impl FnOnce(&mut Rows) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let mut own = out.take();
    let ran = tokio::task::spawn_blocking(move || {
        let read = read(&mut own);
        (own, read)
    });
    match ran.await {
        Ok((own, read)) => {
            *out = own;
            read
        }
        Err(error) => Err(Failure::Range(format!("the reader failed: {error}"))),
    }
}

/// Opens a file, unpacked by its ending; the meter goes by the bytes as they lie in the file.
fn bytes(
    file: &FileRef,
    out: &mut Rows,
    read: impl FnOnce(&mut dyn Read, &mut Rows) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let fail = |e: std::io::Error| Failure::Range(format!("cannot open `{}`: {e}", file.display));
    let plain = file.read(&Handle::current()).map_err(fail)?;
    let counted = Counted { bytes: plain, meter: out.meter() };
    let mut unpacked: Box<dyn Read> = if file.name.ends_with(".gz") {
        Box::new(flate2::read::MultiGzDecoder::new(std::io::BufReader::with_capacity(1 << 17, counted)))
    } else if file.name.ends_with(".zst") {
        Box::new(zstd::Decoder::new(counted).map_err(fail)?)
    } else {
        Box::new(counted)
    };
    read(&mut unpacked, out)
}

struct Counted {
    bytes: Box<dyn Read + Send>,
    meter: Arc<super::Meter>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.meter.inside.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A file on disk; a copy of a remote one is removed with it.
pub(super) struct Local {
    pub(super) path: PathBuf,
    copy: bool,
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.copy {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Local {
    /// A place for a copy.
    pub(super) fn copy() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidemill-backfill-{}-{n}", std::process::id()));
        Self { path, copy: true }
    }
}

/// The file on disk: itself, or a copy in the folder for temporary files.
pub(super) async fn local(file: &FileRef) -> Result<Local, Failure> {
    if let Place::Local(path) = &file.place {
        return Ok(Local { path: path.clone(), copy: false });
    }
    let (file, copy) = (file.clone(), Local::copy());
    let ran = tokio::task::spawn_blocking(move || -> std::io::Result<Local> {
        let mut from = file.read(&Handle::current())?;
        std::io::copy(&mut from, &mut std::fs::File::create(&copy.path)?)?;
        Ok(copy)
    });
    match ran.await {
        Ok(Ok(copy)) => Ok(copy),
        Ok(Err(error)) => Err(Failure::Range(format!("cannot fetch it: {error}"))),
        Err(error) => Err(Failure::Range(format!("cannot fetch it: {error}"))),
    }
}
