//! Binance's public dumps, <https://github.com/binance/binance-public-data>: a zip a symbol and day (or month) with
//! one CSV: `BTCUSDT-trades-2024-01-02.zip`, `BTCUSDT-aggTrades-2024-01.zip`, `BTCUSDT-1m-2024-01-02.zip`.
//!
//! Futures files have a header, spot files have none; times are milliseconds, in spot files since 2025 microseconds
//! (told by their size). A `.CHECKSUM` beside a file is verified. Ranges have the names that REST gives them, so what
//! a dump has brought REST leaves out, and the other way round.

use std::io::Read;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{Days, Months, NaiveDate};
use futures::StreamExt as _;
use object_store::ObjectStoreExt as _;
use sha2::{Digest, Sha256};
use tidemill_archive::Covered;

use super::binance::{Data, Interval, Market};
use super::columns;
use super::continuity::Rule;
use super::files::{Local, blocking, local};
use super::ranges::{Cut, Span};
use super::zip_rows::Parser;
use super::{Failure, History, Rows, Work};
use crate::files::{self, FileRef, Place};

/// Tries of a download.
const TRIES_MAX: u32 = 4;

/// What the user wants of the dumps.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// A folder, glob or object storage URL; or an `http(s)://` address laid out as data.binance.vision is.
    pub path: String,
    /// Spot or futures; `None`: told by the path.
    pub market: Option<Market>,
    /// Which data; needed for HTTP, and where a folder has several.
    pub data: Option<Data>,
    /// Which symbols; needed for HTTP; none: all that are there.
    pub symbols: Vec<String>,
    /// From when to when; needed for HTTP.
    pub span: Option<Span>,
    /// Monthly files of an HTTP address, not daily ones.
    pub monthly: bool,
}

/// What a dump's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    symbol: String,
    data: Data,
    span: Span,
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next()?.strip_suffix(".zip")?;
        let (head, from, to) = [10, 7].into_iter().find_map(|n| {
            let (head, date) = name.split_at_checked(name.len().checked_sub(n)?)?;
            let (from, to) = match n {
                10 => {
                    let day = date.parse::<NaiveDate>().ok()?;
                    (day, day.checked_add_days(Days::new(1))?)
                }
                _ => {
                    let first = format!("{date}-01").parse::<NaiveDate>().ok()?;
                    (first, first.checked_add_months(Months::new(1))?)
                }
            };
            Some((head.strip_suffix('-')?, from, to))
        })?;
        let (symbol, kind) = head.rsplit_once('-')?;
        let data = data(kind)?;
        Some(Self { symbol: symbol.to_owned(), span: span(&data, from, to)?, data })
    }
}

/// Data by the name that dumps have for it.
pub fn data(kind: &str) -> Option<Data> {
    Some(match kind {
        "trades" => Data::Trades,
        "aggTrades" | "agg-trades" => Data::AggTrades,
        interval => Data::Klines(interval.parse().ok()?),
    })
}

/// The event times in the file of such dates: a bar's is its end.
fn span(data: &Data, from: NaiveDate, to: NaiveDate) -> Option<Span> {
    let shift = match data {
        Data::Klines(Interval { ns, .. }) => (*ns)?,
        Data::AggTrades | Data::Trades => 0,
    };
    let ns =
        |d: NaiveDate| d.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_nanos_opt()?.checked_add(shift);
    Some(Span::new(ns(from)?, ns(to)?))
}

/// A dump.
struct Dump {
    file: Where,
    shown: String,
    size: u64,
    name: Name,
}

enum Where {
    Listed(FileRef),
    Http(String),
}

/// Dumps of one kind of data.
pub struct ZipHistory {
    market: Market,
    data: Data,
    dumps: Vec<Dump>,
    client: reqwest::Client,
}

impl ZipHistory {
    /// Finds the dumps.
    pub async fn new(wanted: Wanted, base: &Path) -> Result<Self, String> {
        let market = wanted.market.unwrap_or(match wanted.path.contains("futures/um") {
            true => Market::Usdm,
            false => Market::Spot,
        });
        let http = wanted.path.starts_with("http://") || wanted.path.starts_with("https://");
        let mut dumps = if http { addresses(&wanted, market)? } else { listed(&wanted, base).await? };
        let first = dumps.first().map(|d| d.name.data.clone());
        let data = wanted.data.or(first).ok_or("no dump is there")?;
        if let Some(other) = dumps.iter().find(|d| d.name.data != data) {
            return Err(format!(
                "`{}` is of other data than `{}`: choose with --data trades, --data aggTrades or --data 1m",
                other.shown, dumps[0].shown
            ));
        }
        dumps.sort_by(|a, b| (&a.name.symbol, a.name.span).cmp(&(&b.name.symbol, b.name.span)));
        let client = reqwest::Client::builder()
            .connect_timeout(std::time::Duration::from_secs(10))
            .read_timeout(std::time::Duration::from_secs(60))
            .build()
            .map_err(|e| format!("cannot make an HTTP client: {e}"))?;
        Ok(Self { market, data, dumps, client })
    }

    /// The dataset its rows go to where the user names none.
    pub fn dataset(&self) -> String {
        self.data.dataset()
    }

    /// The file on disk, its checksum verified where there is one.
    async fn fetched(&self, dump: &Dump) -> Result<Local, Failure> {
        let (local, checksum) = match &dump.file {
            Where::Listed(file) => (local(file).await?, listed_checksum(file).await?),
            Where::Http(url) => {
                let checksum = self.get(&format!("{url}.CHECKSUM")).await?;
                let checksum = match checksum {
                    Some(response) => Some(response.text().await.map_err(|e| self.cut(url, &e))?),
                    None => None,
                };
                (self.download(url).await?, checksum)
            }
        };
        let Some(checksum) = checksum else { return Ok(local) };
        let expected = checksum.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        let path = local.path.clone();
        let hashed = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
            let mut file = std::fs::File::open(path)?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 1 << 17];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    n => hash.update(&buffer[..n]),
                }
            }
            Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
        });
        let found = hashed.await.map_err(std::io::Error::other).and_then(|h| h);
        let found = found.map_err(|e| Failure::Range(format!("cannot read `{}`: {e}", dump.shown)))?;
        if found != expected {
            return Err(Failure::Range(format!(
                "`{}` is damaged: its SHA-256 is {found}, its .CHECKSUM says {expected}: fetch it again",
                dump.shown
            )));
        }
        Ok(local)
    }

    fn cut(&self, url: &str, error: &reqwest::Error) -> Failure {
        Failure::Range(format!("GET {url}: {error}"))
    }

    /// A response; `None` where the server has no such file.
    async fn get(&self, url: &str) -> Result<Option<reqwest::Response>, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let reason = match self.client.get(url).send().await {
                Ok(response) if response.status().is_success() => return Ok(Some(response)),
                Ok(response) if response.status().as_u16() == 404 => return Ok(None),
                Ok(response) if !response.status().is_server_error() && response.status().as_u16() != 429 => {
                    return Err(Failure::Range(format!("GET {url}: HTTP {}", response.status().as_u16())));
                }
                Ok(response) => format!("HTTP {}", response.status().as_u16()),
                Err(error) => error.to_string(),
            };
            if tries == TRIES_MAX {
                return Err(Failure::Range(format!("GET {url}: {reason}; gave up after {tries} tries")));
            }
            tokio::time::sleep(std::time::Duration::from_millis(500 << tries)).await;
        }
    }

    async fn download(&self, url: &str) -> Result<Local, Failure> {
        let Some(response) = self.get(url).await? else {
            return Err(Failure::Range(format!(
                "GET {url}: there is no such file (HTTP 404): not published yet, or the symbol was not traded then"
            )));
        };
        let local = Local::copy();
        let fail = |e: std::io::Error| Failure::Range(format!("cannot keep `{url}`: {e}"));
        let mut file = tokio::fs::File::create(&local.path).await.map_err(fail)?;
        let mut parts = response.bytes_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|e| self.cut(url, &e))?;
            tokio::io::AsyncWriteExt::write_all(&mut file, &part).await.map_err(fail)?;
        }
        tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(fail)?;
        Ok(local)
    }
}

/// Dumps in a folder or object store.
async fn listed(wanted: &Wanted, base: &Path) -> Result<Vec<Dump>, String> {
    let mut dumps = Vec::new();
    for file in files::list(&wanted.path, base, &[".zip"]).await? {
        let Some(name) = Name::parse(&file.name) else {
            tracing::warn!(
                "`{}` is passed over: its name is not that of a dump (SYMBOL-trades-2024-01-02.zip)",
                file.display
            );
            continue;
        };
        let chosen = (wanted.symbols.is_empty() || wanted.symbols.contains(&name.symbol))
            && wanted.data.as_ref().is_none_or(|d| *d == name.data)
            && wanted.span.is_none_or(|s| !s.overlap(name.span).is_empty());
        if chosen {
            dumps.push(Dump {
                shown: file.display.clone(),
                size: file.size,
                file: Where::Listed(file),
                name,
            });
        }
    }
    if dumps.is_empty() {
        Err(format!("no dump that was asked for is in `{}`", wanted.path))
    } else {
        Ok(dumps)
    }
}

/// Dumps at an HTTP address, which cannot be listed: one a symbol and day or month.
fn addresses(wanted: &Wanted, market: Market) -> Result<Vec<Dump>, String> {
    let (Some(data), Some(span), false) = (&wanted.data, wanted.span, wanted.symbols.is_empty()) else {
        return Err("an HTTP address cannot be listed: say --data, --symbol, --from and --to".into());
    };
    if span.to == i64::MAX || span.is_empty() {
        return Err("say --to: an HTTP address cannot be asked for its newest file".into());
    }
    let (kind, folder) = match data {
        Data::Trades => ("trades".to_owned(), "trades".to_owned()),
        Data::AggTrades => ("aggTrades".to_owned(), "aggTrades".to_owned()),
        Data::Klines(interval) => (interval.name.clone(), "klines".to_owned()),
    };
    let market = if market == Market::Spot { "spot" } else { "futures/um" };
    let mut dumps = Vec::new();
    for symbol in &wanted.symbols {
        let inner = if folder == "klines" { format!("{symbol}/{kind}") } else { symbol.clone() };
        for piece in super::ranges::pieces(span, if wanted.monthly { Cut::Months } else { Cut::Days }) {
            let format = if wanted.monthly { "%Y-%m" } else { "%Y-%m-%d" };
            let date = chrono::DateTime::from_timestamp_nanos(piece.from).format(format);
            let period = if wanted.monthly { "monthly" } else { "daily" };
            let base = wanted.path.trim_end_matches('/');
            let url = format!("{base}/data/{market}/{period}/{folder}/{inner}/{symbol}-{kind}-{date}.zip");
            let name = Name::parse(&url).ok_or_else(|| format!("`{url}` is no name of a dump"))?;
            dumps.push(Dump { shown: url.clone(), size: name.span.length(), file: Where::Http(url), name });
        }
    }
    Ok(dumps)
}

/// What the `.CHECKSUM` beside a file says, if there is one.
async fn listed_checksum(file: &FileRef) -> Result<Option<String>, Failure> {
    let fail = |e: String| Failure::Range(format!("cannot read `{}.CHECKSUM`: {e}", file.display));
    match &file.place {
        Place::Local(path) => {
            let mut beside = path.clone().into_os_string();
            beside.push(".CHECKSUM");
            match tokio::fs::read_to_string(&beside).await {
                Ok(text) => Ok(Some(text)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(fail(e.to_string())),
            }
        }
        Place::Remote(store, path) => {
            let beside = object_store::path::Path::from(format!("{path}.CHECKSUM"));
            match store.get(&beside).await {
                Ok(found) => {
                    let bytes = found.bytes().await.map_err(|e| fail(e.to_string()))?;
                    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(e) => Err(fail(e.to_string())),
            }
        }
    }
}

#[async_trait]
impl History for ZipHistory {
    fn columns(&self) -> SchemaRef {
        match self.data {
            Data::Klines(_) => columns::bars_schema(),
            Data::AggTrades | Data::Trades => columns::trades_schema(),
        }
    }

    fn partition_by(&self) -> Vec<String> {
        let mut folders = vec!["venue".to_owned(), "symbol".to_owned()];
        if !matches!(&self.data, Data::Klines(i) if i.ns.is_none_or(|ns| ns >= 60_000_000_000)) {
            folders.push("date".into());
        }
        folders
    }

    fn rule(&self) -> Rule {
        self.data.rule()
    }

    async fn plan(&self, _there: &[Covered], _force: bool) -> Result<Vec<Work>, Failure> {
        let work = self.dumps.iter().enumerate().map(|(index, dump)| Work {
            source: self.data.source(self.market),
            key: vec![("symbol".into(), dump.name.symbol.clone())],
            label: dump.name.symbol.clone(),
            span: dump.name.span,
            cut: Cut::Whole,
            size: dump.size.max(1),
            index,
        });
        Ok(work.collect())
    }

    async fn fetch(&self, work: &Work, piece: Span, out: &mut Rows) -> Result<(), Failure> {
        let dump = &self.dumps[work.index];
        let local = self.fetched(dump).await?;
        let (shown, size, data) = (dump.shown.clone(), dump.size, self.data.clone());
        let (venue, symbol) = (self.market.venue(), dump.name.symbol.clone());
        blocking(out, move |out| {
            let damaged = |e: &dyn std::fmt::Display| Failure::Range(format!("`{shown}` is damaged: {e}"));
            let file = std::fs::File::open(&local.path)
                .map_err(|e| Failure::Range(format!("cannot open `{shown}`: {e}")))?;
            let mut archive = zip::ZipArchive::new(std::io::BufReader::with_capacity(1 << 17, file))
                .map_err(|e| damaged(&e))?;
            if archive.len() != 1 {
                return Err(damaged(&format!("it holds {} files, one is expected", archive.len())));
            }
            let entry = archive.by_index(0).map_err(|e| damaged(&e))?;
            let total = entry.size().max(1);
            let parser = Parser { shown: &shown, venue, symbol: &symbol, piece, size, total };
            match &data {
                Data::Klines(interval) => parser.bars(entry, interval, out),
                Data::AggTrades => parser.trades(entry, true, out),
                Data::Trades => parser.trades(entry, false, out),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_symbol_data_and_dates() {
        let day = super::super::ranges::DAY_NS;
        let name = Name::parse("data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-1970-01-03.zip").unwrap();
        assert_eq!((name.symbol.as_str(), &name.data), ("BTCUSDT", &Data::Trades));
        assert_eq!(name.span, Span::new(2 * day, 3 * day));
        let month = Name::parse("BTCUSDT_240329-aggTrades-1970-02.zip").unwrap();
        assert_eq!((month.symbol.as_str(), month.span), ("BTCUSDT_240329", Span::new(31 * day, 59 * day)));
        // Bars stand at their ends.
        let minute = 60_000_000_000;
        let bars = Name::parse("X-1m-1970-01-01.zip").unwrap();
        assert_eq!(bars.span, Span::new(minute, day + minute));
        for bad in
            ["BTCUSDT-trades.zip", "BTCUSDT-depth-1970-01-01.zip", "x-trades-1970-13-01.zip", "a.zip", ""]
        {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
    }
}
