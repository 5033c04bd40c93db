//! Kraken's WebSocket v1 messages: arrays for data, objects for events.
//!
//! Prices, sizes and times are text. Source: [Kraken's API reference](https://docs.kraken.com/api/docs/websocket-v1/book).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sonic_rs::LazyValue;
use tidemill_book::{Decimal, Level};
use tidemill_engine::json::time;

/// An event: `{"event": …}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Event<'a> {
    /// `heartbeat`, `systemStatus`, `subscriptionStatus`, `pong`, `error`.
    #[serde(borrow)]
    pub event: Option<&'a str>,
    /// Of a system: `online`; of a subscription: `subscribed`, `unsubscribed`, `error`.
    #[serde(borrow)]
    pub status: Option<&'a str>,
    /// Pair.
    #[serde(borrow)]
    pub pair: Option<Cow<'a, str>>,
    /// What is wrong.
    #[serde(borrow, rename = "errorMessage")]
    pub error: Option<Cow<'a, str>>,
}

/// Data: `[channel id, payload, (payload,) channel name, pair]`.
#[derive(Debug)]
pub struct Data<'a> {
    /// One, or two where a book changed on both sides.
    pub payloads: Vec<LazyValue<'a>>,
    /// Such as `book-1000`.
    pub channel: &'a str,
    /// Pair.
    pub pair: &'a str,
}

impl<'de> Deserialize<'de> for Data<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = Data<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[channel id, payload, channel name, pair]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Data<'de>, A::Error> {
                let short = || {
                    A::Error::custom(
                        "fewer than four elements: [channel id, payload, channel name, pair] was expected",
                    )
                };
                seq.next_element::<IgnoredAny>()?.ok_or_else(short)?;
                let mut payloads = vec![seq.next_element::<LazyValue>()?.ok_or_else(short)?];
                let channel = loop {
                    let next = seq.next_element::<LazyValue>()?.ok_or_else(short)?;
                    match text(&next) {
                        Some(name) => break name,
                        None if payloads.len() < 2 => payloads.push(next),
                        None => return Err(A::Error::custom("more than two payloads")),
                    }
                };
                let pair = seq.next_element::<&str>()?.ok_or_else(short)?;
                if seq.next_element::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom("something comes after the pair"));
                }
                Ok(Data { payloads, channel, pair })
            }
        }
        d.deserialize_seq(Array)
    }
}

/// The text of a JSON string without escapes.
fn text<'a>(value: &LazyValue<'a>) -> Option<&'a str> {
    match value.as_raw_cow() {
        Cow::Borrowed(raw) => raw.strip_prefix('"')?.strip_suffix('"').filter(|t| !t.contains('\\')),
        Cow::Owned(_) => None,
    }
}

/// A payload of a book: a snapshot (`as`, `bs`) or changes (`a`, `b`), with a checksum in the last of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Book<'a> {
    /// All asks.
    #[serde(rename = "as")]
    pub all_asks: Option<Levels>,
    /// All bids.
    #[serde(rename = "bs")]
    pub all_bids: Option<Levels>,
    /// Changed asks.
    pub a: Levels,
    /// Changed bids.
    pub b: Levels,
    /// CRC32 over the ten best of both sides, as text.
    #[serde(borrow)]
    pub c: Option<&'a str>,
}

/// `[[price, volume, time], …]`; a fourth element `"r"` marks a level that came back into the depth.
#[derive(Debug, Default)]
pub struct Levels {
    /// The levels.
    pub levels: Vec<Level>,
    /// The latest of their times, nanoseconds.
    pub at_ns: Option<i64>,
    /// How many came back into the depth.
    pub republished: u64,
}

/// `[price, volume, time, side, type, misc]`.
#[derive(Debug)]
pub struct Trade {
    /// Price.
    pub price: f64,
    /// Size.
    pub size: f64,
    /// When it was made, nanoseconds.
    pub at_ns: i64,
    /// Whether the taker bought.
    pub buy: bool,
}

/// A ticker: arrays of text by letter.
#[derive(Debug, Deserialize)]
pub struct Ticker {
    /// Best ask: price, whole lots, lots.
    pub a: First,
    /// Best bid.
    pub b: First,
    /// Last trade: price, lots.
    pub c: First,
    /// Volume: today, 24 hours.
    pub v: Day,
}

/// `[time, end, open, high, low, close, vwap, volume, count]`.
#[derive(Debug)]
pub struct Ohlc {
    /// When it last changed, nanoseconds.
    pub at_ns: i64,
    /// Its end, nanoseconds.
    pub end_ns: i64,
    /// Open, high, low, close.
    pub prices: [f64; 4],
    /// Volume in the base.
    pub volume: f64,
    /// Number of trades.
    pub trades: i64,
}

/// The first number of an array.
#[derive(Clone, Copy, Debug)]
pub struct First(pub f64);

/// The second number of an array.
#[derive(Clone, Copy, Debug)]
pub struct Day(pub f64);

/// Seconds since the epoch with a fraction, as text, to nanoseconds.
pub fn seconds(text: &str) -> Option<i64> {
    time::parse_decimal(text, 1_000_000_000)
}

fn amount<E: Error>(text: &str) -> Result<f64, E> {
    text.parse()
        .ok()
        .filter(|v: &f64| v.is_finite() && !v.is_sign_negative())
        .ok_or_else(|| E::custom(format_args!("`{text:.64}` is not a number that is not negative")))
}

fn at<E: Error>(text: &str) -> Result<i64, E> {
    seconds(text).ok_or_else(|| E::custom(format_args!("`{text:.64}` is not a time in seconds")))
}

/// The next text of a sequence.
fn next<'de, A: SeqAccess<'de>>(seq: &mut A, what: &str) -> Result<&'de str, A::Error> {
    seq.next_element::<&str>()?.ok_or_else(|| A::Error::custom(format_args!("no {what}")))
}

fn skip_rest<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

macro_rules! from_sequence {
    ($type:ty, $expecting:literal, $read:ident) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Array;
                impl<'de> Visitor<'de> for Array {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<$type, A::Error> {
                        $read(&mut seq)
                    }
                }
                d.deserialize_seq(Array)
            }
        }
    };
}

from_sequence!(Levels, "a list of [price, volume, time]", read_levels);
from_sequence!(One, "[price, volume, time]", read_level);
from_sequence!(Trade, "[price, volume, time, side, type, misc]", read_trade);
from_sequence!(Ohlc, "[time, end, open, high, low, close, vwap, volume, count]", read_ohlc);
from_sequence!(First, "a list of numbers as text", read_first);
from_sequence!(Day, "a list of two numbers as text", read_day);

/// One level.
struct One {
    level: Level,
    at_ns: i64,
    republished: bool,
}

fn read_level<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<One, A::Error> {
    let price = Decimal::parse(next(seq, "price")?.as_bytes()).map_err(A::Error::custom)?;
    let size = Decimal::parse(next(seq, "volume")?.as_bytes()).map_err(A::Error::custom)?;
    let at_ns = at(next(seq, "time")?)?;
    let republished = seq.next_element::<&str>()? == Some("r");
    skip_rest(seq)?;
    Ok(One { level: Level { price, size }, at_ns, republished })
}

fn read_levels<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Levels, A::Error> {
    let mut levels = Levels::default();
    while let Some(one) = seq.next_element::<One>()? {
        levels.levels.push(one.level);
        levels.at_ns = levels.at_ns.max(Some(one.at_ns));
        levels.republished += u64::from(one.republished);
    }
    Ok(levels)
}

fn read_trade<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Trade, A::Error> {
    let (price, size) = (amount(next(seq, "price")?)?, amount(next(seq, "volume")?)?);
    let at_ns = at(next(seq, "time")?)?;
    let buy = match next(seq, "side")? {
        "b" => true,
        "s" => false,
        other => return Err(A::Error::custom(format_args!("unknown side `{other:.64}`"))),
    };
    skip_rest(seq)?;
    Ok(Trade { price, size, at_ns, buy })
}

fn read_ohlc<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Ohlc, A::Error> {
    let (at_ns, end_ns) = (at(next(seq, "time")?)?, at(next(seq, "end")?)?);
    let mut prices = [0.0; 4];
    for (price, what) in prices.iter_mut().zip(["open", "high", "low", "close"]) {
        *price = amount(next(seq, what)?)?;
    }
    next(seq, "vwap")?;
    let volume = amount(next(seq, "volume")?)?;
    let trades = seq.next_element::<i64>()?.ok_or_else(|| A::Error::custom("no count"))?;
    skip_rest(seq)?;
    Ok(Ohlc { at_ns, end_ns, prices, volume, trades })
}

fn read_first<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<First, A::Error> {
    let first = amount(next(seq, "number")?)?;
    skip_rest(seq)?;
    Ok(First(first))
}

fn read_day<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Day, A::Error> {
    next(seq, "number")?;
    let day = amount(next(seq, "second number")?)?;
    skip_rest(seq)?;
    Ok(Day(day))
}
