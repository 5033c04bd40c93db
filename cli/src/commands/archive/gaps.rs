//! `tidemill archive gaps`.

use std::process::ExitCode;

use serde_json::json;
use tidemill_archive::Dataset;
use tidemill_archive::holes::{self, Hole, KEY_COLUMNS, Rule, SEQUENCE_COLUMNS};
use tidemill_engine::duration::Span;
use tidemill_engine::schema::type_name;

use super::{Place, bar, table, thousands, time};

/// Gaps that are listed.
const LISTED_MAX: usize = 200;

/// Lists known gaps, and looks for holes
///
/// Holes are looked for by the first rule that applies: --every, --longer-than, --sequence, or a
/// whole-number column trade_id, agg_trade_id, sequence or the like, which must have every number.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// A column in which every whole number must be there, key by key
    #[arg(long, value_name = "COLUMN", group = "rule")]
    sequence: Option<String>,
    /// There must be a row at least this often, such as 1m for one-minute bars
    #[arg(long, value_name = "SPAN", group = "rule")]
    every: Option<Span>,
    /// There must be no silence longer than this
    #[arg(long, value_name = "SPAN", group = "rule")]
    longer_than: Option<Span>,
    /// Columns that tell keys apart; default: those of venue, exchange, symbol there are
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    by: Option<Vec<String>>,
}

/// Exit code 1 where something is missing.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    let mut missing = false;
    for (i, dataset) in args.place.datasets().await?.into_iter().enumerate() {
        if i > 0 && !args.place.json {
            say!("")?;
        }
        missing |= one(&args, &dataset, &mut all).await?;
    }
    if args.place.json {
        say!("{}", serde_json::to_string_pretty(&all)?)?;
    }
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn one(args: &Args, dataset: &Dataset, all: &mut Vec<serde_json::Value>) -> anyhow::Result<bool> {
    let snapshot = dataset.snapshot().await?;
    let schema = snapshot.schema().await?;
    let whole = |name: &&str| schema.field_with_name(name).is_ok_and(|f| f.data_type().is_integer());
    if args.every.or(args.longer_than).is_some_and(|span| span.ns() <= 0) {
        anyhow::bail!("--every and --longer-than are longer than nothing");
    }
    let rule = match (args.every.or(args.longer_than), &args.sequence) {
        (Some(span), _) => Some(Rule::Every(span.ns())),
        (None, Some(column)) => Some(Rule::Sequence(column.clone())),
        (None, None) => SEQUENCE_COLUMNS.iter().copied().find(whole).map(|c| Rule::Sequence(c.to_owned())),
    };
    let by = match &args.by {
        Some(by) => by.clone(),
        None => KEY_COLUMNS.iter().filter(|c| schema.index_of(c).is_ok()).map(|c| (*c).to_owned()).collect(),
    };
    let found = match &rule {
        Some(rule) => {
            let bar = bar(snapshot.bytes(), dataset.name());
            let found = holes::find(&snapshot, rule, &by, |bytes| bar.inc(bytes)).await?;
            bar.finish_and_clear();
            Some(found)
        }
        None => None,
    };
    let missing = !snapshot.gaps().is_empty() || found.as_ref().is_some_and(|f| !f.holes.is_empty());
    let described = match &rule {
        Some(Rule::Sequence(column)) => format!("every `{column}`"),
        Some(Rule::Every(ns)) => format!("a row every {}", Span::from_ns(*ns)),
        None => "no rule".to_owned(),
    };
    if args.place.json {
        let known = snapshot.gaps().iter().map(|g| {
            json!({"source": g.source, "key": g.key, "from": time(g.from), "to": time(g.to), "reason": g.reason})
        });
        let holes = found
            .iter()
            .flat_map(|f| &f.holes)
            .map(|h| json!({"key": h.key, "from": time(h.from), "to": time(h.to), "numbers": h.numbers}));
        all.push(json!({
            "dataset": dataset.name(),
            "known": known.collect::<Vec<_>>(),
            "rule": described,
            "by": by,
            "holes": holes.collect::<Vec<_>>(),
            "rows": found.as_ref().map(|f| f.rows),
            "keys": found.as_ref().map(|f| f.keys),
            "duplicates": found.as_ref().map(|f| f.duplicates),
        }));
        return Ok(missing);
    }
    say!("{}: {} known", dataset.name(), crate::render::count(snapshot.gaps().len(), "gap"))?;
    if !snapshot.gaps().is_empty() {
        let mut known = table(&["source", "key", "from", "to", "why"], &[]);
        for gap in snapshot.gaps().iter().take(LISTED_MAX) {
            known.add_row([
                gap.source.clone(),
                gap.key.to_string(),
                time(gap.from),
                time(gap.to),
                gap.reason.clone(),
            ]);
        }
        say!("{known}")?;
    }
    let Some(found) = found else {
        let columns: Vec<String> =
            schema.fields().iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect();
        say!(
            "not looked for holes: no column counts its rows ({}); use --every, --longer-than or --sequence",
            columns.join(", ")
        )?;
        return Ok(missing);
    };
    let keys = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
    say!(
        "{} in {} rows of {}{keys}, by the rule of {described}; {} rows twice",
        crate::render::count(found.holes.len(), "hole"),
        thousands(found.rows),
        crate::render::count(found.keys, "key"),
        thousands(found.duplicates),
    )?;
    if !found.holes.is_empty() {
        say!("{}", holes_table(&found.holes, &by))?;
        if found.holes.len() > LISTED_MAX {
            say!("… and {} more: --json has them all", found.holes.len() - LISTED_MAX)?;
        }
    }
    Ok(missing)
}

fn holes_table(holes: &[Hole], by: &[String]) -> comfy_table::Table {
    let mut header: Vec<&str> = by.iter().map(String::as_str).collect();
    header.extend(["after", "before", "silence", "missing"]);
    let mut shown = table(&header, &[by.len() + 2]);
    for hole in holes.iter().take(LISTED_MAX) {
        let mut row = hole.key.clone();
        let missing = match hole.numbers {
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first} to {last}"),
            None => String::new(),
        };
        row.extend([
            time(hole.from),
            time(hole.to),
            Span::from_ns(hole.to.saturating_sub(hole.from)).to_string(),
            missing,
        ]);
        shown.add_row(row);
    }
    shown
}
