//! 500 seeded faults in the recorded book session: what is seen, what isn't, and how a book heals.
//!
//! Each run follows one pair with one fault. A stand-in for the venue answers a new subscription with a snapshot of the true book. After
//! every update that comes in its place a book that is told to be valid must have the true book's ten best levels.

use std::collections::BTreeMap;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde_json::{Value, json};

use super::V1;
use super::recorded::{data, v1};
use crate::venue::frame::FrameKind;
use crate::venue::protocol::Action;
use crate::venue::recorded::{RowBook, SlowBook, add, frames, read_deltas, received, step, turned};

const RUNS: u64 = 500;
const DEPTH: usize = 1000;
const KINDS: [&str; 7] =
    ["drop", "duplicate", "reorder", "digit in the top ten", "digit below", "checksum digit", "cut"];

/// A run: the pair's messages, the reader's book, the true one.
struct Run<'a> {
    protocol: V1,
    messages: &'a [Value],
    told: BTreeMap<String, RowBook>,
    truth: SlowBook,
    counts: BTreeMap<&'static str, u64>,
    /// The venue was asked for a snapshot, and sends it after so many messages more.
    answer_in: Option<usize>,
    now_ns: i64,
}

impl Run<'_> {
    fn told(&self) -> RowBook {
        self.told.values().next().cloned().unwrap_or_default()
    }

    /// Hands a message over and takes what comes of it.
    fn send(&mut self, text: &str) {
        self.now_ns += 1_000_000;
        let (batch, out) = step(&mut self.protocol, &received(self.now_ns, text));
        add(&mut self.counts, &out);
        read_deltas(&mut self.told, &batch);
        let again =
            |a: &Action| matches!(a, Action::Send { message, .. } if message.text.contains(r#""subscribe""#));
        if out.actions.iter().any(again) {
            assert!(!self.told().valid, "a right book is not asked for");
            // The next one or two are on their way already.
            self.answer_in = Some(self.answer_in.unwrap_or(2));
        }
    }

    /// Sends message `i` in its place: the truth has come to it, and a valid book must show the same.
    fn in_place(&mut self, i: usize) {
        self.truth.kraken_v1(&self.messages[i], DEPTH);
        self.send(&self.messages[i].to_string());
        self.check(i);
        self.answer();
    }

    fn check(&self, i: usize) {
        let told = self.told();
        assert!(!told.valid || told.equals(&self.truth, 10), "a wrong book is told to be valid at {i}");
    }

    /// The venue's snapshot, when its time has come.
    fn answer(&mut self) {
        match self.answer_in {
            Some(0) => {
                self.answer_in = None;
                self.snapshot();
            }
            Some(n) => self.answer_in = Some(n - 1),
            None => {}
        }
    }

    fn snapshot(&mut self) {
        let side = |bid| {
            let levels = self.truth.side(bid).into_iter().map(|(p, s)| json!([p, s, "1618678132.5"]));
            levels.collect::<Vec<Value>>()
        };
        let last = self.messages[0].as_array().unwrap();
        let [name, pair] = [&last[last.len() - 2], &last[last.len() - 1]];
        let snapshot = json!([1, { "as": side(false), "bs": side(true) }, name, pair]);
        self.send(&snapshot.to_string());
        let told = self.told();
        assert!(told.valid && told.equals(&self.truth, usize::MAX), "a snapshot heals");
    }

    fn turn(&mut self, kind: FrameKind) {
        let (batch, out) = step(&mut self.protocol, &turned(self.now_ns, kind));
        add(&mut self.counts, &out);
        read_deltas(&mut self.told, &batch);
    }
}

/// The levels of an update: payload, key, index, and whether the price is among the ten best before or after.
fn levels(message: &Value, before: &SlowBook, after: &SlowBook) -> Vec<(usize, String, usize, bool)> {
    let parts = message.as_array().unwrap();
    let mut found: Vec<(usize, String, usize, bool)> = Vec::new();
    for (p, payload) in parts.iter().enumerate().take(parts.len() - 2).skip(1) {
        for (key, list) in payload.as_object().unwrap().iter().filter(|(key, _)| *key != "c") {
            let list = list.as_array().unwrap();
            for (l, level) in list.iter().enumerate() {
                let price = level[0].as_str().unwrap();
                // Of two levels at one price the last counts.
                if list[l + 1..].iter().any(|other| other[0] == level[0]) {
                    continue;
                }
                let bid = key == "b";
                let near = |book: &SlowBook| book.side(bid).iter().take(10).any(|(p, _)| *p == price);
                // A level that the true book hasn't got after the update and hadn't before matters to nobody.
                found.push((p, key.clone(), l, near(before) || near(after)));
            }
        }
    }
    found
}

/// Another digit in the text.
fn change_digit(text: &str, rng: &mut Pcg64) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let digits: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i].is_ascii_digit()).collect();
    let at = *digits.choose(rng).unwrap();
    bytes[at] = b'0' + (bytes[at] - b'0' + rng.random_range(1..10)) % 10;
    String::from_utf8(bytes).unwrap()
}

#[derive(Default, Debug)]
struct Tally {
    injected: usize,
    seen: usize,
    healed: usize,
    wrong_below: usize,
    right: usize,
}

#[test]
fn what_touches_the_top_ten_is_seen_and_heals() {
    let Some(frames) = frames("kraken.ws.50.part.gz", 0) else { return };
    let mut pairs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for message in frames.iter().filter_map(data) {
        let pair = message.as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
        pairs.entry(pair).or_default().push(message);
    }
    let weights: Vec<(&String, usize)> = pairs.iter().map(|(pair, m)| (pair, m.len())).collect();
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let (mut run_number, mut attempts) = (0, 0);
    while run_number < RUNS {
        attempts += 1;
        assert!(attempts < 20 * RUNS);
        let mut rng = Pcg64::seed_from_u64(7000 + attempts);
        let kind = KINDS[run_number as usize % KINDS.len()];
        let (pair, _) = weights.choose_weighted(&mut rng, |(_, n)| *n).unwrap();
        let messages = &pairs[*pair];
        if messages.len() < 40 {
            continue;
        }
        let at = rng.random_range(1..messages.len() - 12);
        if !one(kind, at, messages, &mut rng, tallies.entry(kind).or_default()) {
            continue;
        }
        run_number += 1;
    }
    println!(
        "| fault | injected | seen | healed | not seen, wrong below the tenth level at the end | not seen, right at the end |"
    );
    for kind in KINDS {
        let t = &tallies[kind];
        println!("| {kind} | {} | {} | {} | {} | {} |", t.injected, t.seen, t.healed, t.wrong_below, t.right);
        assert_eq!(t.injected, t.seen + t.wrong_below + t.right);
        assert_eq!(t.seen, t.healed, "{kind}");
    }
    for always in ["digit in the top ten", "checksum digit", "cut"] {
        assert_eq!(tallies[always].seen, tallies[always].injected, "{always}");
    }
    assert!(tallies["digit below"].wrong_below > 0, "what is wrong below the tenth level is not seen");
    assert!(tallies["drop"].seen > tallies["drop"].injected / 4);
}

/// One fault at message `at`; false where there is nothing of the kind to spoil.
fn one(kind: &str, at: usize, messages: &[Value], rng: &mut Pcg64, tally: &mut Tally) -> bool {
    let mut before = SlowBook::default();
    messages[..at].iter().for_each(|m| {
        before.kraken_v1(m, DEPTH);
    });
    let mut spoilt = messages[at].clone();
    if kind.contains("digit") {
        let mut after = before.clone();
        after.kraken_v1(&messages[at], DEPTH);
        if kind == "checksum digit" {
            let n = spoilt.as_array().unwrap().len();
            let c = change_digit(spoilt[n - 3]["c"].as_str().unwrap(), rng);
            spoilt[n - 3]["c"] = c.into();
        } else {
            let near = kind == "digit in the top ten";
            let found = levels(&messages[at], &before, &after);
            let found: Vec<_> = found.into_iter().filter(|(_, _, _, is_near)| *is_near == near).collect();
            let Some((payload, key, level, _)) = found.choose(rng) else { return false };
            let text = &mut spoilt[payload][key][level][rng.random_range(0..2)];
            let changed = change_digit(text.as_str().unwrap(), rng);
            *text = changed.into();
        }
    }
    let mut run = Run {
        protocol: v1("book", json!({})),
        messages,
        told: BTreeMap::new(),
        truth: SlowBook::default(),
        counts: BTreeMap::new(),
        answer_in: None,
        now_ns: 1_618_678_132_000_000_000,
    };
    (0..at).for_each(|i| run.in_place(i));
    assert!(run.told().valid && run.told().equals(&run.truth, usize::MAX));
    let mut next = at + 1;
    match kind {
        "drop" => {
            run.truth.kraken_v1(&messages[at], DEPTH);
        }
        "duplicate" => {
            run.in_place(at);
            for _ in 0..rng.random_range(0..4) {
                run.in_place(next);
                next += 1;
            }
            run.send(&messages[at].to_string());
        }
        "reorder" => {
            run.send(&messages[at + 1].to_string());
            run.send(&messages[at].to_string());
            for i in [at, at + 1] {
                run.truth.kraken_v1(&messages[i], DEPTH);
            }
            next += 1;
        }
        "cut" => {
            run.turn(FrameKind::Closed);
            assert!(!run.told().valid);
            for _ in 0..rng.random_range(0..8) {
                run.truth.kraken_v1(&messages[next - 1], DEPTH);
                next += 1;
            }
            run.truth.kraken_v1(&messages[next - 1], DEPTH);
            run.turn(FrameKind::Opened);
            run.snapshot();
        }
        _ => {
            run.truth.kraken_v1(&messages[at], DEPTH);
            run.send(&spoilt.to_string());
            run.check(at);
            if kind != "digit below" {
                assert!(!run.told().valid, "{kind}: seen with the update itself");
            }
        }
    }
    (next..messages.len()).for_each(|i| run.in_place(i));
    // Whoever asked in the last messages gets an answer after the end.
    while run.answer_in.is_some() {
        run.answer();
    }
    let told = run.told();
    tally.injected += 1;
    assert!(told.valid, "{kind} at {at}: {:?}", run.counts);
    match (told.invalid, told.equals(&run.truth, usize::MAX)) {
        (0, true) => tally.right += 1,
        (0, false) => tally.wrong_below += 1,
        (_, healed) => {
            tally.seen += 1;
            tally.healed += usize::from(healed);
            assert!(run.counts.get("resyncs").is_some_and(|n| *n >= 1));
        }
    }
    true
}
