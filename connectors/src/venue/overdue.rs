//! Symbols that were subscribed to anew and should have brought a snapshot by now.
//!
//! A venue that refuses or loses the request sends nothing more of the symbol, so nothing of it can tell that time goes by: the
//! frames of the connection do, by when they were received. No clock: a replay counts the same.

use std::collections::BTreeMap;

/// Longest wait for the first answer; it doubles from try to try up to 32 times that.
const PATIENCE_NS: i64 = 10_000_000_000;

/// What is awaited, by connection and symbol.
#[derive(Clone, Debug, Default)]
pub struct Overdue {
    asked: BTreeMap<(u32, String), Asked>,
    next_ns: i64,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at_ns: i64,
    tries: u32,
}

impl Asked {
    fn due_ns(self) -> i64 {
        self.at_ns.saturating_add(PATIENCE_NS << self.tries.min(5))
    }
}

impl Overdue {
    /// A symbol was asked for; nothing changes if it is awaited already.
    pub fn asked(&mut self, connection: u32, symbol: &str, now_ns: i64) {
        let first = Asked { at_ns: now_ns, tries: 0 };
        let asked = *self.asked.entry((connection, symbol.to_owned())).or_insert(first);
        self.next_ns = if self.asked.len() == 1 { asked.due_ns() } else { self.next_ns.min(asked.due_ns()) };
    }

    /// It came.
    #[inline]
    pub fn came(&mut self, connection: u32, symbol: &str) {
        if !self.asked.is_empty() {
            self.asked.remove(&(connection, symbol.to_owned()));
        }
    }

    /// A connection begins anew, and subscribes to everything.
    pub fn closed(&mut self, connection: u32) {
        self.asked.retain(|(c, _), _| *c != connection);
    }

    /// What is to be asked for again, on which connection.
    #[inline]
    pub fn due(&mut self, now_ns: i64) -> Vec<(u32, String)> {
        if self.asked.is_empty() || now_ns < self.next_ns {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (key, asked) in &mut self.asked {
            if asked.due_ns() <= now_ns {
                *asked = Asked { at_ns: now_ns, tries: asked.tries + 1 };
                due.push(key.clone());
            }
        }
        self.next_ns = self.asked.values().map(|asked| asked.due_ns()).min().unwrap_or(i64::MAX);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_is_asked_for_again_ever_more_seldom() {
        let second = 1_000_000_000;
        let mut overdue = Overdue::default();
        assert!(overdue.due(5 * second).is_empty());
        overdue.asked(0, "A", 100 * second);
        overdue.asked(1, "B", 105 * second);
        overdue.asked(0, "A", 109 * second);
        assert!(overdue.due(109 * second).is_empty());
        assert_eq!(overdue.due(110 * second), [(0, "A".to_owned())]);
        overdue.came(1, "B");
        assert!(overdue.due(129 * second).is_empty());
        assert_eq!(overdue.due(130 * second), [(0, "A".to_owned())]);
        assert!(overdue.due(169 * second).is_empty());
        assert_eq!(overdue.due(170 * second).len(), 1);
        overdue.closed(0);
        assert!(overdue.due(9999 * second).is_empty());
    }
}
