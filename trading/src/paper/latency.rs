//! How long orders and reports are on their way.
//!
//! A connection keeps its order: what is sent later never arrives earlier, whatever was drawn for it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::span::Span;

/// How long orders and reports are on their way. In a graph a span for orders, with reports at once, or the whole block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// From the decision until the venue acts on it.
    #[serde(default)]
    pub order: Span,
    /// From what happens at the venue until it is known here.
    #[serde(default)]
    pub report: Span,
    /// Measured delays in nanoseconds: each order and each report takes another one of them on top, in this order and from the
    /// start again after the last; where there is a `seed`, drawn at random.
    #[serde(default)]
    pub series_ns: Vec<u64>,
    /// Draws from `series_ns` at random; the same seed draws the same.
    #[serde(default)]
    pub seed: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    #[serde(default)]
    order: Span,
    #[serde(default)]
    report: Span,
    #[serde(default)]
    series_ns: Vec<u64>,
    #[serde(default)]
    seed: Option<u64>,
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Latency;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span of time such as 250us, or {order, report, series_ns, seed}")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Latency, E> {
                Ok(Latency { order: text.parse().map_err(E::custom)?, ..Latency::default() })
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Latency, E> {
                match number {
                    0 => Ok(Latency::default()),
                    _ => Err(E::custom(format!("`{number}` has no unit: write {number}us, {number}ms, …"))),
                }
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Latency, E> {
                Err(E::custom(format!("`{number}` is not a span of time")))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Latency, A::Error> {
                let block = Block::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let Block { order, report, series_ns, seed } = block;
                Ok(Latency { order, report, series_ns, seed })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The most that one message takes: a day.
const DELAY_MAX: u64 = 86_400_000_000_000;

impl Latency {
    /// When the `n`th order that leaves at `now` arrives.
    pub(crate) fn order_arrives(&self, now: i64, n: u64) -> i64 {
        now.saturating_add(self.order.ns()).saturating_add(self.draw(n, 0))
    }

    /// When the `n`th report that leaves at `now` arrives.
    pub(crate) fn report_arrives(&self, now: i64, n: u64) -> i64 {
        now.saturating_add(self.report.ns()).saturating_add(self.draw(n, 1))
    }

    /// The `n`th delay of a way. Orders and reports draw apart, so that neither depends on when the other was asked.
    fn draw(&self, n: u64, way: u64) -> i64 {
        let Some(last) = self.series_ns.len().checked_sub(1) else { return 0 };
        let at = match self.seed {
            None => n % (last as u64 + 1),
            Some(seed) => {
                let bytes = [seed.to_le_bytes(), way.to_le_bytes(), n.to_le_bytes()].concat();
                let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
                ((u128::from(hash) * (last as u128 + 1)) >> 64) as u64
            }
        };
        self.series_ns[at as usize].min(DELAY_MAX) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_gives_a_span_or_a_block() {
        let fixed: Latency = serde_json::from_str("\"250us\"").unwrap();
        assert_eq!((fixed.order_arrives(5, 0), fixed.report_arrives(5, 0)), (250_005, 5));
        let each: Latency =
            serde_json::from_str(r#"{"order": "1ms", "report": "2ms", "series_ns": [7, 9]}"#).unwrap();
        assert_eq!([0, 1, 2].map(|n| each.order_arrives(0, n)), [1_000_007, 1_000_009, 1_000_007]);
        assert_eq!(each.report_arrives(0, 1), 2_000_009);
        for bad in ["5", "\"5\"", "-1", r#"{"orders": "1ms"}"#] {
            assert!(serde_json::from_str::<Latency>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_seed_draws_evenly_and_the_same_again() {
        let series_ns = (0..10).collect();
        let drawn = Latency { series_ns, seed: Some(7), ..Latency::default() };
        let mut counts = [0; 10];
        for n in 0..10_000 {
            let delay = drawn.order_arrives(0, n);
            assert_eq!(delay, drawn.clone().order_arrives(0, n));
            counts[delay as usize] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
        assert_ne!(
            (0..20).map(|n| drawn.order_arrives(0, n)).collect::<Vec<_>>(),
            (0..20).map(|n| drawn.report_arrives(0, n)).collect::<Vec<_>>()
        );
    }
}
