//! What comes over two connections is taken once: per symbol, the highest sequence taken so far.
//!
//! Pure. [`Once`] is for messages of which only the newest counts (quotes, tickers, bars). [`Unseen`] is for those of which each
//! one counts while their sequence may have holes: what one connection has lost is taken from the other, though
//! later ones have come before it. Trades whose ids follow one another go through [`continuity`](super::continuity),
//! which also keeps their order. Memory: one number a symbol, or a window of them; at most `symbols_max` symbols.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The highest sequence of each symbol.
#[derive(Clone, Debug)]
pub struct Once {
    last: BTreeMap<Box<str>, i64>,
    symbols_max: usize,
}

impl Default for Once {
    fn default() -> Self {
        Self::new(100_000)
    }
}

impl Once {
    /// Remembers at most so many symbols; what comes of further ones is always new.
    pub fn new(symbols_max: usize) -> Self {
        Self { last: BTreeMap::new(), symbols_max }
    }

    /// Whether `sequence` is above all that were taken of `symbol`; if so, it is taken.
    pub fn is_new(&mut self, symbol: &str, sequence: i64) -> bool {
        if let Some(last) = self.last.get_mut(symbol) {
            let new = sequence > *last;
            *last = sequence.max(*last);
            return new;
        }
        if self.last.len() < self.symbols_max {
            self.last.insert(symbol.into(), sequence);
        }
        true
    }

    /// The highest sequence taken of `symbol`.
    pub fn last(&self, symbol: &str) -> Option<i64> {
        self.last.get(symbol).copied()
    }

    /// Forgets a symbol: its sequence begins anew.
    pub fn forget(&mut self, symbol: &str) {
        self.last.remove(symbol);
    }

    /// For a checkpoint: `{symbol: sequence}`.
    pub fn state(&self) -> Value {
        Value::Object(self.last.iter().map(|(symbol, last)| (symbol.to_string(), (*last).into())).collect())
    }

    /// Goes on from a state.
    pub fn restore(&mut self, state: &Value) -> Result<(), String> {
        self.last = sequences(state)?.collect();
        Ok(())
    }
}

/// How far apart two connections may be, in messages of a symbol.
const WINDOW: usize = 4096;

/// The sequences of each symbol that were taken lately.
#[derive(Clone, Debug)]
pub struct Unseen {
    symbols: BTreeMap<Box<str>, Window>,
    symbols_max: usize,
}

#[derive(Clone, Debug)]
struct Window {
    /// All up to here count as taken.
    floor: i64,
    /// Taken above it.
    taken: BTreeSet<i64>,
}

impl Default for Unseen {
    fn default() -> Self {
        Self { symbols: BTreeMap::new(), symbols_max: 100_000 }
    }
}

impl Unseen {
    /// Whether `sequence` of `symbol` has not been taken yet (nor lies so far back that nobody knows);
    /// if so, it is taken.
    pub fn take(&mut self, symbol: &str, sequence: i64) -> bool {
        if !self.symbols.contains_key(symbol) {
            if self.symbols.len() >= self.symbols_max {
                return true;
            }
            self.symbols.insert(symbol.into(), Window { floor: i64::MIN, taken: BTreeSet::new() });
        }
        let Some(window) = self.symbols.get_mut(symbol) else { return true };
        if sequence <= window.floor || !window.taken.insert(sequence) {
            return false;
        }
        if window.taken.len() > WINDOW
            && let Some(first) = window.taken.pop_first()
        {
            window.floor = first;
        }
        true
    }

    /// For a checkpoint: `{symbol: highest sequence}`.
    pub fn state(&self) -> Value {
        let highest = |w: &Window| w.taken.last().copied().unwrap_or(w.floor);
        Value::Object(
            self.symbols.iter().map(|(symbol, w)| (symbol.to_string(), highest(w).into())).collect(),
        )
    }

    /// Goes on from a state.
    pub fn restore(&mut self, state: &Value) -> Result<(), String> {
        let windows = sequences(state)?;
        self.symbols =
            windows.map(|(symbol, floor)| (symbol, Window { floor, taken: BTreeSet::new() })).collect();
        Ok(())
    }
}

/// `{symbol: sequence}` read back; nothing where there is none.
pub(super) fn sequences(state: &Value) -> Result<impl Iterator<Item = (Box<str>, i64)>, String> {
    let fields = match state {
        Value::Null => Map::new(),
        Value::Object(fields) => fields.clone(),
        other => return Err(format!("expected sequences by symbol, found {other}")),
    };
    let numbers = fields.into_iter().map(|(symbol, value)| match value.as_i64() {
        Some(last) => Ok((symbol.into_boxed_str(), last)),
        None => Err(format!("the sequence of `{symbol}` is {value}, not a whole number")),
    });
    Ok(numbers.collect::<Result<Vec<_>, String>>()?.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_connections_that_carry_the_same_each_message_is_taken_once() {
        let mut once = Once::default();
        let sent: Vec<i64> = (0..200).map(|i| i * 3).collect();
        // The second connection is behind by a number of messages that changes.
        let mut taken = Vec::new();
        let mut behind = sent.iter();
        for (i, sequence) in sent.iter().enumerate() {
            taken.extend(once.is_new("A", *sequence).then_some(*sequence));
            for sequence in behind.by_ref().take(i % 3) {
                taken.extend(once.is_new("A", *sequence).then_some(*sequence));
            }
        }
        assert_eq!(taken, sent);
        assert!(once.is_new("B", 1), "another symbol has a sequence of its own");
    }

    #[test]
    fn what_one_connection_has_lost_is_taken_from_the_other_though_later_ones_came_first() {
        let mut unseen = Unseen::default();
        let mut taken: Vec<i64> = Vec::new();
        // The first has lost every tenth, the second, a thousand behind, every seventh.
        for i in 0..20_000i64 {
            for (behind, lost) in [(0, 10), (1000, 7)] {
                let sequence = (i - behind) * 2;
                if i >= behind && (i - behind) % lost != 0 && unseen.take("A", sequence) {
                    taken.push(sequence);
                }
            }
        }
        let mut sorted = taken.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), taken.len(), "none twice");
        assert!((0..19_000).filter(|i| i % 70 != 0).all(|i| sorted.binary_search(&(i * 2)).is_ok()));
        assert!(!unseen.take("A", 0), "too far back to know");
        let mut after = Unseen::default();
        after.restore(&unseen.state()).unwrap();
        assert!(!after.take("A", *sorted.last().unwrap()) && after.take("A", 1 << 40));
    }

    #[test]
    fn it_goes_on_from_its_state_and_remembers_no_more_than_it_may() {
        let mut once = Once::new(1);
        assert!(once.is_new("A", 5) && once.is_new("B", 5) && once.is_new("B", 5));
        let mut after = Once::new(1);
        after.restore(&once.state()).unwrap();
        assert!(!after.is_new("A", 5) && after.is_new("A", 6));
        assert!(after.restore(&serde_json::json!({"A": "x"})).is_err());
    }
}
