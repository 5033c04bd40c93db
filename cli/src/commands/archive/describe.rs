//! `tidemill archive describe`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::json;
use tidemill_archive::{Dataset, Snapshot};
use tidemill_connectors::backfill::ranges::WHOLE;
use tidemill_engine::schema::type_name;

use super::{Place, size, table, thousands, time};

/// Ranges and writers that are listed.
const LISTED_MAX: usize = 50;

/// Shows a dataset's columns, folders, order, ranges, and where its rows come from
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for (i, dataset) in args.place.datasets().await?.into_iter().enumerate() {
        let snapshot = dataset.snapshot().await?.with_statistics().await?;
        if args.place.json {
            all.push(as_json(&dataset, &snapshot).await?);
            continue;
        }
        if i > 0 {
            say!("")?;
        }
        show(&dataset, &snapshot).await?;
    }
    if args.place.json {
        say!("{}", serde_json::to_string_pretty(&all)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What one writer has put there.
#[derive(Default)]
struct Share {
    files: usize,
    bytes: u64,
    rows: u64,
    ts: Option<(i64, i64)>,
}

/// By kind and name of the writer.
fn shares(snapshot: &Snapshot) -> BTreeMap<(String, String), Share> {
    let mut shares: BTreeMap<(String, String), Share> = BTreeMap::new();
    for file in snapshot.files() {
        let (kind, name) = file.origin.writer();
        let share = shares.entry((kind.to_owned(), name.to_owned())).or_default();
        share.files += 1;
        share.bytes += file.bytes;
        share.rows += file.rows.unwrap_or(0);
        share.ts = match (share.ts, file.ts) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }
    shares
}

fn writer(kind: &str, name: &str) -> String {
    match kind {
        "sink" => format!("sink {name}"),
        "range" => format!("backfill {name}"),
        _ => "other files".to_owned(),
    }
}

async fn show(dataset: &Dataset, snapshot: &Snapshot) -> anyhow::Result<()> {
    say!("{}  {}", dataset.name(), dataset.location().display)?;
    let rows = snapshot.rows().map_or("?".into(), thousands);
    let n = snapshot.files().len();
    let mean = if n == 0 { 0 } else { snapshot.bytes() / n as u64 };
    say!(
        "{rows} rows, {} of {} on average, {} in all, log at version {}",
        crate::render::count(n, "file"),
        size(mean),
        size(snapshot.bytes()),
        snapshot.version()
    )?;
    if let Some((first, last)) = snapshot.ts() {
        say!("from {} to {}", time(first), time(last))?;
    }
    let folders = snapshot.partition_columns();
    say!("folders by: {}", if folders.is_empty() { "none".into() } else { folders.join(", ") })?;
    match snapshot.layout() {
        Some(layout) => say!("rows by: {}", layout.sort.join(", "))?,
        None => say!("rows by: as their writers left them (no layout in the log)")?,
    }
    let mut columns = table(&["column", "type", "null"], &[]);
    for field in snapshot.schema().await?.fields() {
        let null = if field.is_nullable() { "yes" } else { "" };
        columns.add_row([field.name().clone(), type_name(field.data_type()), null.to_owned()]);
    }
    say!("\n{columns}")?;
    let mut writers = table(&["written by", "files", "rows", "bytes", "first", "last"], &[1, 2, 3]);
    let shares = shares(snapshot);
    for ((kind, name), share) in shares.iter().take(LISTED_MAX) {
        writers.add_row([
            writer(kind, name),
            thousands(share.files as u64),
            thousands(share.rows),
            size(share.bytes),
            share.ts.map_or(String::new(), |t| time(t.0)),
            share.ts.map_or(String::new(), |t| time(t.1)),
        ]);
    }
    say!("\n{writers}")?;
    more(shares.len())?;
    if !snapshot.ranges().is_empty() {
        let mut ranges = table(&["range of", "key", "from", "to", "complete"], &[]);
        for range in snapshot.ranges().iter().take(LISTED_MAX) {
            ranges.add_row([
                range.source.clone(),
                range.key.to_string(),
                bound(range.from),
                bound(range.to),
                if range.complete { "yes" } else { "no" }.to_owned(),
            ]);
        }
        say!("\n{ranges}")?;
        more(snapshot.ranges().len())?;
    }
    if !snapshot.gaps().is_empty() {
        let name = dataset.name();
        say!(
            "\n{}: tidemill archive gaps URL {name}",
            crate::render::count(snapshot.gaps().len(), "known gap")
        )?;
    }
    Ok(())
}

fn more(n: usize) -> std::io::Result<()> {
    if n > LISTED_MAX {
        say!("… and {} more: --json has them all", n - LISTED_MAX)?;
    }
    Ok(())
}

async fn as_json(dataset: &Dataset, snapshot: &Snapshot) -> anyhow::Result<serde_json::Value> {
    let schema = snapshot.schema().await?;
    let columns = schema
        .fields()
        .iter()
        .map(|f| json!({"name": f.name(), "type": type_name(f.data_type()), "nullable": f.is_nullable()}));
    let writers = shares(snapshot).into_iter().map(|((kind, name), s)| {
        json!({"kind": kind, "name": name, "files": s.files, "rows": s.rows, "bytes": s.bytes,
            "first": s.ts.map(|t| time(t.0)), "last": s.ts.map(|t| time(t.1))})
    });
    let ranges = snapshot.ranges().iter().map(|r| {
        json!({"source": r.source, "key": r.key, "from": time(r.from), "to": time(r.to), "complete": r.complete})
    });
    Ok(json!({
        "dataset": dataset.name(),
        "place": dataset.location().display,
        "version": snapshot.version(),
        "rows": snapshot.rows(),
        "files": snapshot.files().len(),
        "bytes": snapshot.bytes(),
        "first": snapshot.ts().map(|t| time(t.0)),
        "last": snapshot.ts().map(|t| time(t.1)),
        "partition_by": snapshot.partition_columns(),
        "sort": snapshot.layout().map(|l| l.sort.clone()),
        "columns": columns.collect::<Vec<_>>(),
        "writers": writers.collect::<Vec<_>>(),
        "ranges": ranges.collect::<Vec<_>>(),
        "gaps": snapshot.gaps().len(),
    }))
}

/// An end of a range; nothing for the ends that stand for a whole file.
fn bound(ns: i64) -> String {
    if ns == WHOLE.from || ns == WHOLE.to { String::new() } else { time(ns) }
}
