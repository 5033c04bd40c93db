//! A number that goes up by one with every message: Coinbase's `sequence_num` of a connection, and its
//! `heartbeat_counter`.

/// Watches a number that must go up by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    last: Option<u64>,
}

/// What a number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first one: nothing to compare with.
    First,
    /// One more than the last.
    Next,
    /// The last one or an older one again: a message came twice or late, and should be passed over. The sequence stays where it is.
    Repeat {
        /// The largest before.
        last: u64,
    },
    /// Messages between are missing. The sequence goes on from here.
    Gap {
        /// Which should have come.
        expected: u64,
        /// Which came.
        got: u64,
    },
}

impl Sequence {
    /// Takes the next number.
    pub fn step(&mut self, number: u64) -> Step {
        let step = match self.last {
            None => Step::First,
            Some(last) if number <= last => return Step::Repeat { last },
            Some(last) if number == last + 1 => Step::Next,
            Some(last) => Step::Gap { expected: last + 1, got: number },
        };
        self.last = Some(number);
        step
    }

    /// Forgets: a new connection begins anew.
    pub fn reset(&mut self) {
        self.last = None;
    }

    /// The last number.
    pub fn last(&self) -> Option<u64> {
        self.last
    }
}
