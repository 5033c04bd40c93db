//! Binance's messages, as typed and borrowed structs.
//!
//! A feed reads one channel, so a frame is parsed straight into the type it should be; what does not
//! fit is looked at again, slowly, by [`super::refused`]. Text with numbers becomes numbers while it is read:
//! nothing is allocated but the lists of levels.
//!
//! Sources: [spot streams](https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams),
//! [USD-M futures streams](https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams).

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::venue::json;

pub mod depth;

pub use depth::{DepthSnapshot, DepthUpdate};

/// An event of a combined stream.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a, T> {
    /// The stream it came by, such as `btcusdt@aggTrade`.
    pub stream: &'a str,
    /// The event.
    pub data: T,
}

/// Reads a frame as an event of the expected type.
///
/// # Errors
/// The first line of what the parser has to say: lowercase, with the place.
pub fn event<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<Envelope<'a, T>, String> {
    json::read(frame)
}

/// A price or a size: a finite number, not negative, written as text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amount(pub f64);

/// A number that may be negative (a funding rate), written as text; empty text is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signed(pub Option<f64>);

/// A time of the venue as nanoseconds since the epoch.
///
/// Venue times are milliseconds, or microseconds where the connection asked for them (`timeUnit=MICROSECOND`). Which, the number
/// itself says: as milliseconds, 10^14 would be the year 5138; as microseconds it is 1973.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VenueTime(pub i64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Amount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number as text, such as \"0.0024\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
                match text.parse::<f64>() {
                    Ok(v) if v.is_finite() && (v > 0.0 || !text.starts_with('-')) => Ok(Amount(v)),
                    Ok(v) if v < 0.0 => Err(E::custom(format_args!("negative number `{text}`"))),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        d.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Signed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number as text, or empty text")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Signed, E> {
                match text.parse::<f64>() {
                    _ if text.is_empty() => Ok(Signed(None)),
                    Ok(v) if v.is_finite() => Ok(Signed(Some(v))),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        d.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for VenueTime {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        const MICROSECONDS_MIN: u64 = 100_000_000_000_000;
        let value = u64::deserialize(d)?;
        let scale = if value < MICROSECONDS_MIN { 1_000_000 } else { 1_000 };
        let ns = i64::try_from(value).ok().and_then(|v| v.checked_mul(scale));
        ns.map(Self).ok_or_else(|| D::Error::custom(format_args!("time {value} is out of range")))
    }
}

/// A trade of the `trade` stream.
#[derive(Debug, Deserialize)]
pub struct Trade<'a> {
    /// `trade`.
    pub e: &'a str,
    /// Symbol.
    pub s: &'a str,
    /// Trade id.
    pub t: i64,
    /// Price.
    pub p: Amount,
    /// Size.
    pub q: Amount,
    /// When it was made.
    #[serde(rename = "T")]
    pub at: VenueTime,
    /// Whether the buyer was the maker: then the taker sold.
    pub m: bool,
}

/// Trades of one taker order at one price, as the `aggTrade` stream gives them.
#[derive(Debug, Deserialize)]
pub struct AggTrade<'a> {
    /// `aggTrade`.
    pub e: &'a str,
    /// Symbol.
    pub s: &'a str,
    /// Aggregate trade id.
    pub a: i64,
    /// Price.
    pub p: Amount,
    /// Size.
    pub q: Amount,
    /// When they were made.
    #[serde(rename = "T")]
    pub at: VenueTime,
    /// Whether the buyer was the maker.
    pub m: bool,
}

/// The best bid and ask, of the `bookTicker` stream. Spot leaves out the type and the times.
#[derive(Debug, Deserialize)]
pub struct BookTicker<'a> {
    /// `bookTicker`, or nothing.
    #[serde(default, borrow)]
    pub e: Option<&'a str>,
    /// Order book update id.
    pub u: i64,
    /// Symbol.
    pub s: &'a str,
    /// Best bid.
    pub b: Amount,
    /// Its size.
    #[serde(rename = "B")]
    pub bid_size: Amount,
    /// Best ask.
    pub a: Amount,
    /// Its size.
    #[serde(rename = "A")]
    pub ask_size: Amount,
    /// When the book changed (futures).
    #[serde(default, rename = "T")]
    pub at: Option<VenueTime>,
}

/// A bar of the `kline_<interval>` stream.
#[derive(Debug, Deserialize)]
pub struct Kline<'a> {
    /// `kline`.
    pub e: &'a str,
    /// When it was sent.
    #[serde(rename = "E")]
    pub sent_at: VenueTime,
    /// Symbol.
    pub s: &'a str,
    /// The bar.
    pub k: Bar<'a>,
}

/// The bar within a [`Kline`].
#[derive(Debug, Deserialize)]
pub struct Bar<'a> {
    /// Start.
    #[serde(rename = "t")]
    pub start: VenueTime,
    /// Interval, such as `1m`.
    pub i: &'a str,
    /// Open.
    pub o: Amount,
    /// High.
    pub h: Amount,
    /// Low.
    pub l: Amount,
    /// Close.
    pub c: Amount,
    /// Volume in the base asset.
    pub v: Amount,
    /// Number of trades.
    pub n: i64,
    /// Whether it is closed.
    pub x: bool,
}

/// A 24 hour ticker of the `ticker` stream. Futures leave out the best bid and ask.
#[derive(Debug, Deserialize)]
pub struct Ticker<'a> {
    /// `24hrTicker`.
    pub e: &'a str,
    /// When it was sent.
    #[serde(rename = "E")]
    pub sent_at: VenueTime,
    /// Symbol.
    pub s: &'a str,
    /// Last price.
    pub c: Amount,
    /// Best bid.
    #[serde(default)]
    pub b: Option<Amount>,
    /// Best ask.
    #[serde(default)]
    pub a: Option<Amount>,
    /// Volume in the base asset.
    pub v: Amount,
}

/// Mark price and funding, of the `markPrice` stream.
#[derive(Debug, Deserialize)]
pub struct MarkPrice<'a> {
    /// `markPriceUpdate`.
    pub e: &'a str,
    /// When it was sent.
    #[serde(rename = "E")]
    pub sent_at: VenueTime,
    /// Symbol.
    pub s: &'a str,
    /// Mark price.
    pub p: Amount,
    /// Index price.
    #[serde(default)]
    pub i: Signed,
    /// Funding rate; empty for contracts that have none.
    #[serde(default)]
    pub r: Signed,
    /// When funding is next exchanged; 0 for contracts that have none.
    #[serde(rename = "T")]
    pub next_funding_at: VenueTime,
}

/// A liquidation, of the `forceOrder` stream: the last of a symbol within each second.
#[derive(Debug, Deserialize)]
pub struct ForceOrder<'a> {
    /// `forceOrder`.
    pub e: &'a str,
    /// The order.
    #[serde(borrow)]
    pub o: LiquidationOrder<'a>,
}

/// The order within a [`ForceOrder`].
#[derive(Debug, Deserialize)]
pub struct LiquidationOrder<'a> {
    /// Symbol.
    pub s: &'a str,
    /// `BUY` or `SELL`.
    #[serde(rename = "S")]
    pub side: &'a str,
    /// Original size.
    pub q: Amount,
    /// Price.
    pub p: Amount,
    /// Average price.
    pub ap: Amount,
    /// When it was made.
    #[serde(rename = "T")]
    pub at: VenueTime,
}

/// An element of the answer of `/api/v3/aggTrades` and `/fapi/v1/aggTrades`.
#[derive(Debug, Deserialize)]
pub struct RestAggTrade {
    /// Aggregate trade id.
    pub a: i64,
    /// Price.
    pub p: Amount,
    /// Size.
    pub q: Amount,
    /// When they were made.
    #[serde(rename = "T")]
    pub at: VenueTime,
    /// Whether the buyer was the maker.
    pub m: bool,
}

/// An element of the answer of `/api/v3/historicalTrades`.
#[derive(Debug, Deserialize)]
pub struct RestTrade {
    /// Trade id.
    pub id: i64,
    /// Price.
    pub price: Amount,
    /// Size.
    pub qty: Amount,
    /// When it was made.
    pub time: VenueTime,
    /// Whether the buyer was the maker.
    #[serde(rename = "isBuyerMaker")]
    pub is_buyer_maker: bool,
}
