//! Files on the command line.

use std::path::Path;

use anyhow::anyhow;
use tidemill_connectors::backfill::csv_file::Dialect;
use tidemill_connectors::backfill::files::{FileHistory, Kind};
use tidemill_connectors::backfill::mapping::{self, Options};
use tidemill_connectors::backfill::text::Unit;
use tidemill_engine::duration::Span;
use tokio_util::sync::CancellationToken;

use super::{Chosen, Into};

/// What the columns are.
#[derive(Clone, Debug, clap::Args)]
pub struct Columns {
    /// Files, folders, globs, or URLs of object storage
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// The columns: trade, quote, bar, or 'ts: timestamp, price: f64?'
    #[arg(long)]
    schema: Option<String>,
    /// Where columns come from: price=Price,ts=Date:%d/%m/%Y (#2: the second column)
    #[arg(long = "map", value_name = "COLUMN=SOURCE[:FORMAT],…")]
    maps: Vec<String>,
    /// The value of the column symbol, where files have none
    #[arg(long)]
    symbol: Option<String>,
    /// Unit of times that are numbers: s, ms, us, ns; auto: by their size
    #[arg(long, default_value = "auto")]
    time_unit: Unit,
    /// The files' times are starts of bars of this length; ts becomes their end
    #[arg(long, value_name = "SPAN")]
    every: Option<Span>,
    /// A whole-number column that counts by one per symbol: holes in it are gaps
    #[arg(long, value_name = "COLUMN")]
    ids: Option<String>,
    #[command(flatten)]
    into: Into,
}

#[derive(Debug, clap::Args)]
pub struct Csv {
    #[command(flatten)]
    columns: Columns,
    /// The first line holds values, not names
    #[arg(long)]
    no_header: bool,
    /// The character between values; tab: \t
    #[arg(long, default_value = ",")]
    delimiter: String,
}

#[derive(Debug, clap::Args)]
pub struct Jsonl {
    #[command(flatten)]
    columns: Columns,
}

#[derive(Debug, clap::Args)]
pub struct Parquet {
    #[command(flatten)]
    columns: Columns,
}

#[derive(Debug, clap::Args)]
pub struct Yahoo {
    #[command(flatten)]
    columns: Columns,
}

impl Csv {
    pub async fn chosen(self, base: &Path, stop: &CancellationToken) -> anyhow::Result<Chosen> {
        let delimiter = match self.delimiter.as_bytes() {
            b"\\t" | b"\t" => b'\t',
            [one] if one.is_ascii() && !matches!(one, b'"' | b'\n' | b'\r') => *one,
            _ => return Err(anyhow!("--delimiter: `{}` cannot stand between values", self.delimiter)),
        };
        let dialect = Dialect { header: !self.no_header, delimiter };
        self.columns.chosen(Kind::Csv(dialect), base, stop).await
    }
}

impl Jsonl {
    pub async fn chosen(self, base: &Path, stop: &CancellationToken) -> anyhow::Result<Chosen> {
        self.columns.chosen(Kind::Jsonl, base, stop).await
    }
}

impl Parquet {
    pub async fn chosen(self, base: &Path, stop: &CancellationToken) -> anyhow::Result<Chosen> {
        self.columns.chosen(Kind::Parquet, base, stop).await
    }
}

impl Yahoo {
    pub async fn chosen(self, base: &Path, stop: &CancellationToken) -> anyhow::Result<Chosen> {
        self.columns.chosen(Kind::Yahoo, base, stop).await
    }
}

impl Columns {
    async fn chosen(self, kind: Kind, base: &Path, stop: &CancellationToken) -> anyhow::Result<Chosen> {
        let dataset = match (&kind, self.schema.as_deref()) {
            (Kind::Yahoo, _) => "bars_1d".to_owned(),
            (_, Some(name @ ("trade" | "quote" | "bar"))) => format!("{name}s"),
            _ => self.into.dataset.clone().ok_or_else(|| anyhow!("--dataset: name the dataset"))?,
        };
        let mut map = Vec::new();
        for text in &self.maps {
            map.extend(mapping::pairs(text).map_err(|e| anyhow!("--map: {e}"))?);
        }
        let schema = self.schema.as_deref().map(mapping::schema).transpose();
        let options = Options {
            schema: schema.map_err(|e| anyhow!("--schema: {e}"))?,
            map,
            symbol: self.symbol,
            unit: self.time_unit,
            every_ns: self.every.map(Span::ns).filter(|ns| *ns > 0),
            ids: self.ids,
        };
        let history = FileHistory::new(kind, &self.paths, base, options).await.map_err(|e| anyhow!(e))?;
        Ok(Chosen { history: Box::new(history), into: self.into, dataset, stop: stop.clone() })
    }
}
