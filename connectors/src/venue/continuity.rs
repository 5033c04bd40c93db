//! Trades without a hole: per symbol, ids follow one another, and what is missing is asked for.
//!
//! Pure. A live trade whose id does not follow the last one shows a hole: the trades behind it are
//! held, the missing ones asked for ([`Action::Fetch`]), and once they have come all go on in order of
//! their ids. After a restart the last ids come from the checkpoint, so the first live trade shows what was
//! missed meanwhile; the same joins an archive to live. A trade that comes twice is taken once.
//!
//! Memory: at most `held_max` trades a symbol. When they are more, or when the venue has failed to
//! give what is missing `tries_max` times in a row, the hole is given up: counted (`gaps`,
//! `missing_trades`), told as a notice, and the trades behind it go on.

use std::collections::BTreeMap;

use serde_json::Value;

use super::frame::Frame;
use super::once::sequences;
use super::protocol::{Action, Output};

/// Ids that are missing, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first.
    pub from: i64,
    /// The last.
    pub to: i64,
}

/// A request for missing trades.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is fetched.
    pub url: String,
    /// Its cost in the venue's units.
    pub weight: u32,
}

/// How much is held, and how often the venue is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Trades of a symbol held behind a hole.
    pub held_max: usize,
    /// Answers in a row that bring nothing, before a hole is given up.
    pub tries_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { held_max: 100_000, tries_max: 5 }
    }
}

/// Makes the request for what a symbol lacks.
type MakeRequest = dyn Fn(&str, Missing) -> Request + Send;

/// The lines of ids of all symbols. `T` is a trade.
pub struct Continuity<T> {
    lines: BTreeMap<Box<str>, Line<T>>,
    limits: Limits,
    request: Box<MakeRequest>,
}

struct Line<T> {
    /// Id of the last trade that went on.
    last: Option<i64>,
    /// Behind a hole.
    held: BTreeMap<i64, T>,
    /// What was asked for and not answered yet.
    asked: Option<String>,
    /// Answers in a row that brought nothing.
    tries: u32,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { last: None, held: BTreeMap::new(), asked: None, tries: 0 }
    }
}

impl<T> Line<T> {
    /// Lets go on what follows the last trade without a hole.
    fn advance(&mut self, emit: &mut impl FnMut(T)) {
        while let Some(entry) = self.held.first_entry() {
            match self.last {
                Some(last) if *entry.key() > last + 1 => return,
                Some(last) if *entry.key() <= last => drop(entry.remove()),
                _ => {
                    self.last = Some(*entry.key());
                    emit(entry.remove());
                }
            }
        }
    }

    /// The hole before the trades that are held.
    fn hole(&self) -> Option<Missing> {
        let (first, last) = (*self.held.first_key_value()?.0, self.last?);
        Some(Missing { from: last + 1, to: first - 1 })
    }
}

impl<T> Continuity<T> {
    /// `request` makes the request for missing ids of a symbol; an answer may bring only the first of
    /// them (the rest is asked for next), and more than them.
    pub fn new(limits: Limits, request: impl Fn(&str, Missing) -> Request + Send + 'static) -> Self {
        Self { lines: BTreeMap::new(), limits, request: Box::new(request) }
    }

    /// Takes a live trade: `emit` gets those that may go on, in order of ids.
    pub fn live(
        &mut self,
        frame: &Frame,
        symbol: &str,
        id: i64,
        trade: T,
        emit: &mut impl FnMut(T),
        out: &mut Output,
    ) {
        if !self.lines.contains_key(symbol) {
            self.lines.insert(symbol.into(), Line::default());
        }
        let Some(line) = self.lines.get_mut(symbol) else { return };
        match line.last {
            Some(last) if id <= last => return out.count("duplicates"),
            Some(last) if id > last + 1 => {
                if line.held.insert(id, trade).is_some() {
                    out.count("duplicates");
                }
                if line.held.len() > self.limits.held_max {
                    give_up(symbol, line, emit, out, "too many trades came behind it");
                }
            }
            _ => {
                line.last = Some(id);
                emit(trade);
                line.advance(emit);
            }
        }
        self.ask(frame, symbol, out);
    }

    /// The symbol whose missing trades were asked for with `url`, if any.
    pub fn asked(&self, url: &str) -> Option<&str> {
        self.lines.iter().find(|(_, line)| line.asked.as_deref() == Some(url)).map(|(symbol, _)| &**symbol)
    }

    /// Takes the trades of an answer, in any order; those outside of the hole may be among them.
    pub fn answered(
        &mut self,
        frame: &Frame,
        symbol: &str,
        trades: impl IntoIterator<Item = (i64, T)>,
        emit: &mut impl FnMut(T),
        out: &mut Output,
    ) {
        let Some(line) = self.lines.get_mut(symbol) else { return };
        line.asked = None;
        let before = line.last;
        let Some(hole) = line.hole() else { return };
        for (id, trade) in trades {
            // What lies behind the hole came live or will: taking it here too could pass over the bound.
            if (hole.from..=hole.to).contains(&id) && line.held.insert(id, trade).is_none() {
                out.count("recovered_trades");
            }
        }
        line.advance(emit);
        if line.last == before {
            return self.fail(frame, symbol, emit, out, "the venue's answer lacks them");
        }
        line.tries = 0;
        self.ask(frame, symbol, out);
    }

    /// Takes an answer that is none: an error, or not what was asked for.
    pub fn refused(
        &mut self,
        frame: &Frame,
        symbol: &str,
        reason: &str,
        emit: &mut impl FnMut(T),
        out: &mut Output,
    ) {
        if let Some(line) = self.lines.get_mut(symbol) {
            line.asked = None;
        }
        self.fail(frame, symbol, emit, out, reason);
    }

    fn fail(
        &mut self,
        frame: &Frame,
        symbol: &str,
        emit: &mut impl FnMut(T),
        out: &mut Output,
        reason: &str,
    ) {
        let Some(line) = self.lines.get_mut(symbol) else { return };
        line.tries += 1;
        if line.tries >= self.limits.tries_max {
            give_up(symbol, line, emit, out, reason);
        }
        self.ask(frame, symbol, out);
    }

    fn ask(&mut self, frame: &Frame, symbol: &str, out: &mut Output) {
        let Some(line) = self.lines.get_mut(symbol) else { return };
        let Some(hole) = line.hole().filter(|_| line.asked.is_none()) else { return };
        let Request { url, weight } = (self.request)(symbol, hole);
        line.asked = Some(url.clone());
        out.actions.push(Action::Fetch { connection: frame.connection, url, weight });
    }

    /// Id of the last trade of `symbol` that went on.
    pub fn last(&self, symbol: &str) -> Option<i64> {
        self.lines.get(symbol)?.last
    }

    /// Trades held behind holes.
    pub fn held(&self) -> usize {
        self.lines.values().map(|line| line.held.len()).sum()
    }

    /// For a checkpoint: `{symbol: last id}`. Held trades are not in it: they are asked for again.
    pub fn state(&self) -> Value {
        let known =
            self.lines.iter().filter_map(|(symbol, line)| Some((symbol.to_string(), line.last?.into())));
        Value::Object(known.collect())
    }

    /// Goes on behind the last ids of a state; any `{symbol: id}` joins to what an archive ends with.
    pub fn restore(&mut self, state: &Value) -> Result<(), String> {
        let lines = sequences(state)?;
        self.lines =
            lines.map(|(symbol, last)| (symbol, Line { last: Some(last), ..Line::default() })).collect();
        Ok(())
    }
}

fn give_up<T>(symbol: &str, line: &mut Line<T>, emit: &mut impl FnMut(T), out: &mut Output, reason: &str) {
    let Some(hole) = line.hole() else { return };
    let count = hole.to - hole.from + 1;
    out.count("gaps");
    *out.counts.entry("missing_trades").or_default() += count.unsigned_abs();
    out.notices
        .push(format!("{symbol}: trades {} to {} are missing and given up: {reason}", hole.from, hole.to));
    line.last = Some(hole.to);
    line.tries = 0;
    // What was asked for stays asked: a late answer finds its ids gone by and changes nothing.
    line.asked = None;
    line.advance(emit);
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;
    use crate::venue::frame::FrameKind;

    fn frame() -> Frame {
        Frame { received_ns: 0, connection: 3, kind: FrameKind::Received, data: Default::default() }
    }

    fn continuity(limits: Limits) -> Continuity<(String, i64)> {
        Continuity::new(limits, |symbol, missing| Request {
            url: format!("{symbol}?from={}&to={}", missing.from, missing.to),
            weight: 1,
        })
    }

    /// The symbol and the ids in a request.
    fn read(action: &Action) -> (String, i64, i64) {
        let Action::Fetch { connection: 3, url, .. } = action else { panic!("{action:?}") };
        let (symbol, rest) = url.split_once("?from=").unwrap();
        let (from, to) = rest.split_once("&to=").unwrap();
        (symbol.to_owned(), from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn whatever_is_lost_repeated_or_out_of_order_each_trade_goes_on_once_in_order() {
        for seed in 0..300 {
            let mut rng = Pcg64::seed_from_u64(seed);
            let mut line = continuity(Limits::default());
            let mut got: BTreeMap<String, Vec<i64>> = BTreeMap::new();
            let mut asked: Vec<Action> = Vec::new();
            let mut out = Output::default();
            let mut newest = BTreeMap::from([("A".to_owned(), 100i64), ("B".to_owned(), 500)]);
            let first = newest.clone();
            for step in 0..400 {
                let symbol = if rng.random_bool(0.5) { "A" } else { "B" };
                let last = newest.get_mut(symbol).unwrap();
                *last += 1;
                let mut ids = vec![*last];
                if rng.random_bool(0.1) {
                    ids.push(*last - rng.random_range(0..5).min(*last - first[symbol] - 1));
                }
                // The first is seen, or there is nothing it could be missing from; so is the last.
                let lost = rng.random_bool(0.1) && *last > first[symbol] + 1 && step < 390;
                for id in ids.into_iter().filter(|_| !lost) {
                    let mut emit = |(s, id): (String, i64)| got.entry(s).or_default().push(id);
                    line.live(&frame(), symbol, id, (symbol.to_owned(), id), &mut emit, &mut out);
                }
                asked.append(&mut out.actions);
                // Answers come late, are cut to a page, may fail, and bring more than was asked for.
                while !asked.is_empty() && (step == 399 || rng.random_bool(0.3)) {
                    let (symbol, from, to) = read(&asked.remove(0));
                    let mut emit = |(s, id): (String, i64)| got.entry(s).or_default().push(id);
                    if rng.random_bool(0.2) {
                        line.refused(&frame(), &symbol, "status 500", &mut emit, &mut out);
                    } else {
                        let end = (from + rng.random_range(0..4)).min(to + 2).min(newest[&symbol]);
                        let page: Vec<_> =
                            (from - 1..=end).map(|id| (id, (symbol.clone(), id))).rev().collect();
                        line.answered(&frame(), &symbol, page, &mut emit, &mut out);
                    }
                    asked.append(&mut out.actions);
                }
            }
            for (symbol, ids) in &got {
                let whole: Vec<i64> = (first[symbol] + 1..=*ids.last().unwrap()).collect();
                let gaps = out.counts.get("missing_trades").copied().unwrap_or(0);
                if gaps == 0 {
                    assert_eq!(ids, &whole, "seed {seed}, {symbol}");
                } else {
                    assert!(ids.is_sorted_by(|a, b| a < b), "seed {seed}: in order, none twice");
                }
            }
        }
    }

    #[test]
    fn after_a_restart_the_first_live_trade_shows_what_was_missed() {
        let mut line = continuity(Limits::default());
        line.restore(&serde_json::json!({"A": 10})).unwrap();
        let (mut out, mut got) = (Output::default(), Vec::new());
        line.live(&frame(), "A", 14, ("A".into(), 14), &mut |t| got.push(t.1), &mut out);
        assert_eq!(read(&out.actions[0]), ("A".into(), 11, 13));
        assert_eq!((got.len(), line.asked("A?from=11&to=13")), (0, Some("A")));
        let trades = (11..=13).map(|id| (id, ("A".to_owned(), id)));
        line.answered(&frame(), "A", trades, &mut |t| got.push(t.1), &mut out);
        assert_eq!(got, [11, 12, 13, 14]);
        assert_eq!((line.state(), out.counts["recovered_trades"]), (serde_json::json!({"A": 14}), 3));
    }

    #[test]
    fn a_hole_that_nobody_can_fill_is_given_up_and_told() {
        let mut line = continuity(Limits { held_max: 3, tries_max: 2 });
        let (mut out, mut got) = (Output::default(), Vec::new());
        let mut emit = |t: (String, i64)| got.push(t.1);
        for id in [1, 5] {
            line.live(&frame(), "A", id, ("A".into(), id), &mut emit, &mut out);
        }
        line.refused(&frame(), "A", "status 404", &mut emit, &mut out);
        assert_eq!(out.actions.len(), 2, "asked again");
        line.answered(&frame(), "A", [], &mut emit, &mut out);
        assert_eq!((out.counts["gaps"], out.counts["missing_trades"]), (1, 3));
        assert!(out.notices[0].starts_with("A: trades 2 to 4 are missing"), "{}", out.notices[0]);
        // And one behind which too much comes.
        for id in 10..14 {
            line.live(&frame(), "A", id, ("A".into(), id), &mut emit, &mut out);
        }
        assert_eq!((got, out.counts["gaps"]), (vec![1, 5, 10, 11, 12, 13], 2));
    }
}
