//! Every rule against a simulated venue that loses, repeats and reorders messages: a valid book is always the true book,
//! and it heals. The truth is kept apart, in sorted maps of ticks, and knows nothing of the rules.

use std::collections::BTreeMap;

use super::*;
use crate::decimal::Decimal;
use crate::ladder::Level;

/// SplitMix64: the seed alone decides a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Ticks and sizes of bids and asks. Bids are below tick 100, asks above.
#[derive(Clone, Debug, Default, PartialEq)]
struct Truth {
    bids: BTreeMap<u64, u64>,
    asks: BTreeMap<u64, u64>,
}

/// A change of one level: bid or ask, ticks, size.
type Set = (bool, u64, u64);

impl Truth {
    fn change(&mut self, random: &mut Random) -> Set {
        let bid = random.one_in(2);
        let ticks = if bid { 60 + random.below(40) } else { 101 + random.below(40) };
        let size = if random.one_in(3) { 0 } else { 1 + random.below(999) };
        self.set((bid, ticks, size));
        (bid, ticks, size)
    }

    fn set(&mut self, (bid, ticks, size): Set) {
        let side = if bid { &mut self.bids } else { &mut self.asks };
        if size == 0 {
            side.remove(&ticks);
        } else {
            side.insert(ticks, size);
        }
    }

    fn levels(&self) -> Message {
        let mut message = Message::default();
        self.bids.iter().rev().for_each(|(t, s)| message.push((true, *t, *s)));
        self.asks.iter().for_each(|(t, s)| message.push((false, *t, *s)));
        message
    }

    /// The best `depth` levels of both sides.
    fn cut(&self, depth: usize) -> Self {
        let bids = self.bids.iter().rev().take(depth).map(|(t, s)| (*t, *s)).collect();
        Self { bids, asks: self.asks.iter().take(depth).map(|(t, s)| (*t, *s)).collect() }
    }

    fn is(&self, book: &Book) -> bool {
        let levels = self.levels();
        book.bids().iter().eq(&levels.bids) && book.asks().iter().eq(&levels.asks)
    }
}

#[derive(Clone, Debug, Default)]
struct Message {
    bids: Vec<Level>,
    asks: Vec<Level>,
}

impl Message {
    fn push(&mut self, (bid, ticks, size): Set) {
        let price = Decimal::new(i128::from(ticks), 2);
        let level = Level { price, size: Decimal::new(i128::from(size) * 100, 5) };
        if bid { self.bids.push(level) } else { self.asks.push(level) }
    }

    fn levels(&self) -> Levels<'_> {
        Levels { bids: &self.bids, asks: &self.asks }
    }
}

/// What became of messages on their way: numbers of those sent, in the order in which they arrive.
fn delivery(sent: usize, clean_from: usize, random: &mut Random) -> Vec<usize> {
    let mut order = Vec::new();
    let mut held: Option<usize> = None;
    for i in 0..sent {
        let trouble = if i < clean_from { random.below(40) } else { 99 };
        match trouble {
            0 => {}
            1 => order.extend([i, i]),
            2 => held = held.or(Some(i)),
            3 if i > 5 => order.extend([i, i - 1 - random.below(5) as usize]),
            _ => order.push(i),
        }
        if held.is_some_and(|h| h < i) {
            order.extend(held.take());
        }
    }
    order
}

/// What Binance sends: diffs over a shared numbering of updates.
struct Binance {
    /// The book after each update id of this symbol.
    history: BTreeMap<u64, Truth>,
    diffs: Vec<(FuturesIds, Message)>,
}

impl Binance {
    /// `holes`: ids between the diffs belong to other symbols.
    fn new(diffs: usize, holes: bool, random: &mut Random) -> Self {
        let mut truth = Truth::default();
        let mut id = 1000;
        let mut venue = Self { history: BTreeMap::from([(0, truth.clone())]), diffs: Vec::new() };
        let mut previous = id;
        for _ in 0..diffs {
            id += if holes { random.below(6) } else { 0 };
            let first = id + 1;
            let mut message = Message::default();
            for _ in 0..1 + random.below(4) {
                id += 1;
                message.push(truth.change(random));
                venue.history.insert(id, truth.clone());
            }
            venue.diffs.push((FuturesIds { first, last: id, previous }, message));
            previous = id;
        }
        venue
    }

    fn at(&self, id: u64) -> &Truth {
        self.history.range(..=id).next_back().unwrap().1
    }
}

/// Sends a venue's diffs through a rule, with faults; answers a snapshot now and then where the book isn't valid.
fn run_binance<R>(rule: &mut R, holes: bool, mark: impl Fn(FuturesIds) -> R::UpdateMark, seed: u64) -> Tally
where
    R: Rule<SnapshotMark = u64>,
{
    let mut random = Random(seed);
    let venue = Binance::new(600, holes, &mut random);
    let mut tally = Tally::default();
    let mut last: Option<usize> = None;
    for i in delivery(venue.diffs.len(), 500, &mut random) {
        let (ids, message) = &venue.diffs[i];
        let before = rule.valid();
        let outcome = rule.update(message.levels(), mark(*ids));
        if let (true, Some(last)) = (before, last) {
            match &outcome {
                Outcome::Applied => tally.applied += 1,
                // A lost diff, or the one that was overtaken, is seen by the next that comes.
                Outcome::Fault(fault) => {
                    assert_eq!(fault.kind, FaultKind::Gap);
                    assert!(i > last + 1, "seed {seed}: diff {i} after {last} was called a gap");
                    tally.gaps += 1;
                }
                Outcome::Ignored(Ignored::Duplicate | Ignored::Stale) => {
                    assert!(i <= last, "seed {seed}: diff {i} after {last} was passed over");
                    tally.ignored += 1;
                }
                other => panic!("seed {seed}: {other:?} of a valid book"),
            }
            assert!(
                i <= last + 1 || !matches!(outcome, Outcome::Applied),
                "seed {seed}: a lost diff was not seen"
            );
        }
        if rule.valid() {
            last = Some(last.map_or(i, |l| l.max(i)));
        } else {
            last = None;
            if random.one_in(3) {
                // Any book of the last thirty updates: some are older than the diffs that wait, some fall within one.
                let id = ids.last.saturating_sub(random.below(30)) + random.below(8);
                let id = id.min(venue.diffs.last().unwrap().0.last);
                let outcome = rule.snapshot(venue.at(id).levels().levels(), id);
                match outcome {
                    Outcome::Fault(fault) => {
                        assert_eq!(fault.kind, FaultKind::OldSnapshot, "{fault}");
                        tally.old += 1;
                    }
                    Outcome::Applied => {
                        tally.healed += 1;
                        // What was sent up to the snapshot and the diffs that waited is in it.
                        let id = rule.update_id().unwrap() as u64;
                        last = Some(venue.diffs.partition_point(|d| d.0.last <= id).saturating_sub(1).max(i));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        if rule.valid() {
            let id = rule.update_id().unwrap() as u64;
            assert!(venue.at(id).is(rule.book()), "seed {seed}: a valid book of {id} differs from the truth");
            tally.checked += 1;
        }
    }
    assert!(rule.valid(), "seed {seed}: it did not heal");
    let end = venue.diffs.last().unwrap().0.last;
    assert_eq!(rule.update_id(), Some(end as i64));
    tally
}

#[derive(Default, Debug)]
struct Tally {
    applied: u32,
    gaps: u32,
    ignored: u32,
    old: u32,
    healed: u32,
    checked: u32,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.applied += other.applied;
        self.gaps += other.gaps;
        self.ignored += other.ignored;
        self.old += other.old;
        self.healed += other.healed;
        self.checked += other.checked;
    }
}

#[test]
fn binance_spot_never_believes_a_wrong_book() {
    let mut tally = Tally::default();
    for seed in 0..200 {
        let ids = |ids: FuturesIds| SpotIds { first: ids.first, last: ids.last };
        tally.add(run_binance(&mut BinanceSpot::default(), false, ids, seed));
    }
    println!("{tally:?}");
    assert!(tally.gaps > 1000 && tally.ignored > 1000 && tally.old > 200 && tally.healed > 1000, "{tally:?}");
}

#[test]
fn binance_futures_never_believes_a_wrong_book() {
    let mut tally = Tally::default();
    for seed in 0..200 {
        tally.add(run_binance(&mut BinanceFutures::default(), true, |ids| ids, seed));
    }
    println!("{tally:?}");
    assert!(tally.gaps > 1000 && tally.ignored > 1000 && tally.old > 200 && tally.healed > 1000, "{tally:?}");
}

#[test]
fn a_snapshot_before_the_first_diff_waits_for_it() {
    let mut random = Random(7);
    let venue = Binance::new(3, false, &mut random);
    let id = venue.diffs[0].0.last;
    let ids = |i: usize| SpotIds { first: venue.diffs[i].0.first, last: venue.diffs[i].0.last };
    let whole = venue.at(id).levels();
    let mut rule = BinanceSpot::default();
    assert_eq!(rule.snapshot(whole.levels(), id), Outcome::Buffered);
    assert!(!rule.valid());
    assert_eq!(rule.update(venue.diffs[1].1.levels(), ids(1)), Outcome::Applied);
    assert!(rule.valid() && venue.at(ids(1).last).is(rule.book()));
    // One that is too old for the first diff is of no use.
    rule.reset();
    assert_eq!(rule.snapshot(whole.levels(), id), Outcome::Buffered);
    let outcome = rule.update(venue.diffs[2].1.levels(), ids(2));
    assert!(matches!(outcome, Outcome::Fault(Fault { kind: FaultKind::OldSnapshot, .. })), "{outcome:?}");
    assert!(!rule.valid());
}

#[test]
fn waiting_diffs_are_bounded() {
    let mut rule = BinanceSpot::default();
    for i in 0..super::pending::PENDING_MAX as u64 {
        assert_eq!(rule.update(Levels::default(), SpotIds { first: i, last: i }), Outcome::Buffered);
    }
    let i = super::pending::PENDING_MAX as u64;
    let outcome = rule.update(Levels::default(), SpotIds { first: i, last: i });
    assert!(matches!(outcome, Outcome::Fault(Fault { kind: FaultKind::Overflow, .. })), "{outcome:?}");
}

#[test]
fn crossed_books_and_impossible_levels_are_faults_everywhere() {
    let mut whole = Message::default();
    whole.push((true, 90, 5));
    whole.push((false, 110, 5));
    let mut crossing = Message::default();
    crossing.push((true, 110, 5));
    let mut bad = Message::default();
    bad.bids.push(Level { price: Decimal::new(80, 2), size: Decimal::new(-1, 0) });
    fn check<R: Rule>(
        mut rule: R,
        whole: &Message,
        wrong: &Message,
        at: [R::UpdateMark; 2],
        snapshot: R::SnapshotMark,
    ) -> FaultKind {
        rule.update(Levels::default(), at[0]);
        assert_eq!(rule.snapshot(whole.levels(), snapshot), Outcome::Applied);
        assert!(rule.valid());
        let Outcome::Fault(fault) = rule.update(wrong.levels(), at[1]) else { panic!("no fault") };
        assert!(!rule.valid() && rule.book().is_empty() && rule.deltas().is_empty());
        fault.kind
    }
    for (wrong, kind) in [(&crossing, FaultKind::Crossed), (&bad, FaultKind::BadLevel)] {
        let spot = |n| SpotIds { first: n, last: n };
        let futures = |n| FuturesIds { first: n, last: n, previous: n - 1 };
        assert_eq!(check(BinanceSpot::default(), &whole, wrong, [spot(1), spot(2)], 1), kind);
        assert_eq!(check(BinanceFutures::default(), &whole, wrong, [futures(1), futures(2)], 1), kind);
        assert_eq!(check(Coinbase::default(), &whole, wrong, [0, 2], 1), kind);
        assert_eq!(check(CoinbaseExchange::default(), &whole, wrong, [None, None], ()), kind);
        assert_eq!(check(Kraken::new(10), &whole, wrong, [None, None], None), kind);
    }
    let mut open = BinanceSpot::new(Crossing::Allow);
    open.update(Levels::default(), SpotIds { first: 1, last: 1 });
    open.snapshot(whole.levels(), 1);
    assert_eq!(open.update(crossing.levels(), SpotIds { first: 2, last: 2 }), Outcome::Applied);
    assert!(open.book().crossed());
}

#[test]
fn a_time_that_goes_backwards_is_a_fault_where_nothing_else_is_sent() {
    let mut rule = CoinbaseExchange::default();
    rule.snapshot(Levels::default(), ());
    assert_eq!(rule.update(Levels::default(), Some(5)), Outcome::Applied);
    assert_eq!(rule.update(Levels::default(), Some(5)), Outcome::Applied);
    let outcome = rule.update(Levels::default(), Some(4));
    assert!(matches!(outcome, Outcome::Fault(Fault { kind: FaultKind::TimeBackwards, .. })), "{outcome:?}");
    rule.snapshot(Levels::default(), ());
    assert_eq!(rule.update(Levels::default(), Some(1)), Outcome::Applied);
}

/// Coinbase: messages of a connection are numbered, those of other channels too.
#[test]
fn coinbase_never_believes_a_wrong_book() {
    let (mut gaps, mut repeats, mut checked) = (0, 0, 0);
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut truth = Truth::default();
        // Book after each message, and the message, where it is one of this product.
        let sent: Vec<(Truth, Option<Message>)> = (0..600)
            .map(|_| {
                let ours = !random.one_in(3);
                let message = ours.then(|| {
                    let mut message = Message::default();
                    (0..1 + random.below(3)).for_each(|_| message.push(truth.change(&mut random)));
                    message
                });
                (truth.clone(), message)
            })
            .collect();
        let (mut rule, mut sequence) = (Coinbase::default(), Sequence::default());
        for i in delivery(sent.len(), 500, &mut random) {
            match sequence.step(i as u64) {
                Step::Repeat { .. } => {
                    repeats += 1;
                    continue;
                }
                Step::Gap { .. } => {
                    gaps += 1;
                    rule.reset();
                }
                Step::First | Step::Next => {}
            }
            let (truth, message) = &sent[i];
            if !rule.valid() && random.one_in(3) {
                assert_eq!(rule.snapshot(truth.levels().levels(), i as u64), Outcome::Applied);
            } else if let Some(message) = message {
                rule.update(message.levels(), i as u64);
            }
            if rule.valid() {
                checked += 1;
                assert!(truth.is(rule.book()), "seed {seed}: message {i}");
            }
        }
        assert!(rule.valid(), "seed {seed}: it did not heal");
    }
    println!("{gaps} gaps, {repeats} repeats, {checked} books checked");
    assert!(gaps > 1000 && repeats > 1000);
}

/// The checksum by its description alone: text without points and leading zeros, and CRC-32 bit by bit.
fn slow_checksum(truth: &Truth) -> u32 {
    let message = truth.levels();
    let mut text = String::new();
    for level in message.asks.iter().take(10).chain(message.bids.iter().take(10)) {
        for number in [level.price, level.size] {
            text.push_str(number.to_string().replace('.', "").trim_start_matches('0'));
        }
    }
    let mut crc = !0u32;
    for byte in text.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// Kraken at a depth: what comes into view is sent, what falls out of it is not taken back.
fn kraken_update(before: &Truth, now: &Truth, whole: &Truth) -> Message {
    let mut message = Message::default();
    for bid in [true, false] {
        let side = |t: &Truth| if bid { t.bids.clone() } else { t.asks.clone() };
        let (before, now, whole) = (side(before), side(now), side(whole));
        before.keys().filter(|t| !whole.contains_key(t)).for_each(|t| message.push((bid, *t, 0)));
        now.iter().filter(|(t, s)| before.get(t) != Some(s)).for_each(|(t, s)| message.push((bid, *t, *s)));
    }
    message
}

fn run_kraken(depth: usize, seed: u64, corrupt: bool) -> (u32, u32, u32) {
    let mut random = Random(seed);
    let mut truth = Truth::default();
    (0..200).for_each(|_| {
        truth.change(&mut random);
    });
    let mut sent = Vec::new();
    for _ in 0..600 {
        let before = truth.cut(depth);
        (0..1 + random.below(3)).for_each(|_| {
            truth.change(&mut random);
        });
        let now = truth.cut(depth);
        let message = kraken_update(&before, &now, &truth);
        let checksum = slow_checksum(&now);
        sent.push((now, message, checksum));
    }
    let mut rule = Kraken::new(depth);
    let (mut faults, mut checked, mut unseen) = (0, 0, 0);
    for i in delivery(sent.len(), 500, &mut random) {
        let (truth, message, checksum) = &sent[i];
        if !rule.valid() {
            if random.one_in(3) {
                assert_eq!(rule.snapshot(truth.levels().levels(), Some(*checksum)), Outcome::Applied);
            }
            continue;
        }
        let mut message = message.clone();
        if corrupt && i < 500 && random.one_in(20) {
            for level in message.bids.iter_mut().chain(&mut message.asks).filter(|l| !l.size.is_zero()) {
                level.size = Decimal::new(level.size.mantissa() + 100, 5);
            }
        }
        match rule.update(message.levels(), Some(*checksum)) {
            Outcome::Applied => {
                checked += 1;
                // The top ten is what the venue has, whatever happened; the rest is where nothing was lost.
                assert!(top(rule.book()) == top_of(truth), "seed {seed}: message {i}");
                unseen += u32::from(!truth.is(rule.book()));
            }
            Outcome::Fault(fault) => {
                assert!(matches!(fault.kind, FaultKind::Checksum | FaultKind::Crossed), "{fault}");
                faults += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    (faults, checked, unseen)
}

fn top(book: &Book) -> (Vec<Level>, Vec<Level>) {
    (book.bids().iter().take(10).copied().collect(), book.asks().iter().take(10).copied().collect())
}

fn top_of(truth: &Truth) -> (Vec<Level>, Vec<Level>) {
    let Message { bids, asks } = truth.cut(10).levels();
    (bids, asks)
}

#[test]
fn kraken_never_believes_a_wrong_top_ten() {
    let mut all = (0, 0, 0);
    for seed in 0..150 {
        let (faults, checked, unseen) = run_kraken(10, seed, seed % 2 == 1);
        assert_eq!(unseen, 0, "seed {seed}: at depth ten the checksum covers the whole book");
        all = (all.0 + faults, all.1 + checked, all.2);
    }
    println!("depth 10: {all:?}");
    assert!(all.0 > 1000);
    let mut deep = (0, 0, 0);
    for seed in 0..150 {
        let (faults, checked, unseen) = run_kraken(25, seed, seed % 2 == 1);
        deep = (deep.0 + faults, deep.1 + checked, deep.2 + unseen);
    }
    // What is wrong below the tenth level can't be seen, and is only seen when it comes up.
    println!("depth 25: {deep:?}");
    assert!(deep.0 > 500 && deep.2 > 0);
}
