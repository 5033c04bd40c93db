//! Order books: reading a decimal, changing one level, Kraken's checksum, an update with its checksum.
//!
//!     cargo bench --workspace --bench book

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidemill_book::sync::kraken::checksum_of;
use tidemill_book::sync::{Kraken, Outcome, Rule};
use tidemill_book::{Book, Decimal, Level, Levels, Side};

/// Levels a side.
const LEVELS: i128 = 1000;

/// A level of price `ticks` / 10, with eight digits after the point of its size, as Kraken sends them.
fn level(ticks: i128, size: i128) -> Level {
    Level { price: Decimal::new(ticks, 1), size: Decimal::new(size, 8) }
}

fn sides() -> (Vec<Level>, Vec<Level>) {
    let size = |i: i128| 10_000_000 + i * 7_654_321 % 900_000_000;
    let bids = (0..LEVELS).map(|i| level(450_000 - i, size(i))).collect();
    (bids, (0..LEVELS).map(|i| level(450_001 + i, size(i + 500))).collect())
}

fn book() -> Book {
    let (bids, asks) = sides();
    let mut book = Book::default();
    book.load(Levels { bids: &bids, asks: &asks }).expect("prices and sizes are above zero");
    book
}

/// Numbers without a pattern that a branch predictor could learn.
fn scattered(n: u64) -> impl Iterator<Item = i128> {
    let mut state = 7u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i128::from((state >> 33) % n)
    })
}

fn decimals(c: &mut Criterion) {
    let texts: Vec<String> = scattered(100_000_000).take(1024).map(|n| format!("0.{n:08}")).collect();
    let mut group = c.benchmark_group("decimal");
    group.throughput(Throughput::Elements(texts.len() as u64));
    group.bench_function("parse", |b| {
        b.iter(|| {
            texts
                .iter()
                .map(|t| Decimal::parse(black_box(t.as_bytes())).map_or(0, |d| d.mantissa()))
                .sum::<i128>()
        });
    });
    let numbers: Vec<Decimal> = texts.iter().filter_map(|t| t.parse().ok()).collect();
    group
        .bench_function("to_f64", |b| b.iter(|| numbers.iter().map(|n| black_box(*n).to_f64()).sum::<f64>()));
    group.finish();
}

fn levels(c: &mut Criterion) {
    let mut group = c.benchmark_group("book_level_of_1000");
    // Anywhere in the book: the size changes.
    let changes: Vec<Level> =
        scattered(1000).zip(1..).take(4096).map(|(i, n)| level(450_000 - i, n)).collect();
    group.throughput(Throughput::Elements(changes.len() as u64));
    group.bench_function("change_anywhere", |b| {
        let mut book = book();
        b.iter(|| changes.iter().map(|l| book.set(Side::Bid, *l).map_or(0, |c| c as u64)).sum::<u64>());
    });
    // Near the best, as most are: levels come and go.
    let near: Vec<Level> =
        scattered(20).take(2048).flat_map(|i| [level(450_000 - i, 0), level(450_000 - i, 5)]).collect();
    group.throughput(Throughput::Elements(near.len() as u64));
    group.bench_function("remove_and_add_near_the_best", |b| {
        let mut book = book();
        b.iter(|| near.iter().map(|l| book.set(Side::Bid, *l).map_or(0, |c| c as u64)).sum::<u64>());
    });
    let far: Vec<Level> =
        scattered(1000).take(2048).flat_map(|i| [level(450_000 - i, 0), level(450_000 - i, 5)]).collect();
    group.bench_function("remove_and_add_anywhere", |b| {
        let mut book = book();
        b.iter(|| far.iter().map(|l| book.set(Side::Bid, *l).map_or(0, |c| c as u64)).sum::<u64>());
    });
    group.finish();
}

fn kraken(c: &mut Criterion) {
    let book = book();
    c.bench_function("kraken_checksum", |b| b.iter(|| checksum_of(black_box(&book), None)));
    // One level at the best changes, and the checksum proves it.
    let (bids, asks) = sides();
    let mut rule = Kraken::new(1000);
    rule.snapshot(Levels { bids: &bids, asks: &asks }, None);
    let changes = [level(450_000, 111_111_111), level(450_000, 222_222_222)].map(|change| {
        let mut after = book.clone();
        after.set(Side::Bid, change).expect("it is above zero");
        (change, checksum_of(&after, None))
    });
    let mut turn = 0;
    c.bench_function("kraken_update_and_checksum", |b| {
        b.iter(|| {
            let (change, checksum) = changes[turn % 2];
            turn += 1;
            let outcome = rule.update(Levels { bids: &[change], asks: &[] }, Some(checksum));
            assert_eq!(outcome, Outcome::Applied);
        });
    });
}

criterion_group!(benches, decimals, levels, kraken);
criterion_main!(benches);
