//! What goes wrong: drawn by a seed, so that a run can be repeated.

use std::time::Duration;

use crate::Rng;

/// What happens to one request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing odd.
    Fine,
    /// Taken, and the connection is cut before the answer.
    TakenThenCut,
    /// Not taken; the connection is cut.
    Cut,
    /// Taken, and answered with 500.
    TakenThen500,
    /// Not taken; answered with 503.
    Unavailable,
    /// Taken, and the answer comes too late.
    TakenThenSilence,
    /// Not taken yet: it arrives after the client has given up on it.
    LateArrival,
    /// Not taken; 429 with a wait.
    TooMany,
    /// Taken; the answer is cut off in its middle.
    HalfAnswer,
    /// Not taken: refused, as an order for units that another one holds.
    Refused,
}

const ODD: [Fate; 8] = [
    Fate::TakenThenCut,
    Fate::Cut,
    Fate::TakenThen500,
    Fate::Unavailable,
    Fate::TakenThenSilence,
    Fate::LateArrival,
    Fate::TooMany,
    Fate::HalfAnswer,
];

/// What goes wrong.
#[derive(Clone, Debug)]
pub struct Faults {
    rng: Rng,
    /// Percent of requests that change something which meet an odd [`Fate`].
    pub odd_percent: u64,
    /// Percent of questions that are answered with 500, 429 or not at all.
    pub deaf_percent: u64,
    /// Percent of updates that are dropped from the stream.
    pub dropped_percent: u64,
    /// Percent of updates that come twice.
    pub twice_percent: u64,
    /// Percent of updates with which the stream is cut.
    pub cut_percent: u64,
    /// Percent of updates that are delayed, up to 50 ms, behind others.
    pub delayed_percent: u64,
    /// How long the client waits for an answer: silence is longer.
    pub patience: Duration,
    /// Seconds that the venue's clock is ahead of this machine's.
    pub ahead_s: i64,
    /// Questions about one position are answered with 500.
    pub positions_down: bool,
    /// Fates that come first, in their order.
    pub next: Vec<Fate>,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self {
            rng: Rng(0),
            odd_percent: 0,
            deaf_percent: 0,
            dropped_percent: 0,
            twice_percent: 0,
            cut_percent: 0,
            delayed_percent: 0,
            patience: Duration::from_millis(250),
            ahead_s: 0,
            positions_down: false,
            next: Vec::new(),
        }
    }

    /// Much goes wrong.
    pub fn wild(seed: u64) -> Self {
        Self {
            rng: Rng(seed),
            odd_percent: 25,
            deaf_percent: 8,
            dropped_percent: 10,
            twice_percent: 15,
            cut_percent: 5,
            delayed_percent: 15,
            ..Self::none()
        }
    }

    /// These fates, then nothing.
    pub fn then(fates: &[Fate]) -> Self {
        Self { next: fates.to_vec(), ..Self::none() }
    }

    fn hits(&mut self, percent: u64) -> bool {
        percent > 0 && self.rng.within(0..100) < percent
    }

    /// Of a request that changes something.
    pub(crate) fn fate(&mut self) -> Fate {
        if !self.next.is_empty() {
            return self.next.remove(0);
        }
        if self.hits(self.odd_percent) {
            ODD[self.rng.within(0..ODD.len() as u64) as usize]
        } else {
            Fate::Fine
        }
    }

    /// Of a question: an answer in place of the right one; 0 is none at all.
    pub(crate) fn deaf(&mut self) -> Option<u16> {
        self.hits(self.deaf_percent).then(|| [500, 429, 0, 503][self.rng.within(0..4) as usize])
    }

    /// Of an update: how often it comes, after how many milliseconds, and whether the stream is cut before it.
    pub(crate) fn update(&mut self) -> (usize, u64, bool) {
        let times =
            if self.hits(self.dropped_percent) { 0 } else { 1 + usize::from(self.hits(self.twice_percent)) };
        let delay = if self.hits(self.delayed_percent) { self.rng.within(1..50) } else { 0 };
        (times, delay, self.hits(self.cut_percent))
    }
}
