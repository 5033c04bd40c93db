//! Coinbase's messages, as typed and borrowed structs: Advanced Trade, and the older Exchange ("pro") feed.
//!
//! Sources: [Advanced Trade channels](https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels),
//! [Exchange channels](https://docs.cdp.coinbase.com/exchange/websocket-feed/channels).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sonic_rs::LazyValue;
use tidemill_book::{Decimal, Level};
use tidemill_engine::json::time;

/// What every message of Advanced Trade has; an error frame has `type` and `message` instead.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Envelope<'a> {
    /// Such as `l2_data`; none in an error frame.
    #[serde(borrow)]
    pub channel: Option<&'a str>,
    /// When it was sent.
    pub timestamp: Option<Rfc3339>,
    /// Goes up by one with every message of the connection, over all channels; from 0.
    pub sequence_num: Option<u64>,
    /// What happened, by channel.
    #[serde(borrow)]
    pub events: Option<LazyValue<'a>>,
    /// `error`.
    #[serde(borrow, rename = "type")]
    pub kind: Option<&'a str>,
    /// What is wrong.
    #[serde(borrow)]
    pub message: Option<Cow<'a, str>>,
}

/// An event of the `l2_data` channel.
#[derive(Debug, Deserialize)]
pub struct BookEvent<'a> {
    /// `snapshot` or `update`.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// Product.
    pub product_id: &'a str,
    /// Levels of both sides.
    pub updates: Vec<BookUpdate<'a>>,
}

/// A level of a [`BookEvent`].
#[derive(Debug, Deserialize)]
pub struct BookUpdate<'a> {
    /// `bid` or `offer`.
    pub side: &'a str,
    /// When it happened; 1970 in snapshots.
    #[serde(default)]
    pub event_time: Option<Rfc3339>,
    /// Price.
    pub price_level: Exact,
    /// What rests there now; 0 removes the level.
    pub new_quantity: Exact,
}

/// An event of the `market_trades`, `ticker`, `ticker_batch` or `candles` channel: its elements are read one by one, so
/// that a bad one loses none beside it.
#[derive(Debug, Deserialize)]
pub struct Each<'a> {
    /// Trades and bars newest first.
    #[serde(borrow, rename = "trades", alias = "tickers", alias = "candles")]
    pub list: Vec<LazyValue<'a>>,
}

/// A trade of Advanced Trade.
#[derive(Debug, Deserialize)]
pub struct Trade<'a> {
    /// Product.
    pub product_id: &'a str,
    /// Goes up by one with every trade of the product.
    pub trade_id: Number,
    /// Price.
    pub price: Amount,
    /// Size.
    pub size: Amount,
    /// `BUY` or `SELL`: what the maker did.
    pub side: &'a str,
    /// When it was made.
    pub time: Rfc3339,
}

/// A ticker of Advanced Trade.
#[derive(Debug, Deserialize)]
pub struct Ticker<'a> {
    /// Product.
    pub product_id: &'a str,
    /// Last price.
    pub price: Amount,
    /// Volume of 24 hours in the base asset.
    #[serde(default)]
    pub volume_24_h: MaybeAmount,
    /// Best bid.
    #[serde(default)]
    pub best_bid: MaybeAmount,
    /// Best ask.
    #[serde(default)]
    pub best_ask: MaybeAmount,
}

/// A bar of five minutes.
#[derive(Debug, Deserialize)]
pub struct Candle<'a> {
    /// Product.
    pub product_id: &'a str,
    /// Its start, in seconds.
    pub start: Number,
    /// Open.
    pub open: Amount,
    /// High.
    pub high: Amount,
    /// Low.
    pub low: Amount,
    /// Close.
    pub close: Amount,
    /// Volume in the base asset.
    pub volume: Amount,
}

/// An event of the `heartbeats` channel.
#[derive(Debug, Deserialize)]
pub struct Heartbeat {
    /// Goes up by one with every heartbeat.
    pub heartbeat_counter: Number,
}

/// An event of the `subscriptions` channel: products by channel.
#[derive(Debug, Deserialize)]
pub struct Subscriptions<'a> {
    /// Products by channel.
    #[serde(borrow)]
    pub subscriptions: BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>,
}

/// A message of the Exchange feed: every type's fields, each where it belongs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Message<'a> {
    /// `snapshot`, `l2update`, `match`, …
    #[serde(borrow, rename = "type")]
    pub kind: Option<&'a str>,
    /// Product.
    #[serde(borrow)]
    pub product_id: Option<&'a str>,
    /// When it happened.
    pub time: Option<Rfc3339>,
    /// Changed levels of an `l2update`.
    pub changes: Changes,
    /// Bids of a snapshot.
    pub bids: Levels,
    /// Asks of a snapshot.
    pub asks: Levels,
    /// Of a match or a ticker.
    pub trade_id: Option<i64>,
    /// Of a heartbeat: the product's last trade.
    pub last_trade_id: Option<i64>,
    /// Of a match: what the maker did; of a ticker: what the taker did.
    #[serde(borrow)]
    pub side: Option<&'a str>,
    /// Of a match or a ticker.
    pub price: MaybeAmount,
    /// Of a match.
    pub size: MaybeAmount,
    /// Of a ticker.
    pub best_bid: MaybeAmount,
    /// Of a ticker.
    pub best_ask: MaybeAmount,
    /// Of a ticker.
    pub volume_24h: MaybeAmount,
    /// Of `subscriptions`.
    #[serde(borrow)]
    pub channels: Option<LazyValue<'a>>,
    /// Of an error.
    #[serde(borrow)]
    pub message: Option<Cow<'a, str>>,
    /// Of an error.
    #[serde(borrow)]
    pub reason: Option<Cow<'a, str>>,
}

/// A channel of a `subscriptions` message of the Exchange feed.
#[derive(Debug, Deserialize)]
pub struct Channel<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its products.
    #[serde(borrow, default)]
    pub product_ids: Vec<Cow<'a, str>>,
}

/// A decimal exactly as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Exact(pub Decimal);

/// A price or a size: a finite number that is not negative, written as text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amount(pub f64);

/// An [`Amount`] that may be missing, null or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MaybeAmount(pub Option<f64>);

/// An integer, written as a number or as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub i64);

/// A time as nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339(pub i64);

/// `[[price, size], …]`.
#[derive(Debug, Default)]
pub struct Levels(pub Vec<Level>);

/// `[[side, price, size], …]`, by side.
#[derive(Debug, Default)]
pub struct Changes {
    /// `buy`.
    pub bids: Vec<Level>,
    /// `sell`.
    pub asks: Vec<Level>,
}

macro_rules! from_text {
    ($type:ty, $expecting:literal, $read:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        let read: fn(&str) -> Option<$type> = $read;
                        read(text).ok_or_else(|| {
                            let text: String = text.chars().take(64).collect();
                            E::custom(format_args!("`{text}` is not {}", $expecting))
                        })
                    }
                }
                d.deserialize_str(Text)
            }
        }
    };
}

from_text!(Exact, "a decimal number as text", |text| Decimal::parse(text.as_bytes()).ok().map(Exact));
from_text!(Amount, "a number that is not negative, as text", |text| amount(text).map(Amount));
from_text!(Rfc3339, "a time such as 2024-01-02T03:04:05.678Z", |text| time::parse_rfc3339(text).map(Rfc3339));

fn amount(text: &str) -> Option<f64> {
    text.parse().ok().filter(|v: &f64| v.is_finite() && !v.is_sign_negative())
}

impl<'de> Deserialize<'de> for MaybeAmount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = MaybeAmount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number that is not negative, as text, or null")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<MaybeAmount, E> {
                match amount(text) {
                    _ if text.is_empty() => Ok(MaybeAmount(None)),
                    None => Err(E::custom(format_args!("`{text}` is not a number that is not negative"))),
                    value => Ok(MaybeAmount(value)),
                }
            }
            fn visit_none<E: Error>(self) -> Result<MaybeAmount, E> {
                Ok(MaybeAmount(None))
            }
            fn visit_unit<E: Error>(self) -> Result<MaybeAmount, E> {
                Ok(MaybeAmount(None))
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<MaybeAmount, D::Error> {
                d.deserialize_str(self)
            }
        }
        d.deserialize_option(Text)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer, as a number or as text")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map(Number).map_err(|_| E::custom(format_args!("`{text}` is not an integer")))
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<Number, E> {
                i64::try_from(v).map(Number).map_err(|_| E::custom(format_args!("{v} is too large")))
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<Number, E> {
                Ok(Number(v))
            }
        }
        d.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for Levels {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Levels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of [price, size]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Levels, A::Error> {
                let mut levels = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(4096));
                while let Some((price, size)) = seq.next_element::<(Exact, Exact)>()? {
                    levels.push(Level { price: price.0, size: size.0 });
                }
                Ok(Levels(levels))
            }
        }
        d.deserialize_seq(List)
    }
}

impl<'de> Deserialize<'de> for Changes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Changes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of [side, price, size]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Changes, A::Error> {
                let mut changes = Changes::default();
                while let Some((side, price, size)) = seq.next_element::<(&str, Exact, Exact)>()? {
                    let level = Level { price: price.0, size: size.0 };
                    match side {
                        "buy" => changes.bids.push(level),
                        "sell" => changes.asks.push(level),
                        other => return Err(A::Error::custom(format_args!("unknown side `{other}`"))),
                    }
                }
                Ok(changes)
            }
        }
        d.deserialize_seq(List)
    }
}
