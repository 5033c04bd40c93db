//! Faults at seeded points of the recorded sessions: whatever the venue's protocol lets one see is seen, no book is
//! reported valid that differs from the true one in such a way, and books heal.
//!
//! After every frame, every book that the rows call valid must have the fingerprint of the true book, at the last
//! difference that was delivered. Snapshots are answered by a server that knows the true books.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::BinanceFeed;
use super::recorded::{Diff, Truth, View, feed, session, step, truths};
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::protocol::{Action, Output};

/// Points of each session.
const POINTS: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Drop,
    /// Once more, so many frames later.
    Duplicate(usize),
    /// With the symbol's next difference.
    Reorder,
    /// One digit of a price or size.
    CorruptLevel,
    /// One digit of `U`, `u` or `pu`.
    CorruptId,
    /// One byte anywhere.
    CorruptByte,
    /// Half of the message arrives.
    Truncate,
    /// The connection is lost for so many frames.
    Cut(usize),
}

impl Fault {
    fn draw(rng: &mut Pcg64) -> Self {
        match rng.random_range(0..9) {
            0 | 1 => Self::Drop,
            2 => Self::Duplicate(rng.random_range(0..40)),
            3 => Self::Reorder,
            4 => Self::CorruptLevel,
            5 => Self::CorruptId,
            6 => Self::CorruptByte,
            7 => Self::Truncate,
            _ => Self::Cut(rng.random_range(0..60)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Drop => "dropped",
            Self::Duplicate(_) => "repeated",
            Self::Reorder => "swapped with the next",
            Self::CorruptLevel => "a digit of a price or size changed",
            Self::CorruptId => "a digit of an id changed",
            Self::CorruptByte => "a byte changed",
            Self::Truncate => "cut short",
            Self::Cut(_) => "connection lost",
        }
    }
}

/// The frames of a session that the venue sent on the depth streams, and what is true of them.
struct Session {
    market: &'static str,
    symbols: Vec<String>,
    frames: Vec<Frame>,
    /// Of each frame: symbol and difference.
    diffs: Vec<(String, Diff)>,
    truths: BTreeMap<String, Truth>,
    answers: HashMap<(String, u64), (u64, Bytes)>,
}

impl Session {
    fn load(name: &str, market: &'static str) -> Option<Self> {
        let all = session(name)?;
        let truths = truths(&all);
        let read = |frame: Frame| Some((Diff::read(&frame.data)?, frame));
        let received = all.into_iter().filter(|f| f.kind == FrameKind::Received);
        let (diffs, frames) = received.filter_map(read).unzip();
        let symbols = truths.keys().cloned().collect();
        Some(Self { market, symbols, frames, diffs, truths, answers: HashMap::new() })
    }

    /// What the venue answers after it has sent all frames before `at`.
    fn answer(&mut self, symbol: &str, at: usize) -> (u64, Bytes) {
        let sent = self.diffs[..at].iter().rev().find(|(s, _)| s == symbol).map_or(0, |(_, d)| d.last);
        let truth = &self.truths[symbol];
        self.answers.entry((symbol.to_owned(), sent)).or_insert_with(|| truth.answer(sent)).clone()
    }

    /// The symbol's next difference after frame `at`.
    fn next_of(&self, symbol: &str, at: usize) -> Option<usize> {
        (at + 1..self.diffs.len()).find(|i| self.diffs[*i].0 == symbol)
    }
}

/// One run of a session with one fault.
struct Run<'a> {
    session: &'a mut Session,
    rng: Pcg64,
    feed: BinanceFeed,
    views: BTreeMap<String, View>,
    /// What may be believed of each symbol; a changed digit makes another truth.
    beliefs: BTreeMap<String, Truth>,
    /// The last update of each symbol that reached us.
    known: BTreeMap<String, u64>,
    /// Requests on their way: symbol, URL, and the frame before which the answer comes.
    asked: Vec<(String, String, usize)>,
    counts: BTreeMap<&'static str, u64>,
    rejects: usize,
    /// Whether the books are still to be compared with the truth.
    comparable: bool,
    /// Answers are those of so many frames before.
    lag: usize,
}

impl<'a> Run<'a> {
    fn new(session: &'a mut Session, seed: u64) -> Self {
        let symbols = serde_json::to_string(&session.symbols).unwrap();
        let market = session.market;
        let with =
            format!(r#"{{"market":"{market}","symbols":{symbols},"channel":"book","check_symbols":false}}"#);
        let mut rng = Pcg64::seed_from_u64(seed);
        let lag = if rng.random_bool(0.2) { rng.random_range(1..30) } else { 0 };
        let beliefs = session.truths.clone();
        Self {
            session,
            rng,
            feed: feed(&with),
            views: BTreeMap::new(),
            beliefs,
            known: BTreeMap::new(),
            asked: Vec::new(),
            counts: BTreeMap::new(),
            rejects: 0,
            comparable: true,
            lag,
        }
    }

    /// Hands a frame over and checks every book.
    fn hand(&mut self, at: usize, frame: &Frame) {
        let (rows, Output { actions, rejects, counts, .. }) = step(&mut self.feed, frame);
        self.rejects += rejects.len();
        for (name, n) in counts {
            *self.counts.entry(name).or_default() += n;
        }
        for action in actions {
            let Action::Fetch { url, .. } = action else { panic!("{action:?}") };
            let symbol = url.split("symbol=").nth(1).unwrap().split('&').next().unwrap().to_owned();
            let delay = self.rng.random_range(0..25);
            self.asked.push((symbol, url, at + delay));
        }
        for symbol in View::take(&mut self.views, &rows) {
            let view = &self.views[&symbol];
            if view.valid {
                let known = self.known.entry(symbol).or_default();
                *known = view.id.max(*known);
            }
        }
        self.check(&format!("after frame {at}"));
    }

    fn check(&self, when: &str) {
        if !self.comparable {
            return;
        }
        for (symbol, view) in self.views.iter().filter(|(_, view)| view.valid) {
            let known = self.known.get(symbol).copied().unwrap_or_default();
            let truth = self.session.truths[symbol].print(known);
            // A book with a changed digit that nobody can see is as wrong as the message was, and no more.
            let believed = self.beliefs[symbol].print(known);
            assert!(
                view.print == truth || view.print == believed,
                "{symbol} is called valid and is wrong {when}, at update {known}"
            );
        }
    }

    /// Hands over a message of the depth stream: from here on its update is known.
    fn deliver(&mut self, at: usize, frame: &Frame) {
        if let Some((symbol, diff)) = Diff::read(&frame.data) {
            let known = self.known.entry(symbol).or_default();
            *known = diff.last.max(*known);
        }
        self.hand(at, frame);
    }

    /// Answers the requests whose time has come.
    fn answer(&mut self, at: usize, all: bool) {
        for _ in 0..100 {
            let Some(i) = self.asked.iter().position(|(_, _, due)| all || *due <= at) else { return };
            let (symbol, url, _) = self.asked.remove(i);
            let (_, data) = self.session.answer(&symbol, at.saturating_sub(self.lag));
            let received_ns = self.session.frames[at.min(self.session.frames.len() - 1)].received_ns;
            let frame =
                Frame { received_ns, connection: 0, kind: FrameKind::Response { url, status: 200 }, data };
            self.hand(at, &frame);
        }
        panic!("the feed asks without an end");
    }

    fn notice(&mut self, at: usize, kind: FrameKind, text: &'static str) {
        let received_ns = self.session.frames[at].received_ns;
        self.hand(at, &Frame { received_ns, connection: 0, kind, data: Bytes::from_static(text.as_bytes()) });
    }

    fn valid(&self, symbol: &str) -> bool {
        self.views.get(symbol).is_some_and(|view| view.valid)
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }
}

/// A byte of the frame, within what `pick` says, changed: a digit to another digit, anything else to anything.
fn corrupt(frame: &Frame, range: std::ops::Range<usize>, digits: bool, rng: &mut Pcg64) -> Option<Frame> {
    let mut data = frame.data.to_vec();
    let places: Vec<usize> = range.filter(|i| !digits || data[*i].is_ascii_digit()).collect();
    let at = *places.get(rng.random_range(0..places.len().max(1)))?;
    let old = data[at];
    while data[at] == old {
        data[at] =
            if old.is_ascii_digit() { rng.random_range(b'0'..=b'9') } else { rng.random_range(32..127) };
    }
    Some(Frame { data: data.into(), ..frame.clone() })
}

fn find(data: &[u8], text: &[u8]) -> usize {
    data.windows(text.len()).position(|w| w == text).unwrap()
}

/// What came of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// The book was made invalid by it, and healed.
    Healed,
    /// Passed over and counted; the book stayed right.
    Ignored,
    /// The book was not valid, or the message was older than the snapshot: nothing to harm.
    Harmless,
    /// Not seen: the protocol doesn't let one see it.
    Unseen,
}

fn inject(run: &mut Run<'_>, at: usize, fault: Fault) -> Seen {
    let n = run.session.frames.len();
    let (symbol, diff) = run.session.diffs[at].clone();
    let next = run.session.next_of(&symbol, at);
    let mut order: Vec<usize> = (0..n).collect();
    let mut extra: BTreeMap<usize, Frame> = BTreeMap::new();
    let mut replaced: Option<Frame> = None;
    let frame = run.session.frames[at].clone();
    match fault {
        Fault::Drop => {
            order.remove(at);
        }
        Fault::Duplicate(later) => {
            extra.insert((at + later).min(n - 1), frame.clone());
        }
        Fault::Reorder => {
            let Some(next) = next else { return Seen::Harmless };
            order.swap(at, next);
        }
        Fault::CorruptLevel => {
            let range = find(&frame.data, b"\"b\":[")..frame.data.len();
            replaced = corrupt(&frame, range, true, &mut run.rng);
        }
        Fault::CorruptId => {
            let range = find(&frame.data, b"\"U\":")..find(&frame.data, b"\"b\":[");
            replaced = corrupt(&frame, range, true, &mut run.rng);
        }
        Fault::CorruptByte => replaced = corrupt(&frame, 0..frame.data.len(), false, &mut run.rng),
        Fault::Truncate => {
            let half = run.rng.random_range(1..frame.data.len());
            replaced = Some(Frame { data: frame.data.slice(..half), ..frame.clone() });
        }
        Fault::Cut(_) => {}
    }
    let corrupted = replaced.as_ref().map(|frame| Diff::read(&frame.data));
    if let Some(Some((other, bad))) = &corrupted {
        let ids = *other == symbol && bad.first == diff.first && bad.last == diff.last;
        match ids {
            // As the message was read, so the book must be.
            true => {
                let belief = run.session.truths[&symbol].with(bad);
                run.beliefs.insert(symbol.clone(), belief);
            }
            // Wrong ids may join by chance; what is known by them is no longer what is true.
            false => run.comparable = false,
        }
    }
    // An exponent is a number too, but not to the slow rebuild.
    let exponent =
        |frame: &Frame| frame.data.iter().any(|b| *b == b'E' || *b == b'e') && fault == Fault::CorruptByte;
    if replaced.as_ref().is_some_and(exponent) && corrupted.as_ref().is_some_and(Option::is_none) {
        run.comparable = false;
    }
    let lost = match fault {
        Fault::Cut(frames) => at..(at + 1 + frames).min(n),
        _ => 0..0,
    };
    let (mut was_valid, mut invalid_before, mut faults_before) = (false, 0, BTreeMap::new());
    let mut seen_at = None;
    for (position, i) in order.into_iter().enumerate() {
        run.answer(position, false);
        if position == at {
            was_valid = run.valid(&symbol);
            invalid_before = run.views.get(&symbol).map_or(0, |view| view.invalid);
            faults_before = run.counts.clone();
        }
        if lost.contains(&position) {
            if position == lost.start {
                run.notice(position, FrameKind::Closed, "connection reset by peer");
                for (symbol, view) in &run.views {
                    assert!(!view.valid, "{symbol} is valid without a connection");
                }
            }
            if position + 1 == lost.end {
                run.notice(position, FrameKind::Opened, "wss://stream");
            }
            continue;
        }
        let frame = match &replaced {
            Some(frame) if i == at => frame.clone(),
            _ => run.session.frames[i].clone(),
        };
        run.deliver(position, &frame);
        if let Some(again) = extra.remove(&position) {
            run.deliver(position, &again);
        }
        let invalid = run.views.get(&symbol).map_or(0, |view| view.invalid);
        if position >= at && invalid > invalid_before && seen_at.is_none() {
            seen_at = Some(position);
        }
    }
    run.answer(n, true);
    run.check("at the end");
    // Every symbol is whole again, where snapshots were not too old.
    if run.comparable && run.lag == 0 {
        for (symbol, view) in &run.views {
            // A book that began anew is whole with the symbol's next difference, not before.
            let heard = run.session.diffs[lost.end.max(at + 1)..].iter().any(|(s, _)| s == symbol);
            assert!(view.valid || !heard, "{symbol} did not heal of {fault:?} at {at}");
        }
    }
    let counted = |name: &str| run.count(name) > faults_before.get(name).copied().unwrap_or_default();
    // `next` of the recording stands at another position when a frame was taken out before it.
    let next = next.map(|next| if fault == Fault::Drop { next - 1 } else { next });
    match fault {
        Fault::Drop | Fault::Reorder if was_valid && diff.last > run.session.truths[&symbol].snapshot_id => {
            let Some(next) = next else { return Seen::Harmless };
            // A lost difference is seen with the symbol's next one, a swap with the first of the two.
            let due = if fault == Fault::Drop { next } else { at };
            assert_eq!(seen_at, Some(due), "{fault:?} at {at} of {symbol}");
            assert!(counted("gaps"));
            Seen::Healed
        }
        Fault::Duplicate(_) => {
            assert!(counted("duplicates") || counted("stale_diffs"), "a repeated difference is counted");
            assert_eq!(seen_at, None, "a repeated difference harms nothing");
            Seen::Ignored
        }
        Fault::Truncate => {
            assert_eq!(run.rejects, 1);
            // Whether half a message was about the symbol can be read only if its stream's name is whole.
            assert!(!was_valid || seen_at == Some(at), "cut short at {at} of {symbol}");
            if was_valid { Seen::Healed } else { Seen::Harmless }
        }
        Fault::Cut(_) => {
            assert!(!was_valid || seen_at.is_some() || invalid_before < run.views[&symbol].invalid);
            if was_valid { Seen::Healed } else { Seen::Harmless }
        }
        Fault::CorruptLevel | Fault::CorruptId | Fault::CorruptByte => {
            if let (Some(Some((_, bad))), "usdm", Some(_)) = (&corrupted, run.session.market, next) {
                // Each difference names the one before it, so a `u` that is too low shows with the next. After one that is too
                // high those that follow look like repeated ones.
                let late = diff.last <= run.session.truths[&symbol].snapshot_id;
                assert!(
                    bad.last >= diff.last || !was_valid || late || seen_at.is_some(),
                    "{bad:?} for {diff:?}"
                );
            }
            if seen_at.is_some() || run.rejects > 0 {
                return Seen::Healed;
            }
            if counted("duplicates") || counted("stale_diffs") {
                return Seen::Ignored;
            }
            // A digit that leaves the ids as they are passes unseen, unless the book is crossed by it.
            assert!(
                !was_valid
                    || !run.comparable
                    || !run.beliefs[&symbol].absurd
                    || run.session.truths[&symbol].absurd
            );
            if was_valid { Seen::Unseen } else { Seen::Harmless }
        }
        _ => Seen::Harmless,
    }
}

fn check(name: &str, market: &'static str) {
    let Some(mut session) = Session::load(name, market) else { return };
    let mut tally: BTreeMap<(&'static str, Seen), usize> = BTreeMap::new();
    for point in 0..POINTS {
        let mut rng = Pcg64::seed_from_u64(point as u64);
        let at = rng.random_range(0..session.frames.len());
        let fault = Fault::draw(&mut rng);
        let mut run = Run::new(&mut session, 1000 + point as u64);
        let seen = inject(&mut run, at, fault);
        *tally.entry((fault.name(), seen)).or_default() += 1;
    }
    for ((fault, seen), n) in &tally {
        eprintln!("{name}: {fault}: {seen:?} {n}");
    }
    let of = |fault: &str, seen| tally.get(&(fault, seen)).copied().unwrap_or_default();
    for fault in ["dropped", "swapped with the next", "cut short", "connection lost"] {
        assert!(of(fault, Seen::Healed) > 10 && of(fault, Seen::Unseen) == 0, "{fault}");
    }
    assert_eq!(of("repeated", Seen::Unseen), 0);
    assert!(of("a digit of a price or size changed", Seen::Unseen) > 10, "the protocol has no checksum");
}

#[test]
fn faults_at_500_points_of_the_spot_session_are_seen_and_heal() {
    check("binance", "spot");
}

#[test]
fn faults_at_500_points_of_the_futures_session_are_seen_and_heal() {
    check("binance_futures", "usdm");
}
