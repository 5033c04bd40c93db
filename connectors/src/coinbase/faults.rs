//! 500 seeded faults in the recorded session, told as Advanced Trade: every lost or repeated message is seen. And in the Exchange
//! session itself, where most aren't.
//!
//! Each run follows one product, with a heartbeat after every 20 messages, and one fault. A stand-in for the venue makes the
//! connection again when it is asked to, with a snapshot of the true book. A book that is told to be valid must be the
//! true one, in whole, after every message that comes in its place.

use std::collections::BTreeMap;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde_json::{Value, json};

use super::recorded::{advanced, heartbeat, params, session, take};
use super::{Advanced, Exchange};
use crate::venue::frame::FrameKind;
use crate::venue::protocol::{Action, Protocol};
use crate::venue::recorded::{RowBook, SlowBook, add, read_deltas, received, step, turned};

const RUNS: u64 = 500;
const KINDS: [&str; 6] = ["drop", "duplicate", "reorder", "cut", "torn", "digit"];

#[derive(Default, Debug)]
struct Tally {
    injected: usize,
    seen: usize,
    healed: usize,
    unseen_wrong: usize,
    unseen_right: usize,
}

/// A run: the product's messages (heartbeats are null), the reader's book, the true one.
struct Run<'a> {
    protocol: Box<dyn Protocol>,
    /// Whether it is Advanced Trade.
    numbered: bool,
    messages: &'a [Value],
    told: BTreeMap<String, RowBook>,
    truth: SlowBook,
    counts: BTreeMap<&'static str, u64>,
    sequence: u64,
    beats: u64,
    asked: bool,
    now_ns: i64,
}

impl Run<'_> {
    fn told(&self) -> RowBook {
        self.told.values().next().cloned().unwrap_or_default()
    }

    /// The text of a message, with the next number of the connection.
    fn text(&mut self, message: &Value) -> String {
        if !self.numbered {
            return message.to_string();
        }
        self.sequence += 1;
        if message.is_null() {
            self.beats += 1;
            return heartbeat(self.sequence - 1, 3000 + self.beats);
        }
        advanced(message, self.sequence - 1).unwrap()
    }

    fn send(&mut self, text: &str) {
        self.now_ns += 1_000_000;
        let (batch, out) = step(&mut *self.protocol, &received(self.now_ns, text));
        add(&mut self.counts, &out);
        read_deltas(&mut self.told, &batch);
        for action in &out.actions {
            match action {
                Action::Reconnect { connection: 0, .. } => self.asked = true,
                Action::Send { message, .. } => self.asked |= message.text.contains(r#""subscribe""#),
                other => panic!("{other:?}"),
            }
            assert!(!self.told().valid, "a right book is not asked for");
        }
    }

    /// The next message happens at the venue: the truth comes to it.
    fn happen(&mut self, i: usize) -> String {
        take(&mut self.truth, &self.messages[i]);
        let message = self.messages[i].clone();
        self.text(&message)
    }

    fn in_place(&mut self, i: usize, check: bool) {
        let text = self.happen(i);
        self.send(&text);
        if check {
            let told = self.told();
            assert!(
                !told.valid || told.equals(&self.truth, usize::MAX),
                "a wrong book is told to be valid at {i}"
            );
        }
        if std::mem::take(&mut self.asked) {
            self.again();
        }
    }

    /// The venue does as it was asked.
    fn again(&mut self) {
        if self.numbered {
            self.turn(FrameKind::Closed);
            self.turn(FrameKind::Opened);
            self.sequence = 0;
        }
        self.snapshot();
    }

    fn snapshot(&mut self) {
        let side = |bid| self.truth.side(bid).into_iter().map(|(p, s)| json!([p, s])).collect::<Vec<_>>();
        let snapshot = json!({
            "type": "snapshot", "product_id": self.messages[0]["product_id"], "bids": side(true), "asks": side(false),
        });
        let text = self.text(&snapshot);
        self.send(&text);
        let told = self.told();
        assert!(told.valid && told.equals(&self.truth, usize::MAX), "a snapshot heals");
    }

    fn turn(&mut self, kind: FrameKind) {
        let (batch, out) = step(&mut *self.protocol, &turned(self.now_ns, kind));
        add(&mut self.counts, &out);
        read_deltas(&mut self.told, &batch);
    }
}

fn change_digit(text: &str, rng: &mut Pcg64) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let digits: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i].is_ascii_digit()).collect();
    let at = *digits.choose(rng).unwrap();
    bytes[at] = b'0' + (bytes[at] - b'0' + rng.random_range(1..10)) % 10;
    String::from_utf8(bytes).unwrap()
}

fn one(numbered: bool, kind: &str, at: usize, messages: &[Value], rng: &mut Pcg64, tally: &mut Tally) {
    let protocol: Box<dyn Protocol> = match numbered {
        true => Box::new(Advanced::new(params("advanced", "book"))),
        false => Box::new(Exchange::new(params("exchange", "book"))),
    };
    let mut run = Run {
        protocol,
        numbered,
        messages,
        told: BTreeMap::new(),
        truth: SlowBook::default(),
        counts: BTreeMap::new(),
        sequence: 0,
        beats: 0,
        asked: false,
        now_ns: 1_618_678_132_000_000_000,
    };
    run.turn(FrameKind::Opened);
    (0..at).for_each(|i| run.in_place(i, true));
    assert!(run.told().valid);
    let blind = !numbered || kind == "digit";
    let mut next = at + 1;
    match kind {
        "drop" => {
            run.happen(at);
            run.in_place(next, !blind);
            next += 1;
            assert!(
                !numbered || (run.told().invalid, run.counts["gaps"]) == (1, 1),
                "seen with the next message"
            );
        }
        "duplicate" => {
            let text = run.happen(at);
            run.send(&text);
            run.send(&text);
            let told = run.told();
            let unharmed = told.valid && told.equals(&run.truth, usize::MAX);
            assert!(!numbered || (unharmed && run.counts["duplicates"] == 1), "seen, and passed over");
        }
        "reorder" => {
            let (first, second) = (run.happen(at), run.happen(next));
            next += 1;
            run.send(&second);
            assert!(!numbered || !run.told().valid);
            run.send(&first);
            if std::mem::take(&mut run.asked) {
                run.again();
            }
        }
        "cut" => {
            run.turn(FrameKind::Closed);
            assert!(!run.told().valid);
            for i in at..at + rng.random_range(1..8) {
                run.happen(i);
                next = i + 1;
            }
            run.turn(FrameKind::Opened);
            run.sequence = 0;
            run.snapshot();
        }
        "torn" => {
            let text = run.happen(at);
            let torn = &text[..rng.random_range(1..text.len())];
            run.send(torn);
            assert!(!run.told().valid && run.asked, "seen at once");
            run.asked = false;
            run.again();
        }
        _ => {
            let mut spoilt = messages[at].clone();
            let n = spoilt["changes"].as_array().unwrap().len();
            let text = &mut spoilt["changes"][rng.random_range(0..n)][rng.random_range(1..3)];
            let changed = change_digit(text.as_str().unwrap(), rng);
            *text = changed.into();
            take(&mut run.truth, &messages[at]);
            let text = run.text(&spoilt);
            run.send(&text);
            if std::mem::take(&mut run.asked) {
                run.again();
            }
        }
    }
    // A blind feed's book may stay wrong until the level is sent again.
    (next..messages.len()).for_each(|i| run.in_place(i, !blind));
    let told = run.told();
    assert!(told.valid, "{kind} at {at}: {:?}", run.counts);
    tally.injected += 1;
    let right = told.equals(&run.truth, usize::MAX);
    let duplicate_seen = run.counts.get("duplicates").is_some_and(|n| *n > 0);
    match told.invalid > 0 || duplicate_seen {
        true => {
            tally.seen += 1;
            tally.healed += usize::from(right);
        }
        false if right => tally.unseen_right += 1,
        false => tally.unseen_wrong += 1,
    }
}

fn products(beats: bool) -> Option<BTreeMap<String, Vec<Value>>> {
    let mut products: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (_, message) in session()? {
        if message["type"] == "snapshot" || message["type"] == "l2update" {
            let messages = products.entry(message["product_id"].as_str().unwrap().to_owned()).or_default();
            messages.push(message);
            if beats && messages.len().is_multiple_of(20) {
                messages.push(Value::Null);
            }
        }
    }
    // Where little happens, little can go wrong.
    products.retain(|_, messages| messages.len() > 60);
    Some(products)
}

fn all(numbered: bool) -> Option<BTreeMap<&'static str, Tally>> {
    let products = products(numbered)?;
    let weights: Vec<(&String, usize)> = products.iter().map(|(product, m)| (product, m.len())).collect();
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let (mut runs, mut attempts) = (0, 0);
    while runs < RUNS {
        attempts += 1;
        let mut rng = Pcg64::seed_from_u64(9000 + attempts);
        let kind = KINDS[runs as usize % KINDS.len()];
        let (product, _) = weights.choose_weighted(&mut rng, |(_, n)| *n).unwrap();
        let messages = &products[*product];
        // Of a long session a part is enough, and faster.
        let messages = &messages[..messages.len().min(400)];
        let at = rng.random_range(1..messages.len() - 12);
        if kind == "digit" && messages[at].is_null() {
            continue;
        }
        one(numbered, kind, at, messages, &mut rng, tallies.entry(kind).or_default());
        runs += 1;
    }
    println!(
        "| fault | injected | seen | right at the end | not seen and wrong at the end | not seen, right at the end |"
    );
    for kind in KINDS {
        let t = &tallies[kind];
        println!(
            "| {kind} | {} | {} | {} | {} | {} |",
            t.injected, t.seen, t.healed, t.unseen_wrong, t.unseen_right
        );
        assert_eq!(t.injected, t.seen + t.unseen_wrong + t.unseen_right);
    }
    Some(tallies)
}

#[test]
fn advanced_sees_every_lost_or_repeated_message_and_heals() {
    let Some(tallies) = all(true) else { return };
    for kind in ["drop", "duplicate", "reorder", "cut", "torn"] {
        let t = &tallies[kind];
        assert_eq!((t.seen, t.healed), (t.injected, t.injected), "{kind}");
    }
    assert!(tallies["digit"].unseen_wrong > 0, "a changed digit is not seen");
}

#[test]
fn exchange_sees_what_is_cut_torn_or_crossed_and_little_else() {
    let Some(tallies) = all(false) else { return };
    for kind in ["cut", "torn"] {
        let t = &tallies[kind];
        assert_eq!((t.seen, t.healed), (t.injected, t.injected), "{kind}");
    }
    for kind in ["drop", "digit"] {
        assert!(tallies[kind].unseen_wrong > 0, "{kind}: a lost or changed update is not seen");
    }
    assert_eq!(tallies["duplicate"].unseen_wrong, 0, "what comes twice at once changes nothing");
}
