//! Alpaca's messages: arrays of objects, each told by its `T`.
//!
//! Sources: [streams](https://docs.alpaca.markets/docs/streaming-market-data),
//! [stocks](https://docs.alpaca.markets/docs/real-time-stock-pricing-data),
//! [crypto](https://docs.alpaca.markets/docs/real-time-crypto-pricing-data).

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use tidemill_engine::json::time::parse_rfc3339;

/// A price or a size: a finite number, not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amount(pub f64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match f64::deserialize(d)? {
            v if v.is_finite() && v >= 0.0 => Ok(Self(v)),
            v => Err(D::Error::custom(format_args!("negative number `{v}`"))),
        }
    }
}

/// A time, nanoseconds since the epoch, from RFC 3339 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub i64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as RFC 3339 text")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                parse_rfc3339(text).map(Time).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        d.deserialize_str(Text)
    }
}

/// What tells messages apart.
#[derive(Debug, Deserialize)]
pub struct Kind<'a> {
    /// `t`, `q`, `b`, `u`, `d`, `success`, `error`, `subscription`, `c`, `x`, …
    #[serde(rename = "T")]
    pub kind: &'a str,
    /// Symbol, of market data.
    #[serde(default, rename = "S")]
    pub symbol: Option<&'a str>,
}

/// `t`: a trade.
#[derive(Debug, Deserialize)]
pub struct Trade<'a> {
    /// Symbol.
    #[serde(rename = "S")]
    pub symbol: &'a str,
    /// Trade id; unique for an exchange and a day, not in order.
    #[serde(default)]
    pub i: Option<i64>,
    /// Price.
    pub p: Amount,
    /// Size.
    pub s: Amount,
    /// When it was made.
    pub t: Time,
    /// The taker's side, of crypto: `B` or `S`.
    #[serde(default)]
    pub tks: Option<&'a str>,
}

/// `q`: best bid and ask; a side without orders is 0.
#[derive(Debug, Deserialize)]
pub struct Quote<'a> {
    /// Symbol.
    #[serde(rename = "S")]
    pub symbol: &'a str,
    /// Bid.
    pub bp: Amount,
    /// Its size.
    pub bs: Amount,
    /// Ask.
    pub ap: Amount,
    /// Its size.
    #[serde(rename = "as")]
    pub ask_size: Amount,
    /// When it was made.
    pub t: Time,
}

/// `b`, `u`, `d`: a bar.
#[derive(Debug, Deserialize)]
pub struct Bar<'a> {
    /// Symbol.
    #[serde(rename = "S")]
    pub symbol: &'a str,
    /// Open.
    pub o: Amount,
    /// High.
    pub h: Amount,
    /// Low.
    pub l: Amount,
    /// Close.
    pub c: Amount,
    /// Volume.
    pub v: Amount,
    /// Number of trades.
    #[serde(default)]
    pub n: Option<i64>,
    /// Start of its interval.
    pub t: Time,
}

/// `s`: a stock's trading status changed.
#[derive(Debug, Deserialize)]
pub struct Status {
    /// Symbol.
    #[serde(rename = "S")]
    pub symbol: String,
    /// Its code.
    pub sc: String,
    /// What the code says.
    #[serde(default)]
    pub sm: Option<String>,
    /// Code of the reason.
    #[serde(default)]
    pub rc: Option<String>,
    /// What that code says.
    #[serde(default)]
    pub rm: Option<String>,
    /// When it changed.
    pub t: Time,
}

/// `success` and `error`.
#[derive(Debug, Deserialize)]
pub struct Control {
    /// Error code.
    #[serde(default)]
    pub code: Option<i64>,
    /// What is said.
    #[serde(default)]
    pub msg: String,
}

/// What to do about an error of the venue's; <https://docs.alpaca.markets/docs/streaming-market-data#errors>.
pub fn advice(code: i64) -> &'static str {
    match code {
        400 => "look for a symbol in the wrong form",
        401 => "it subscribed before it was logged in",
        402 => "check `key` and `secret`: a paper account has its own",
        403 => "it was logged in already",
        404 => "the log-in came too late",
        405 => "none of the symbols asked for last are subscribed to: name fewer, or use another plan",
        406 => "another program is connected to this feed: stop it, or use another plan",
        407 => "this machine reads too slowly, and will be cut off",
        409 => "the plan doesn't include this feed: use `feed: iex`",
        410 => "this feed doesn't have the channel: `statuses` are of stocks",
        411 => "these keys may not read market data: make others",
        412 => "options come in another encoding than this source reads: name stocks or crypto",
        413 => "this feed takes no `*`: name the symbols",
        500 => "the fault is the venue's: it is connected again by itself; see status.alpaca.markets",
        _ => "the venue will say more at status.alpaca.markets",
    }
}
