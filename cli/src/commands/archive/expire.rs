//! `tidemill archive expire`.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;
use tidemill_archive::expire;
use tidemill_engine::duration::Span;

use super::{Place, now_ms, size, thousands, time};

/// Deletes files that compaction has replaced, and drops old days
///
/// Without --yes it only says what it would do. Dropped files are deleted by a later run, once readers
/// that had begun are surely done (--older-than).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Deletes files that were replaced or dropped longer ago than this
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    older_than: Span,
    /// Drops files whose rows are all before this date (UTC), such as 2024-01-31
    #[arg(long, value_name = "DATE")]
    before: Option<chrono::NaiveDate>,
    /// Does it
    #[arg(long)]
    yes: bool,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let before = match args.before {
        Some(date) => {
            let ns = date.and_hms_opt(0, 0, 0).and_then(|t| t.and_utc().timestamp_nanos_opt());
            Some(ns.with_context(|| format!("{date} is out of range"))?)
        }
        None => None,
    };
    if before.is_some() && args.place.dataset.is_none() {
        anyhow::bail!("--before drops rows: name the dataset");
    }
    let mut all = Vec::new();
    for dataset in args.place.datasets().await? {
        let mut snapshot = dataset.snapshot().await?;
        if before.is_some() {
            snapshot = snapshot.with_statistics().await?;
        }
        let plan = expire::plan(&snapshot, now_ms(), args.older_than.ns() / 1_000_000, before);
        let rows: u64 = plan.drop.iter().filter_map(|f| f.rows).sum();
        let bytes: u64 = plan.drop.iter().map(|f| f.bytes).sum();
        let ((deletes, deleted), (strays, stray)) = (plan.deletes(), plan.strays());
        if args.yes {
            expire::run(&snapshot, &plan).await?;
        }
        all.push(json!({
            "dataset": dataset.name(),
            "done": args.yes,
            "dropped_files": plan.drop.len(),
            "dropped_rows": rows,
            "dropped_bytes": bytes,
            "deleted_files": deletes,
            "deleted_bytes": deleted,
            "left_by_crashes": strays,
            "left_by_crashes_bytes": stray,
        }));
        if args.place.json {
            continue;
        }
        let would = if args.yes { "" } else { "would have " };
        say!(
            "{}: {would}deleted {} replaced files ({}), {} files left by crashes ({})",
            dataset.name(),
            thousands(deletes as u64),
            size(deleted),
            thousands(strays as u64),
            size(stray)
        )?;
        if let Some(before) = before {
            say!(
                "{}: {would}dropped {} rows before {} in {} ({})",
                dataset.name(),
                thousands(rows),
                time(before),
                crate::render::count(plan.drop.len(), "file"),
                size(bytes)
            )?;
        }
    }
    if args.place.json {
        say!("{}", serde_json::to_string_pretty(&all)?)?;
    } else if !args.yes && all.iter().any(|d| d["dropped_files"] != 0 || d["deleted_files"] != 0) {
        say!("nothing was done: add --yes")?;
    }
    Ok(ExitCode::SUCCESS)
}
