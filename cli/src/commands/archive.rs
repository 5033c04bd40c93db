//! `tidemill archive`: what is in an archive, what is missing, and keeping house.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidemill_archive::{Catalog, Dataset};

/// Prints a line; a reader that has gone (`| head`) is an error that `main` knows.
macro_rules! say {
    ($($arg:tt)*) => {
        std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($arg)*)))
    };
}

mod compact;
mod describe;
mod expire;
mod gaps;
mod ls;

/// Looks into an archive, and keeps house in it
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Ls(ls::Args),
    Describe(describe::Args),
    Gaps(gaps::Args),
    Compact(compact::Args),
    Expire(expire::Args),
}

/// Which archive.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The archive's folder: a path, s3://, gs://, az:// or file://
    #[arg(value_name = "URL")]
    url: String,
    /// One dataset of it
    #[arg(value_name = "DATASET")]
    dataset: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

impl Place {
    fn catalog(&self) -> anyhow::Result<Catalog> {
        Ok(Catalog::open(&self.url, Path::new(""))?)
    }

    /// The dataset named, or all.
    async fn datasets(&self) -> anyhow::Result<Vec<Dataset>> {
        let catalog = self.catalog()?;
        if let Some(name) = &self.dataset {
            return Ok(vec![catalog.existing(name).await?]);
        }
        let mut all = Vec::new();
        for name in catalog.datasets().await? {
            all.push(catalog.dataset(&name)?);
        }
        // A wrong path must not look like an archive in order.
        if let Some(path) = tidemill_engine::storage::local_path(&self.url, Path::new(""))
            && all.is_empty()
            && !path.is_dir()
        {
            anyhow::bail!("there is no folder `{}`", path.display());
        }
        Ok(all)
    }
}

/// Runs a subcommand.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::block_on(async {
        match args.command {
            Command::Ls(args) => ls::run(args).await,
            Command::Describe(args) => describe::run(args).await,
            Command::Gaps(args) => gaps::run(args).await,
            Command::Compact(args) => compact::run(args).await,
            Command::Expire(args) => expire::run(args).await,
        }
    })?
}

/// A table without lines, numbers to the right.
fn table(header: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    for i in numbers {
        if let Some(column) = table.column_mut(*i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A bar over bytes, where somebody watches.
fn bar(bytes: u64, what: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), target).with_message(what.to_owned());
    let style =
        ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} to go");
    match style {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Nanoseconds as RFC 3339, as short as they are exact.
fn time(ns: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// `1,234,567`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the unit that fits.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Now, milliseconds since the epoch.
fn now_ms() -> i64 {
    tidemill_engine::clock::Clock::System.now_ns() / 1_000_000
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(super::thousands(n), text);
        }
        assert_eq!(super::time(1_381_152_600_000_000_000), "2013-10-07T13:30:00Z");
    }
}
