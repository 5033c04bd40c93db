//! Venues on the command line.

use std::path::Path;

use anyhow::{Context, anyhow};
use tidemill_connectors::backfill::binance::{Data, Interval, Market};
use tidemill_connectors::backfill::ranges::{Span, parse_time};
use tidemill_connectors::backfill::venues::{Venue, VenueHistory, Wanted};
use tidemill_connectors::backfill::zip_dump::{self, ZipHistory};
use tidemill_engine::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::{Chosen, Into, Times};

/// Which symbols, when, from where.
#[derive(Clone, Debug, clap::Args)]
pub struct Of {
    /// Symbols as the venue writes them, with commas between
    #[arg(long, value_delimiter = ',', required = true, value_name = "SYMBOLS")]
    symbol: Vec<String>,
    #[command(flatten)]
    times: Times,
    /// Requests a second at most; default: by the venue's limits
    #[arg(long)]
    rate: Option<f64>,
    /// Another address of the REST API
    #[arg(long, value_name = "URL")]
    rest_url: Option<String>,
    #[command(flatten)]
    into: Into,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum MarketArg {
    /// The spot market.
    Spot,
    /// USD-margined futures.
    Usdm,
}

impl From<MarketArg> for Market {
    fn from(market: MarketArg) -> Self {
        match market {
            MarketArg::Spot => Self::Spot,
            MarketArg::Usdm => Self::Usdm,
        }
    }
}

#[derive(Debug, clap::Subcommand)]
pub enum Binance {
    /// Bars of an interval; times are those of their ends
    Klines {
        /// Spot or futures
        #[arg(long, value_enum, default_value = "spot")]
        market: MarketArg,
        /// 1s, 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, 1d, 3d, 1w or 1M
        #[arg(long, default_value = "1m")]
        interval: Interval,
        #[command(flatten)]
        of: Of,
    },
    /// Aggregate trades: one a taker order and price
    AggTrades {
        /// Spot or futures
        #[arg(long, value_enum, default_value = "spot")]
        market: MarketArg,
        #[command(flatten)]
        of: Of,
    },
    /// Every trade; futures need an API key in BINANCE_API_KEY
    Trades {
        /// Spot or futures
        #[arg(long, value_enum, default_value = "spot")]
        market: MarketArg,
        #[command(flatten)]
        of: Of,
    },
    /// The public dumps of data.binance.vision: zip files a day or month
    Dump {
        /// A folder, glob or object storage URL of zip files; or https://data.binance.vision
        #[arg(long)]
        from_path: String,
        /// Spot or futures; default: by the path
        #[arg(long, value_enum)]
        market: Option<MarketArg>,
        /// trades, aggTrades, or an interval of klines such as 1m
        #[arg(long, value_parser = dump_data)]
        data: Option<Data>,
        /// Symbols; default: all that are there
        #[arg(long, value_delimiter = ',')]
        symbol: Vec<String>,
        /// From this time on
        #[arg(long, value_parser = parse_time)]
        from: Option<i64>,
        /// Up to this time, exclusive
        #[arg(long, value_parser = parse_time)]
        to: Option<i64>,
        /// Monthly files of an https address
        #[arg(long)]
        monthly: bool,
        #[command(flatten)]
        into: Into,
    },
}

fn dump_data(text: &str) -> Result<Data, String> {
    zip_dump::data(text).ok_or_else(|| format!("`{text}` is none of trades, aggTrades, 1m, 1h, …"))
}

#[derive(Debug, clap::Subcommand)]
pub enum Coinbase {
    /// Every trade
    Trades(Of),
}

#[derive(Debug, clap::Subcommand)]
pub enum Kraken {
    /// Every trade
    Trades(Of),
}

impl Binance {
    pub async fn chosen(self, base: &Path, stop: &CancellationToken) -> anyhow::Result<Chosen> {
        let (market, data, of) = match self {
            Self::Klines { market, interval, of } => (market, Data::Klines(interval), of),
            Self::AggTrades { market, of } => (market, Data::AggTrades, of),
            Self::Trades { market, of } => (market, Data::Trades, of),
            Self::Dump { from_path, market, data, symbol, from, to, monthly, into } => {
                let span = (from.is_some() || to.is_some())
                    .then(|| Span::new(from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX)));
                let wanted = zip_dump::Wanted {
                    path: from_path,
                    market: market.map(Market::from),
                    data,
                    symbols: symbol,
                    span,
                    monthly,
                };
                let history = ZipHistory::new(wanted, base).await.map_err(|e| anyhow!("--from-path: {e}"))?;
                let dataset = history.dataset();
                return Ok(Chosen { history: Box::new(history), into, dataset, stop: stop.clone() });
            }
        };
        of.chosen(Venue::Binance(market.into(), data), stop)
    }
}

impl Coinbase {
    pub fn chosen(self, stop: &CancellationToken) -> anyhow::Result<Chosen> {
        let Self::Trades(of) = self;
        of.chosen(Venue::Coinbase(Default::default()), stop)
    }
}

impl Kraken {
    pub fn chosen(self, stop: &CancellationToken) -> anyhow::Result<Chosen> {
        let Self::Trades(of) = self;
        of.chosen(Venue::Kraken, stop)
    }
}

impl Of {
    fn chosen(self, venue: Venue, stop: &CancellationToken) -> anyhow::Result<Chosen> {
        let dataset = venue.dataset();
        let key = std::env::var("BINANCE_API_KEY").ok().filter(|_| matches!(venue, Venue::Binance(..)));
        let wanted = Wanted {
            venue,
            symbols: self.symbol,
            span: self.times.span()?,
            rest_url: self.rest_url,
            per_second: self.rate,
            secret_header: key.map(|key| ("x-mbx-apikey".to_owned(), key)),
        };
        let history = VenueHistory::new(wanted, Clock::System, stop.clone()).map_err(|e| anyhow!(e));
        let history = history.context("cannot begin")?;
        Ok(Chosen { history: Box::new(history), into: self.into, dataset, stop: stop.clone() })
    }
}
