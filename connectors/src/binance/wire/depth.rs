//! Depth: changes of the order book, and snapshots of it.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sonic_rs::LazyValue;
use tidemill_book::{Decimal, Level};

use super::VenueTime;
use crate::venue::json;

/// A change of the order book, of the `depth` stream.
#[derive(Debug, Deserialize)]
pub struct DepthUpdate<'a> {
    /// `depthUpdate`.
    pub e: &'a str,
    /// When it was sent.
    #[serde(rename = "E")]
    pub sent_at: VenueTime,
    /// When the book changed (futures).
    #[serde(default, rename = "T")]
    pub at: Option<VenueTime>,
    /// Symbol.
    pub s: &'a str,
    /// First update id in it.
    #[serde(rename = "U")]
    pub first: u64,
    /// Last update id in it.
    #[serde(rename = "u")]
    pub last: u64,
    /// Last update id of the message before (futures).
    #[serde(default, rename = "pu")]
    pub previous: Option<u64>,
    /// Bids.
    #[serde(rename = "b")]
    pub bids: Side,
    /// Asks.
    #[serde(rename = "a")]
    pub asks: Side,
}

/// The answer of `/api/v3/depth` and `/fapi/v1/depth`.
#[derive(Debug, Deserialize)]
pub struct DepthSnapshot {
    /// The last update id in it.
    #[serde(rename = "lastUpdateId")]
    pub last: u64,
    /// When the book was so (futures).
    #[serde(default, rename = "T")]
    pub at: Option<VenueTime>,
    /// Bids.
    pub bids: Side,
    /// Asks.
    pub asks: Side,
}

/// Levels of one side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side(pub Vec<Level>);

impl<'de> Deserialize<'de> for Side {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = LazyValue::deserialize(d)?;
        let raw = raw.as_raw_str();
        match plain(raw.as_bytes()) {
            Some(levels) => Ok(Self(levels)),
            // Blanks, escapes, further elements, or something wrong: the general way says which.
            None => json::read::<Vec<One>>(raw.as_bytes())
                .map(|levels| Self(levels.into_iter().map(|One(level)| level).collect()))
                .map_err(D::Error::custom),
        }
    }
}

/// Levels as the venue writes them, `[["0.0024","10"],["0.0022","5"]]`, read by hand: twice as fast as element by element.
fn plain(raw: &[u8]) -> Option<Vec<Level>> {
    let mut rest = raw.strip_prefix(b"[")?;
    let mut levels = Vec::with_capacity(rest.len() / 32 + 1);
    if rest == b"]" {
        return Some(levels);
    }
    loop {
        let (price, after) = text(rest.strip_prefix(b"[\"")?)?;
        let (size, after) = text(after.strip_prefix(b",\"")?)?;
        levels.push(Level::parse(price, size).ok()?);
        match after.strip_prefix(b"]")?.split_first()? {
            (b',', next) => rest = next,
            (b']', []) => return Some(levels),
            _ => return None,
        }
    }
}

/// What stands before the next quotation mark, and what after it.
#[inline]
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == b'"')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// `["0.0024", "10"]`
struct One(Level);

impl<'de> Deserialize<'de> for One {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = One;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a level: [price, size] as text")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<One, A::Error> {
                let (Some(Exact(price)), Some(Exact(size))) = (seq.next_element()?, seq.next_element()?)
                else {
                    return Err(A::Error::invalid_length(0, &self));
                };
                // Snapshots of old had a third element, an empty list.
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(One(Level { price, size }))
            }
        }
        d.deserialize_seq(Pair)
    }
}

/// A decimal as text. What a book refuses (a negative size) is judged by the book.
struct Exact(Decimal);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Exact;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal as text")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Exact, E> {
                Decimal::parse(text.as_bytes()).map(Exact).map_err(E::custom)
            }
        }
        d.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(text: &str) -> Result<Vec<(String, String)>, String> {
        let side = json::read::<Side>(text.as_bytes())?;
        Ok(side.0.iter().map(|l| (l.price.to_string(), l.size.to_string())).collect())
    }

    #[test]
    fn levels_read_by_hand_are_those_read_element_by_element() {
        let expected = [("0.0024".to_owned(), "10".to_owned()), ("0.0022".into(), "5.00".into())];
        for text in [
            r#"[["0.0024","10"],["0.0022","5.00"]]"#,
            r#"[ ["0.0024", "10"] , ["0.0022", "5.00"] ]"#,
            r#"[["0.0024","10",[]],["0.0022","5.00",[]]]"#,
            r#"[["0.0024","10"],["0.0022","\u0035.00"]]"#,
        ] {
            assert_eq!(side(text).as_deref(), Ok(&expected[..]), "{text}");
        }
        assert_eq!(side("[]"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_list_of_levels_is_refused() {
        for text in [
            r#"[["0.0024"]]"#,
            r#"[["0.0024","x"]]"#,
            r#"[["0.0024",10]]"#,
            r#"["0.0024","10"]"#,
            r#"[["0.0024","10"],]"#,
            r#"{"0.0024":"10"}"#,
            "7",
            "null",
        ] {
            assert!(side(text).is_err(), "{text}");
        }
    }
}
