//! Ids that go up by one with every trade of a symbol: what came before, and what is missing.
//!
//! For venues that send their latest trades again with each subscription: there a hole is filled by
//! subscribing anew. State: one number a symbol.

use std::collections::BTreeMap;

use serde_json::Value;

/// What an id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdStep {
    /// The first of its symbol, or the next.
    New,
    /// It was there before.
    Repeat,
    /// So many before it are missing.
    Gap(i64),
}

/// The last id of each symbol.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    last: BTreeMap<String, i64>,
}

impl Ids {
    /// What `id` says; nothing is remembered.
    pub fn look(&self, symbol: &str, id: i64) -> IdStep {
        match self.last.get(symbol) {
            None => IdStep::New,
            Some(last) if id <= *last => IdStep::Repeat,
            Some(last) if id - 1 == *last => IdStep::New,
            Some(last) => IdStep::Gap(id - last - 1),
        }
    }

    /// Goes on from `id`.
    pub fn take(&mut self, symbol: &str, id: i64) {
        match self.last.get_mut(symbol) {
            Some(last) => *last = id,
            None => {
                self.last.insert(symbol.to_owned(), id);
            }
        }
    }

    /// For a checkpoint.
    pub fn state(&self) -> Value {
        Value::Object(self.last.iter().map(|(symbol, id)| (symbol.clone(), Value::from(*id))).collect())
    }

    /// From a checkpoint.
    ///
    /// # Errors
    /// Where it is no map of numbers.
    pub fn restore(&mut self, state: &Value) -> Result<(), String> {
        let Value::Object(ids) = state else { return Err("the last trade ids are no map".into()) };
        for (symbol, id) in ids {
            let id = id.as_i64().ok_or_else(|| format!("the last trade id of {symbol} is no number"))?;
            self.last.insert(symbol.clone(), id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_or_was_there_or_leaves_a_hole_and_a_checkpoint_remembers() {
        let mut ids = Ids::default();
        assert_eq!(ids.look("A", 7), IdStep::New);
        ids.take("A", 7);
        let mut restored = Ids::default();
        restored.restore(&ids.state()).unwrap();
        for ids in [&ids, &restored] {
            assert_eq!(ids.look("A", 7), IdStep::Repeat);
            assert_eq!(ids.look("A", 8), IdStep::New);
            assert_eq!(ids.look("A", 11), IdStep::Gap(3));
            assert_eq!(ids.look("B", 1), IdStep::New);
        }
        assert!(restored.restore(&Value::from(3)).is_err());
    }
}
