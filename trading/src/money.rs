//! Exact decimals: what they look like in graphs, on the wire and in memory.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use rust_decimal::Decimal;
use rust_decimal::RoundingStrategy;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Digits after the point on the wire: `Decimal128(38, 18)`.
pub const WIRE_SCALE: u32 = 18;

/// A decimal as rows carry it: a whole number of 1e-18. `None` where it has more digits than 38 or than 18 after the point.
pub fn to_wire(value: Decimal) -> Option<i128> {
    let value = value.normalize();
    let more = WIRE_SCALE.checked_sub(value.scale())?;
    let wire = value.mantissa().checked_mul(10i128.pow(more))?;
    (wire.unsigned_abs() < 10u128.pow(38)).then_some(wire)
}

/// Reads [`to_wire`]'s form. `None` where it is beyond 28 digits.
pub fn from_wire(wire: i128) -> Option<Decimal> {
    let (mut mantissa, mut scale) = (wire, WIRE_SCALE);
    while scale > 0 && mantissa % 10 == 0 {
        mantissa /= 10;
        scale -= 1;
    }
    Decimal::try_from_i128_with_scale(mantissa, scale).ok()
}

/// The decimal that a `f64` of market data was written as: its shortest text, read exactly. `None` for NaN, infinities and
/// what does not fit.
pub fn from_f64(value: f64) -> Option<Decimal> {
    value.is_finite().then(|| Decimal::from_f64_retain_shortest(value)).flatten()
}

trait Shortest {
    fn from_f64_retain_shortest(value: f64) -> Option<Decimal>;
}

impl Shortest for Decimal {
    fn from_f64_retain_shortest(value: f64) -> Option<Decimal> {
        // Most prices and sizes have at most eight decimals: a multiplication finds them without text.
        const POWERS: [(f64, u32); 3] = [(1e2, 2), (1e4, 4), (1e8, 8)];
        for (power, scale) in POWERS {
            let scaled = value * power;
            let whole = scaled.round();
            if whole.abs() < 9e15 && whole / power == value {
                return Some(Decimal::new(whole as i64, scale).normalize());
            }
        }
        let text = format!("{value}");
        Decimal::from_str(&text).or_else(|_| Decimal::from_scientific(&format!("{value:e}"))).ok()
    }
}

/// The nearest `f64`.
pub fn to_f64(value: Decimal) -> f64 {
    let (mantissa, scale) = (value.mantissa(), value.scale());
    if mantissa.unsigned_abs() < 1 << 53 && scale <= 22 {
        // Both are exact in f64, so the quotient is the nearest one.
        return mantissa as f64 / 10f64.powi(scale as i32);
    }
    value.to_string().parse().unwrap_or(f64::NAN)
}

/// Rounds to a multiple of `step` (> 0), towards zero: what a quantity is cut to.
pub fn floor_to(value: Decimal, step: Decimal) -> Decimal {
    // By the remainder: exact, and nothing that can overflow.
    value.checked_rem(step).and_then(|rest| value.checked_sub(rest)).unwrap_or(value)
}

/// Rounds to the nearest multiple of `step` (> 0), halves away from zero.
pub fn round_to(value: Decimal, step: Decimal) -> Decimal {
    (value / step).round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero) * step
}

/// A decimal in a graph: a number or its text, read exactly (`0.1` is a tenth).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Exact(pub Decimal);

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<Decimal> for Exact {
    fn from(value: Decimal) -> Self {
        Self(value)
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Exact;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal number")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Exact, E> {
                let bad = || E::invalid_value(de::Unexpected::Float(value), &self);
                from_f64(value).map(Exact).ok_or_else(bad)
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Exact, E> {
                Ok(Exact(value.into()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Exact, E> {
                Ok(Exact(value.into()))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Exact, E> {
                let bad = |_| E::invalid_value(de::Unexpected::Str(value), &self);
                Decimal::from_str_exact(value).map(Exact).map_err(bad)
            }
        }
        // Snapshots are written by a format that does not describe itself; there it is text.
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Visitor)
        } else {
            deserializer.deserialize_str(Visitor)
        }
    }
}

impl JsonSchema for Exact {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": ["number", "string"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    #[test]
    fn a_float_becomes_the_decimal_it_was_written_as() {
        for text in
            ["0", "0.1", "169.15", "0.30000000000000004", "1e-9", "123456789.12345678", "-2.5", "1e22"]
        {
            let value: f64 = text.parse().unwrap();
            let exact = from_f64(value).unwrap();
            assert_eq!(to_f64(exact), value, "{text}");
        }
        assert_eq!(from_f64(0.1).unwrap().to_string(), "0.1");
        assert_eq!(from_f64(f64::NAN), None);
        assert_eq!(from_f64(1e300), None);
    }

    #[test]
    fn the_wire_form_goes_there_and_back() {
        for text in ["0", "1", "-0.000000000000000001", "12345678901.23456789", "99999999999.5"] {
            let value = decimal(text);
            assert_eq!(from_wire(to_wire(value).unwrap()), Some(value), "{text}");
        }
        assert_eq!(to_wire(decimal("0.1")), Some(100_000_000_000_000_000));
        assert_eq!(to_wire(decimal("0.0000000000000000001")), None);
        assert_eq!(from_wire(i128::MAX), None);
    }

    #[test]
    fn steps() {
        assert_eq!(floor_to(decimal("1.29"), decimal("0.1")), decimal("1.2"));
        assert_eq!(floor_to(decimal("-1.29"), decimal("0.1")), decimal("-1.2"));
        assert_eq!(round_to(decimal("100.005"), decimal("0.01")), decimal("100.01"));
    }

    #[test]
    fn graphs_hold_numbers_or_text() {
        let values: Vec<Exact> = serde_json::from_str(r#"[0.1, "0.1", 3, -2]"#).unwrap();
        assert_eq!(values, [decimal("0.1"), decimal("0.1"), 3.into(), (-2).into()].map(Exact));
        assert!(serde_json::from_str::<Exact>("\"ten\"").is_err());
        let bytes = postcard::to_stdvec(&values).unwrap();
        assert_eq!(postcard::from_bytes::<Vec<Exact>>(&bytes).unwrap(), values);
    }
}
