//! `tidemill sql`: questions to the archive, once, from a file, or at a prompt.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use tidemill_engine::clock::Clock;
use tidemill_sql::output::{self, Writer};
use tidemill_sql::{Engine, EngineConfig, Rows, SqlError};

mod prompt;
pub(crate) mod table;

/// Answers SQL over the archive and over files
///
/// The archive's datasets are tables, and so are files named with --table. It only reads. Beyond
/// DataFusion's SQL there are `ASOF JOIN`, `time_bucket`, `ohlc`, `vwap`, `gap_fill`, every indicator as a
/// window function and more: docs/sql.md. With neither QUERY nor --file it reads statements from standard
/// input, or asks for them where that is a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill sql --archive ./archive \"SELECT symbol, vwap(price, size) FROM trades GROUP BY 1\"
  tidemill sql --table t=data/trades_*.parquet -f queries.sql --format csv -o bars.csv
  tidemill sql --archive s3://bucket/archive")]
pub struct Args {
    /// One or more statements, separated by `;`
    #[arg(value_name = "QUERY", conflicts_with = "file")]
    query: Option<String>,
    /// A file of statements; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The archive; default: ./archive where it is there
    #[arg(long, value_name = "URL", env = "TIDEMILL_ARCHIVE")]
    archive: Option<String>,
    /// Parquet or CSV files as a table: a file, a folder or a pattern; may be given several times
    #[arg(long = "table", value_name = "NAME=PATH", value_parser = super::assignment)]
    tables: Vec<(String, String)>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Writes rows to a file instead
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What queries may hold in memory
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size)]
    memory: usize,
    /// Where sorts and joins go that exceed it; default: the system's folder for temporary files
    #[arg(long, value_name = "FOLDER")]
    spill: Option<PathBuf>,
    /// Threads a query may use; default: one a core
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// The most rows shown of a table, 0 for all; default: 100 on a terminal, else 10000
    #[arg(long, value_name = "N")]
    max_rows: Option<usize>,
    /// Says how long each statement took
    #[arg(long)]
    timing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
    Jsonl,
    Parquet,
}

impl Format {
    fn of_file(self) -> Option<output::Format> {
        match self {
            Format::Table => None,
            Format::Csv => Some(output::Format::Csv),
            Format::Json => Some(output::Format::Json),
            Format::Jsonl => Some(output::Format::Jsonl),
            Format::Parquet => Some(output::Format::Parquet),
        }
    }

    /// From a file's ending, where no other format was asked for.
    fn for_path(self, path: &Path) -> Self {
        match (self, path.extension().and_then(|e| e.to_str())) {
            (Format::Table, Some("csv")) => Format::Csv,
            (Format::Table, Some("json")) => Format::Json,
            (Format::Table, Some("jsonl" | "ndjson")) => Format::Jsonl,
            (Format::Table, Some("parquet")) => Format::Parquet,
            (other, _) => other,
        }
    }
}

/// The most rows of a table that no terminal shows: columns are only as wide as all rows need.
const PIPED_ROWS: usize = 10_000;

/// A number of bytes: `512MiB`, `2GiB`, `1.5GB`.
fn size(text: &str) -> Result<usize, String> {
    let bad = || format!("`{text}` is not a size: write 512MiB or 2GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "kb" => 1e3,
        "m" | "mib" => 1024.0 * 1024.0,
        "mb" => 1e6,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "gb" => 1e9,
        "t" | "tib" => 1024.0_f64.powi(4),
        "tb" => 1e12,
        _ => return Err(bad()),
    };
    let bytes = number * factor;
    // With much less, queries that spill may wait for memory that nobody gives back.
    if !(16.0 * 1024.0 * 1024.0..=1e15).contains(&bytes) {
        return Err(format!("a memory limit is from 16MiB up, not {text}"));
    }
    Ok(bytes as usize)
}

/// Exit code 1 where a statement failed; those after it do not run.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let result = runtime.block_on(start(&args));
    runtime.shutdown_background();
    result
}

async fn start(args: &Args) -> anyhow::Result<ExitCode> {
    let engine = match open(args).await {
        Ok(engine) => engine,
        Err(error) => {
            eprint!("{}", error.render(""));
            return Ok(ExitCode::FAILURE);
        }
    };
    let text = match (&args.query, &args.file) {
        (Some(query), _) => query.clone(),
        (None, Some(file)) if file.as_os_str() != "-" => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        (None, None) if std::io::stdin().is_terminal() => return prompt::run(engine, args).await,
        _ => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            text
        }
    };
    let mut shower = Shower::new(args)?;
    let good = tokio::select! {
        good = script(&engine, &text, &mut shower) => good?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    shower.finish()?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn open(args: &Args) -> Result<Engine, SqlError> {
    let here = PathBuf::from("archive");
    let archive = args.archive.clone().or_else(|| here.is_dir().then(|| "archive".to_owned()));
    let engine = Engine::open(EngineConfig {
        archive,
        memory_limit_bytes: args.memory,
        spill_dir: args.spill.clone(),
        target_partitions: args.threads,
        ..EngineConfig::default()
    })
    .await?;
    for (name, path) in &args.tables {
        engine.add_table(name, path).await?;
    }
    Ok(engine)
}

/// Runs statements in turn; false where one failed, which has been explained.
async fn script(engine: &Engine, text: &str, shower: &mut Shower) -> anyhow::Result<bool> {
    let statements = match engine.parse(text) {
        Ok(statements) => statements,
        Err(error) => {
            eprint!("{}", error.render(text));
            return Ok(false);
        }
    };
    for statement in statements {
        let watch = Clock::default().start();
        let result = match engine.run(statement, text).await {
            Ok(rows) => shower.show(rows, &watch).await?,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            eprint!("{}", error.render(text));
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where answers go.
struct Shower {
    format: Format,
    /// Rows shown of a table.
    max_rows: usize,
    timing: bool,
    path: Option<PathBuf>,
    /// The one file that is being written.
    file: Option<Writer<BufWriter<Box<dyn Write + Send>>>>,
}

impl Shower {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let format = args.output.as_deref().map_or(args.format, |path| args.format.for_path(path));
        let terminal = args.output.is_none() && std::io::stdout().is_terminal();
        if format == Format::Parquet && args.output.is_none() && terminal {
            bail!("parquet is not for terminals: name a file with --output");
        }
        let max_rows = match args.max_rows {
            Some(0) => usize::MAX,
            Some(n) => n,
            None if terminal => 100,
            None => PIPED_ROWS,
        };
        Ok(Self { format, max_rows, timing: args.timing, path: args.output.clone(), file: None })
    }

    fn out(&self) -> anyhow::Result<BufWriter<Box<dyn Write + Send>>> {
        let out: Box<dyn Write + Send> = match &self.path {
            Some(path) => {
                Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
            }
            None => Box::new(std::io::stdout()),
        };
        Ok(BufWriter::new(out))
    }

    /// Prints an answer as it comes.
    async fn show(
        &mut self,
        mut rows: Rows,
        watch: &tidemill_engine::clock::Stopwatch,
    ) -> anyhow::Result<Result<(), SqlError>> {
        let Some(format) = self.format.of_file() else {
            return self.show_table(rows, watch).await;
        };
        if self.path.is_some() && self.file.is_some() {
            bail!("one file takes the answer of one statement");
        }
        let mut writer = match Writer::new(format, &rows.schema(), self.out()?) {
            Ok(writer) => writer,
            Err(error) => return Ok(Err(error)),
        };
        while let Some(batch) = rows.next().await {
            match batch.and_then(|batch| writer.write(&batch)) {
                Ok(()) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        if self.path.is_some() {
            self.file = Some(writer);
        } else if let Err(error) = writer.finish() {
            return Ok(Err(error));
        }
        if self.timing {
            eprintln!("{}", table::time(watch.elapsed()));
        }
        Ok(Ok(()))
    }

    async fn show_table(
        &mut self,
        mut rows: Rows,
        watch: &tidemill_engine::clock::Stopwatch,
    ) -> anyhow::Result<Result<(), SqlError>> {
        let mut shown = Vec::new();
        let (mut kept, mut all) = (0, 0);
        while let Some(batch) = rows.next().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return Ok(Err(error)),
            };
            all += batch.num_rows();
            let take = batch.num_rows().min(self.max_rows - kept);
            if take > 0 {
                kept += take;
                shown.push(batch.slice(0, take));
            }
        }
        let elapsed = watch.elapsed();
        let mut out = self.out()?;
        writeln!(out, "{}", table::render(&rows.schema(), &shown)?)?;
        let took = if self.timing { format!(" in {}", table::time(elapsed)) } else { String::new() };
        let rows = crate::render::count(all, "row");
        match all - kept {
            0 => writeln!(out, "{rows}{took}")?,
            _ => writeln!(out, "{rows}{took}; the first {kept} are shown: --max-rows 0 shows all")?,
        }
        out.flush()?;
        Ok(Ok(()))
    }

    fn finish(self) -> anyhow::Result<()> {
        if let Some(file) = self.file {
            let rows = file.finish()?;
            if let Some(path) = &self.path {
                eprintln!("{} in {}", crate::render::count(rows as usize, "row"), path.display());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("512 MiB"), Ok(512 << 20));
        assert_eq!(size("1.5GB"), Ok(1_500_000_000));
        for bad in ["", "GiB", "2 apples", "10", "-1GiB", "15MiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
