//! Bars of venues that never say that one is final: it is, once the next of its symbol begins.
//!
//! State: the last bar of each symbol. What happened to it while nobody listened is unknown, so
//! after a lost connection it counts as final only if the venue sends it again.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tables::Head;
use super::tables::bars::{Bar, Bars};

/// The last bar of each symbol.
#[derive(Clone, Debug, Default)]
pub struct Forming {
    last: BTreeMap<String, Last>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    start_ns: i64,
    bar: Option<Bar>,
}

impl Forming {
    /// Adds what a bar brings: the one before it, if that is final by it, then itself. Returns false, and adds nothing,
    /// for a bar that is older than the last of its symbol, or the same again.
    pub fn push(&mut self, rows: &mut Bars, head: Head, bar: Bar) -> bool {
        if let Some(last) = self.last.get_mut(head.symbol) {
            if bar.start_ns < last.start_ns || last.bar == Some(bar) {
                return false;
            }
            if let Some(done) = last.bar.filter(|done| done.start_ns < bar.start_ns) {
                rows.push(head, &Bar { closed: true, ..done });
            }
            *last = Last { start_ns: bar.start_ns, bar: Some(bar) };
        } else {
            self.last.insert(head.symbol.to_owned(), Last { start_ns: bar.start_ns, bar: Some(bar) });
        }
        rows.push(head, &bar);
        true
    }

    /// A connection was lost: the last bars may have gone on.
    pub fn lost(&mut self) {
        self.last.values_mut().for_each(|last| last.bar = None);
    }

    /// For a checkpoint.
    pub fn state(&self) -> Value {
        Value::Object(
            self.last.iter().map(|(symbol, last)| (symbol.clone(), Value::from(last.start_ns))).collect(),
        )
    }

    /// From a checkpoint.
    ///
    /// # Errors
    /// Where it is no map of times.
    pub fn restore(&mut self, state: &Value) -> Result<(), String> {
        let Value::Object(starts) = state else { return Err("the last bars are no map".into()) };
        for (symbol, start) in starts {
            let start_ns = start.as_i64().ok_or_else(|| format!("the last bar of {symbol} is no time"))?;
            self.last.insert(symbol.clone(), Last { start_ns, bar: None });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Float64Type;

    use super::*;

    fn bar(start_ns: i64, close: f64) -> Bar {
        Bar { start_ns, open: 1.0, high: 3.0, low: 1.0, close, volume: 1.0, trades: None, closed: false }
    }

    /// Closes and whether final.
    fn rows(rows: &mut Bars) -> Vec<(f64, bool)> {
        let batch = rows.finish();
        let closes = batch.column_by_name("close").unwrap().as_primitive::<Float64Type>();
        let closed = batch.column_by_name("closed").unwrap().as_boolean();
        (0..batch.num_rows()).map(|i| (closes.value(i), closed.value(i))).collect()
    }

    #[test]
    fn a_bar_is_final_when_the_next_begins_but_not_over_a_lost_connection() {
        let (mut forming, mut bars) = (Forming::default(), Bars::new("x"));
        let head = Head { ts_ns: 1, symbol: "A", received_ns: 1 };
        assert!(forming.push(&mut bars, head, bar(60, 1.0)));
        assert!(!forming.push(&mut bars, head, bar(60, 1.0)), "the same again");
        assert!(forming.push(&mut bars, head, bar(60, 2.0)));
        assert!(forming.push(&mut bars, head, bar(120, 3.0)));
        assert!(!forming.push(&mut bars, head, bar(60, 9.0)), "older");
        assert_eq!(rows(&mut bars), [(1.0, false), (2.0, false), (2.0, true), (3.0, false)]);

        // Not sent again: never called final. Sent again: it is.
        forming.lost();
        assert!(forming.push(&mut bars, head, bar(180, 4.0)));
        assert_eq!(rows(&mut bars), [(4.0, false)]);
        let mut restored = Forming::default();
        restored.restore(&forming.state()).unwrap();
        assert!(restored.push(&mut bars, head, bar(180, 5.0)));
        assert!(restored.push(&mut bars, head, bar(240, 6.0)));
        assert_eq!(rows(&mut bars), [(5.0, false), (5.0, true), (6.0, false)]);
    }
}
