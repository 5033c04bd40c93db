//! `tidemill archive ls`.

use std::process::ExitCode;

use serde_json::json;

use super::{Place, size, table, thousands, time};

/// Lists datasets: rows, files, bytes, first and last time
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut listed = Vec::new();
    let mut shown = table(&["dataset", "rows", "files", "bytes", "first", "last", "gaps"], &[1, 2, 3, 6]);
    for dataset in args.place.datasets().await? {
        let snapshot = dataset.snapshot().await?.with_statistics().await?;
        let (rows, bytes, ts) = (snapshot.rows(), snapshot.bytes(), snapshot.ts());
        listed.push(json!({
            "dataset": dataset.name(),
            "rows": rows,
            "files": snapshot.files().len(),
            "bytes": bytes,
            "first": ts.map(|t| time(t.0)),
            "last": ts.map(|t| time(t.1)),
            "gaps": snapshot.gaps().len(),
        }));
        shown.add_row([
            dataset.name().to_owned(),
            rows.map_or("?".into(), thousands),
            thousands(snapshot.files().len() as u64),
            size(bytes),
            ts.map_or(String::new(), |t| time(t.0)),
            ts.map_or(String::new(), |t| time(t.1)),
            snapshot.gaps().len().to_string(),
        ]);
    }
    if args.place.json {
        say!("{}", serde_json::to_string_pretty(&listed)?)?;
    } else if listed.is_empty() {
        say!("no datasets in {}", args.place.catalog()?.display())?;
    } else {
        say!("{shown}")?;
    }
    Ok(ExitCode::SUCCESS)
}
