//! Kraken's WebSocket v2 messages, as typed and borrowed structs.
//!
//! Prices and sizes are JSON numbers here, and the checksum is over their digits: they are taken as text, never
//! through a float. Source: [Kraken's API reference](https://docs.kraken.com/api/docs/websocket-v2/book).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sonic_rs::LazyValue;
use tidemill_book::{Decimal, Level};
use tidemill_engine::json::time;

/// A message: of a channel, or the answer to a request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Envelope<'a> {
    /// Such as `book`.
    #[serde(borrow)]
    pub channel: Option<&'a str>,
    /// `snapshot` or `update`.
    #[serde(borrow, rename = "type")]
    pub kind: Option<&'a str>,
    /// What happened, by channel.
    #[serde(borrow)]
    pub data: Option<LazyValue<'a>>,
    /// Of `ohlc`: when it was sent.
    pub timestamp: Option<Rfc3339>,
    /// Of an answer: `subscribe`, `unsubscribe`, `pong`.
    #[serde(borrow)]
    pub method: Option<&'a str>,
    /// Whether the request was carried out.
    pub success: Option<bool>,
    /// Why not.
    #[serde(borrow)]
    pub error: Option<Cow<'a, str>>,
    /// Of a refusal.
    #[serde(borrow)]
    pub symbol: Option<Cow<'a, str>>,
}

/// Data of the `book` channel.
#[derive(Debug, Deserialize)]
pub struct Book<'a> {
    /// Pair.
    pub symbol: &'a str,
    /// Changed bids, or all of them.
    #[serde(default)]
    pub bids: Levels,
    /// Changed asks, or all of them.
    #[serde(default)]
    pub asks: Levels,
    /// CRC32 over the ten best of both sides.
    pub checksum: u32,
    /// When it happened; snapshots may have none.
    #[serde(default)]
    pub timestamp: Option<Rfc3339>,
}

/// Data of the `trade` channel.
#[derive(Debug, Deserialize)]
pub struct Trade<'a> {
    /// Pair.
    pub symbol: &'a str,
    /// `buy` or `sell`: the taker's.
    pub side: &'a str,
    /// Price.
    pub price: Amount,
    /// Size.
    pub qty: Amount,
    /// Goes up by one with every trade of the pair.
    pub trade_id: i64,
    /// When it was made.
    pub timestamp: Rfc3339,
}

/// Data of the `ticker` channel.
#[derive(Debug, Deserialize)]
pub struct Ticker<'a> {
    /// Pair.
    pub symbol: &'a str,
    /// Last price.
    pub last: Amount,
    /// Best bid.
    #[serde(default)]
    pub bid: Option<Amount>,
    /// Best ask.
    #[serde(default)]
    pub ask: Option<Amount>,
    /// Volume of 24 hours in the base.
    #[serde(default)]
    pub volume: Option<Amount>,
    /// When it was made.
    #[serde(default)]
    pub timestamp: Option<Rfc3339>,
}

/// Data of the `ohlc` channel.
#[derive(Debug, Deserialize)]
pub struct Ohlc<'a> {
    /// Pair.
    pub symbol: &'a str,
    /// Open.
    pub open: Amount,
    /// High.
    pub high: Amount,
    /// Low.
    pub low: Amount,
    /// Close.
    pub close: Amount,
    /// Volume in the base.
    pub volume: Amount,
    /// Number of trades.
    pub trades: i64,
    /// Its start.
    pub interval_begin: Rfc3339,
}

/// Data of the `instrument` channel.
#[derive(Debug, Deserialize)]
pub struct Instruments<'a> {
    /// Every pair.
    #[serde(borrow, default)]
    pub pairs: Vec<Pair<'a>>,
}

/// How a pair is written.
#[derive(Debug, Deserialize)]
pub struct Pair<'a> {
    /// Its name.
    #[serde(borrow)]
    pub symbol: Cow<'a, str>,
    /// Decimals of its prices.
    pub price_precision: u8,
    /// Decimals of its sizes.
    pub qty_precision: u8,
}

/// Data of the `status` channel.
#[derive(Debug, Deserialize)]
pub struct Status<'a> {
    /// `online`, `maintenance`, `cancel_only`, `post_only`.
    #[serde(borrow)]
    pub system: Cow<'a, str>,
}

/// A decimal exactly as it was sent, as a number or as text.
#[derive(Clone, Copy, Debug)]
pub struct Exact(pub Decimal);

/// A price or a size: finite, not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amount(pub f64);

/// A time as nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339(pub i64);

/// `[{"price": …, "qty": …}, …]`.
#[derive(Debug, Default)]
pub struct Levels(pub Vec<Level>);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = LazyValue::deserialize(d)?;
        let text = raw.as_raw_str();
        let digits = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
        Decimal::parse(digits.as_bytes()).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(d)?;
        if value.is_finite() && !value.is_sign_negative() {
            return Ok(Self(value));
        }
        Err(D::Error::custom(format_args!("negative number {value}")))
    }
}

impl<'de> Deserialize<'de> for Rfc3339 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(d)?;
        time::parse_rfc3339(text).map(Self).ok_or_else(|| {
            D::Error::custom(format_args!("`{text}` is not a time such as 2024-01-02T03:04:05.678Z"))
        })
    }
}

impl<'de> Deserialize<'de> for Levels {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            price: Exact,
            qty: Exact,
        }
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Levels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of levels with price and qty")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Levels, A::Error> {
                let mut levels = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(4096));
                while let Some(Wire { price, qty }) = seq.next_element()? {
                    levels.push(Level { price: price.0, size: qty.0 });
                }
                Ok(Levels(levels))
            }
        }
        d.deserialize_seq(List)
    }
}
