//! `tidemill archive compact`.

use std::process::ExitCode;

use serde_json::json;
use tidemill_archive::compact::{self, CompactOptions};
use tidemill_archive::{ArchiveError, WriteOptions};
use tidemill_engine::duration::Span;

use super::{Place, bar, now_ms, size, thousands};

/// Makes few sorted files of many small ones
///
/// Safe while jobs write and readers read. The old files stay until `tidemill archive expire`. Files of a
/// parquet sink are taken once no restart of its job could remove them: 8 checkpoints after their own.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// About how many MiB a file should have
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    file_mb: u32,
    /// Leaves files that were written less than this ago
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    older_than: Span,
    /// The jobs that wrote here have ended for good: takes their last files too
    #[arg(long)]
    ended: bool,
    /// Level of zstd, 1 to 22
    #[arg(long, value_name = "LEVEL", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=22))]
    zstd: i32,
    /// About how many MiB of memory sorting takes; beyond, it uses TMPDIR
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    memory_mb: u32,
    /// Only says what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Exit code 1 where another compaction was faster.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let options = CompactOptions {
        older_than_ms: args.older_than.ns() / 1_000_000,
        ended: args.ended,
        write: WriteOptions {
            zstd: args.zstd,
            file_bytes: (args.file_mb as usize) << 20,
            memory_bytes: (args.memory_mb as usize) << 20,
            ..WriteOptions::default()
        },
    };
    let mut all = Vec::new();
    for dataset in args.place.datasets().await? {
        let name = dataset.name();
        let snapshot = dataset.snapshot().await?;
        let groups = compact::plan(&snapshot, now_ms(), &options);
        let bytes: u64 = groups.iter().map(|g| g.bytes).sum();
        let files: usize = groups.iter().map(|g| g.files.len()).sum();
        let count = snapshot.files().len();
        if args.dry_run || groups.is_empty() {
            all.push(json!({"dataset": name, "files": count, "would_merge": files, "bytes": bytes}));
            if !args.place.json {
                let what = match groups.is_empty() {
                    true => "nothing to merge".to_owned(),
                    false => format!("would merge {} of them, {}", thousands(files as u64), size(bytes)),
                };
                say!("{name}: {}, {what}", crate::render::count(count, "file"))?;
            }
            continue;
        }
        let bar = bar(bytes, name);
        let report = compact::run(&snapshot, &groups, &options, |group| bar.inc(group.bytes)).await;
        bar.finish_and_clear();
        let report = match report {
            Ok(report) => report,
            Err(error @ ArchiveError::Conflict { .. }) => {
                eprintln!("{name}: {error}");
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error.into()),
        };
        all.push(json!({
            "dataset": name,
            "rows": report.rows,
            "files_before": report.files_before,
            "files_after": report.files_after,
            "bytes_before": report.bytes_before,
            "bytes_after": report.bytes_after,
        }));
        if !args.place.json {
            say!(
                "{name}: {} rows, {} files ({}) are now {} ({})",
                thousands(report.rows),
                thousands(report.files_before as u64),
                size(report.bytes_before),
                thousands(report.files_after as u64),
                size(report.bytes_after)
            )?;
        }
    }
    if args.place.json {
        say!("{}", serde_json::to_string_pretty(&all)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
