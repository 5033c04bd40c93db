//! Spans of time as users write them: `250ms`, `1m`, `1h30m`, `1d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time in nanoseconds, never negative.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(i64);

const UNITS: [(&str, i64); 8] = [
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Span {
    /// A span of so many nanoseconds.
    pub const fn from_ns(ns: i64) -> Self {
        Self(if ns < 0 { 0 } else { ns })
    }

    /// Nanoseconds.
    pub const fn ns(self) -> i64 {
        self.0
    }

    /// As the standard library's type.
    pub const fn std(self) -> Duration {
        Duration::from_nanos(self.0 as u64)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a span of time: write 250ms, 1m, 1h30m or 1d");
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(0));
        }
        let mut total: i64 = 0;
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let number: i64 = number.parse().map_err(|_| bad())?;
            let (_, ns) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
            total = number.checked_mul(*ns).and_then(|ns| total.checked_add(ns)).ok_or_else(bad)?;
            rest = tail;
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (name, ns) in UNITS {
            if rest >= ns {
                write!(f, "{}{name}", rest / ns)?;
                rest %= ns;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a span of time such as 250ms, 1m, 1h30m or 1d")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Span, E> {
                v.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Span, E> {
                if v == 0 {
                    Ok(Span(0))
                } else {
                    Err(E::custom(format!("`{v}` has no unit: write {v}s, {v}ms, …")))
                }
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Span, E> {
                Err(E::custom(format!("`{v}` is not a span of time")))
            }
        }
        // Snapshots are written by a format that does not describe itself; there it is text.
        if d.is_human_readable() { d.deserialize_any(Visitor) } else { d.deserialize_str(Visitor) }
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "integer"],
            "description": "a span of time: 250ms, 1m, 1h30m, 1d",
            "examples": ["250ms", "1m", "1h30m", "1d"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_write_as_users_do() {
        for (text, ns) in
            [("250ms", 250_000_000), ("1h30m", 5_400_000_000_000), ("0", 0), ("2w", 1_209_600_000_000_000)]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.ns(), ns);
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        for bad in ["", "5", "m", "1x", "-1s", "99999999999w"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
