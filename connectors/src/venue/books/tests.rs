//! What is told of books, against a reader that knows only the rows; and when books are asked for.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use bytes::Bytes;
use tidemill_book::Decimal;
use tidemill_book::sync::{BinanceSpot, Coinbase, Kraken, SpotIds};
use tidemill_engine::row;

use super::*;
use crate::venue::frame::FrameKind;

fn frame(connection: u32, received_ns: i64) -> Frame {
    Frame { received_ns, connection, kind: FrameKind::Received, data: Bytes::from_static(b"{}") }
}

fn level(price: i128, size: i128) -> Level {
    Level { price: Decimal::new(price, 1), size: Decimal::new(size, 3) }
}

fn params(output: BookOutput, depth: usize) -> BookParams {
    BookParams { output, depth }
}

fn spot(output: BookOutput) -> Books<BinanceSpot> {
    let fetch = |symbol: &str| (format!("https://venue/depth?symbol={symbol}"), 50);
    Books::new("binance", &params(output, 2), Resync::Fetch(Box::new(fetch)), |_| BinanceSpot::default())
}

fn ids(first: u64, last: u64) -> SpotIds {
    SpotIds { first, last }
}

/// Sends a diff of one bid level.
fn diff(books: &mut Books<BinanceSpot>, ids: SpotIds, bid: Level, out: &mut Output) -> Outcome {
    let frame = frame(0, ids.last as i64 + 5);
    let at = At { symbol: "BTC", ts_ns: ids.last as i64, frame: &frame };
    books.update(at, Levels { bids: &[bid], asks: &[] }, ids, out)
}

/// Sends a snapshot of one bid and one ask.
fn whole(books: &mut Books<BinanceSpot>, id: u64, out: &mut Output) -> Outcome {
    let frame = frame(0, id as i64 + 5);
    let at = At { symbol: "BTC", ts_ns: id as i64, frame: &frame };
    books.snapshot(at, Levels { bids: &[level(990, 5)], asks: &[level(1010, 5)] }, id, out)
}

fn fetches(out: &mut Output) -> usize {
    std::mem::take(&mut out.actions).iter().filter(|a| matches!(a, Action::Fetch { .. })).count()
}

/// Rows of `deltas` as text: event, side, price, size, id, last, reason.
fn told(batch: &RecordBatch) -> Vec<String> {
    let cell = |c: usize, i: usize| -> String {
        let column = batch.column(c);
        if column.is_null(i) {
            return "-".into();
        }
        match c {
            5 | 6 => column.as_primitive::<Float64Type>().value(i).to_string(),
            7 => column.as_primitive::<Int64Type>().value(i).to_string(),
            8 => column.as_boolean().value(i).to_string(),
            _ => row::text(column, i).unwrap().to_owned(),
        }
    };
    (0..batch.num_rows()).map(|i| (3..10).map(|c| cell(c, i)).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_book_is_fetched_told_whole_then_change_by_change_and_one_row_says_when_it_is_wrong() {
    let (mut books, mut out) = (spot(BookOutput::Deltas), Output::default());
    assert_eq!(diff(&mut books, ids(1, 3), level(980, 1), &mut out), Outcome::Buffered);
    let url = "https://venue/depth?symbol=BTC".to_owned();
    assert_eq!(out.actions, [Action::Fetch { connection: 0, url: url.clone(), weight: 50 }]);
    assert_eq!(books.symbol_of_url(&url), Some("BTC"));
    assert_eq!(diff(&mut books, ids(4, 5), level(970, 1), &mut out), Outcome::Buffered);
    assert_eq!(whole(&mut books, 3, &mut out), Outcome::Applied);
    // Set twice, the level changes once.
    diff(&mut books, ids(6, 6), level(970, 2), &mut out);
    diff(&mut books, ids(7, 7), level(970, 2), &mut out);
    assert!(books.book("BTC").is_some());
    assert!(matches!(diff(&mut books, ids(9, 9), level(960, 1), &mut out), Outcome::Fault(_)));
    assert!(matches!(diff(&mut books, ids(11, 11), level(960, 3), &mut out), Outcome::Fault(_)));
    assert!(books.book("BTC").is_none());
    assert_eq!(whole(&mut books, 12, &mut out), Outcome::Applied);
    let batch = books.finish();
    assert_eq!(
        told(&batch),
        [
            "snapshot bid 99 0.005 5 false -",
            "snapshot bid 97 0.001 5 false -",
            "snapshot ask 101 0.005 5 true -",
            "delta bid 97 0.002 6 true -",
            "invalid - - - - true gap",
            "snapshot bid 99 0.005 12 false -",
            "snapshot ask 101 0.005 12 true -",
        ]
    );
    // Event time is the message's, and the book is told at the message that made it whole.
    assert_eq!(row::ts(&batch)[..5], [3, 3, 3, 6, 9]);
    let counts: Vec<_> = out.counts.into_iter().collect();
    assert_eq!(counts, [("book_requests", 2), ("gaps", 2), ("resyncs", 1)]);
    assert_eq!(out.notices.len(), 2);
    assert_eq!(out.notices[0], "binance: BTC: gap: update 8 was to come, 9 to 9 came");
}

#[test]
fn what_came_of_no_use_is_asked_for_after_longer_and_longer_waits() {
    let (mut books, mut out) = (spot(BookOutput::Quotes), Output::default());
    let mut waits = Vec::new();
    let mut id = 100;
    for _ in 0..13 {
        let mut updates = 0;
        while fetches(&mut out) == 0 {
            id += 1;
            diff(&mut books, ids(id, id), level(980, 1), &mut out);
            updates += 1;
        }
        waits.push(updates);
        if waits.len() % 2 == 0 {
            books.fetch_failed("BTC");
        } else {
            assert!(
                matches!(whole(&mut books, 5, &mut out), Outcome::Fault(_)),
                "it is older than the diffs"
            );
        }
    }
    // The update that asks is counted.
    assert_eq!(waits, [1, 3, 5, 9, 17, 33, 65, 129, 257, 513, 1025, 1025, 1025]);
    assert_eq!((out.counts["old_snapshots"], out.counts["book_requests"]), (7, 13));
    assert_eq!(books.rows(), 0, "a book that was never valid is not told of");
    // Where nothing comes at all it takes longer: the last of these was still answered.
    let mut waits = Vec::new();
    for _ in 0..2 {
        let mut updates = 0;
        while fetches(&mut out) == 0 {
            id += 1;
            diff(&mut books, ids(id, id), level(980, 1), &mut out);
            updates += 1;
        }
        waits.push(updates);
    }
    assert_eq!(waits, [WAIT_MAX + 1, PATIENCE_MAX + 1]);
    assert_eq!(whole(&mut books, id, &mut out), Outcome::Applied);
}

#[test]
fn a_book_that_is_wrong_again_and_again_is_not_asked_for_at_once() {
    let (mut books, mut out) = (spot(BookOutput::Quotes), Output::default());
    let mut id = 1;
    diff(&mut books, ids(id, id), level(980, 1), &mut out);
    whole(&mut books, id, &mut out);
    let mut asked = Vec::new();
    for _ in 0..4 {
        fetches(&mut out);
        id += 2;
        diff(&mut books, ids(id, id), level(980, 1), &mut out);
        let mut updates = 0;
        while fetches(&mut out) == 0 {
            id += 1;
            diff(&mut books, ids(id, id), level(980, 1), &mut out);
            updates += 1;
        }
        asked.push(updates);
        whole(&mut books, id, &mut out);
    }
    assert_eq!(asked, [0, 3, 5, 9]);
    for _ in 0..=SETTLED {
        id += 1;
        diff(&mut books, ids(id, id), level(980, 1), &mut out);
    }
    diff(&mut books, ids(id + 2, id + 2), level(980, 1), &mut out);
    assert_eq!(fetches(&mut out), 1, "it had been right for long");
}

#[test]
fn quotes_and_snapshots_are_told_only_when_they_change() {
    let steps = |books: &mut Books<BinanceSpot>, out: &mut Output| {
        diff(books, ids(1, 1), level(900, 1), out);
        whole(books, 1, out);
        diff(books, ids(2, 2), level(980, 1), out); // second level
        diff(books, ids(3, 3), level(970, 1), out); // third level
        diff(books, ids(4, 4), level(990, 9), out); // best
        diff(books, ids(5, 5), level(970, 0), out); // third level
        diff(books, ids(7, 7), level(980, 0), out); // a gap
    };
    let (mut books, mut out) = (spot(BookOutput::Quotes), Output::default());
    steps(&mut books, &mut out);
    let batch = books.finish();
    assert_eq!(row::ts(&batch), [1, 4, 7]);
    let bid_sizes = batch.column_by_name("bid_size").unwrap().as_primitive::<Float64Type>();
    assert_eq!((bid_sizes.value(1), bid_sizes.is_null(2)), (0.009, true));
    let valid = batch.column_by_name("valid").unwrap().as_boolean();
    assert_eq!(valid.iter().flatten().collect::<Vec<_>>(), [true, true, false]);
    let (mut books, mut out) = (spot(BookOutput::Snapshots), Output::default());
    steps(&mut books, &mut out);
    let batch = books.finish();
    assert_eq!(row::ts(&batch), [1, 2, 4, 7]);
    assert_eq!(row::text(batch.column_by_name("reason").unwrap(), 3), Some("gap"));
    let prices = batch.column_by_name("bid_prices").unwrap().as_list::<i32>();
    let of = |i: usize| prices.value(i).as_primitive::<Float64Type>().values().to_vec();
    assert_eq!((of(0), of(1), of(3)), (vec![99.0], vec![99.0, 98.0], vec![]));
    assert_eq!(batch.schema(), books.schema());
}

#[test]
fn a_book_is_lost_with_the_last_connection_that_carries_it() {
    let (mut books, mut out) = (spot(BookOutput::Quotes), Output::default());
    diff(&mut books, ids(1, 1), level(980, 1), &mut out);
    whole(&mut books, 1, &mut out);
    let other = frame(1, 10);
    let at = At { symbol: "BTC", ts_ns: 2, frame: &other };
    books.update(at, Levels::default(), ids(2, 2), &mut out);
    let end = |connection, at| Frame { kind: FrameKind::Closed, ..frame(connection, at) };
    books.closed(&end(0, 20), &mut out);
    assert!(books.book("BTC").is_some());
    books.closed(&end(1, 30), &mut out);
    books.closed(&end(1, 40), &mut out);
    assert!(books.book("BTC").is_none());
    let batch = books.finish();
    assert_eq!(row::ts(&batch), [1, 2], "it is told at the time of the last message");
    let received = batch.column_by_name("received_at").unwrap();
    assert_eq!(received.as_primitive::<TimestampNanosecondType>().values()[1], 30);
    assert_eq!(out.counts["disconnected_books"], 1);
    // It begins anew with its first diff, which needn't follow the last.
    fetches(&mut out);
    assert_eq!(diff(&mut books, ids(50, 50), level(980, 1), &mut out), Outcome::Buffered);
    assert_eq!(fetches(&mut out), 1);
    assert_eq!(whole(&mut books, 50, &mut out), Outcome::Applied);
    assert_eq!(out.counts["resyncs"], 1);
}

#[test]
fn a_wrong_checksum_subscribes_anew_and_a_silent_venue_is_asked_again() {
    let messages =
        |symbol: &str| vec![Outgoing::plain(format!("-{symbol}")), Outgoing::plain(format!("+{symbol}"))];
    let resync = Resync::Resubscribe(Box::new(messages));
    let mut books = Books::new("kraken", &BookParams::default(), resync, |_| Kraken::new(10));
    let mut out = Output::default();
    let frame = frame(3, 9);
    let at = At { symbol: "BTC/USD", ts_ns: 5, frame: &frame };
    let bids = [level(990, 5)];
    let one = Levels { bids: &bids, asks: &[] };
    assert!(matches!(books.update(at, one, Some(7), &mut out), Outcome::Ignored(_)));
    assert!(out.actions.is_empty(), "the snapshot is on its way");
    assert_eq!(books.snapshot(at, one, None, &mut out), Outcome::Applied);
    assert!(matches!(books.update(at, Levels::default(), Some(7), &mut out), Outcome::Fault(_)));
    let sent: Vec<_> = out
        .actions
        .drain(..)
        .map(|action| match action {
            Action::Send { connection: 3, message } => message.text,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, ["-BTC/USD", "+BTC/USD"]);
    // Nothing comes of it, and no update either: heartbeats are counted.
    for _ in 0..PATIENCE {
        books.heartbeat(&frame, &mut out);
    }
    assert!(out.actions.is_empty());
    books.heartbeat(&frame, &mut out);
    assert_eq!(out.actions.len(), 2);
    assert_eq!((out.counts["checksum_errors"], out.counts["book_requests"]), (1, 2));
    assert_eq!(told(&books.finish()).last().unwrap(), "invalid - - - - true checksum");
}

#[test]
fn a_hole_in_a_connections_sequence_is_counted_once_and_makes_it_again_once() {
    let mut books =
        Books::new("coinbase", &BookParams::default(), Resync::Reconnect, |_| Coinbase::default());
    let mut out = Output::default();
    let frames = [frame(0, 9), frame(1, 9)];
    for (symbol, frame) in [("A", &frames[0]), ("B", &frames[0]), ("C", &frames[1])] {
        books.snapshot(At { symbol, ts_ns: 5, frame }, Levels::default(), 1, &mut out);
    }
    let fault = Fault::new(FaultKind::Gap, "message 4 was to come, 6 came");
    books.invalidate_connection(&frames[0], 6, &fault, &mut out);
    assert_eq!(out.actions.len(), 1, "{:?}", out.actions);
    assert!(matches!(out.actions[0], Action::Reconnect { connection: 0, .. }));
    assert_eq!((out.counts["gaps"], out.counts["book_requests"]), (1, 1));
    assert!(books.book("A").is_none() && books.book("B").is_none() && books.book("C").is_some());
    let rows = told(&books.finish());
    let empty = "snapshot - - - 1 true -";
    assert_eq!(rows, [empty, empty, empty, "invalid - - - - true gap", "invalid - - - - true gap"]);
}

#[test]
fn an_impossible_level_is_refused_with_its_frame() {
    let (mut books, mut out) = (spot(BookOutput::Deltas), Output::default());
    diff(&mut books, ids(1, 1), level(980, 1), &mut out);
    whole(&mut books, 1, &mut out);
    diff(&mut books, ids(2, 2), level(980, -1), &mut out);
    assert_eq!(out.rejects.len(), 1);
    assert_eq!(out.rejects[0].reason, "BTC: size -0.001 at price 98.0 is negative");
    assert_eq!((out.rejects[0].raw.as_slice(), out.rejects[0].before), (b"{}".as_slice(), 3));
    assert_eq!(told(&books.finish()).last().unwrap(), "invalid - - - - true bad_level");
}

/// A reader of `deltas` that knows only the rows, as the table's description says they are to be read.
#[derive(Default)]
struct Follower {
    loading: bool,
    levels: BTreeMap<(String, u64), f64>,
}

impl Follower {
    fn read(&mut self, batch: &RecordBatch) {
        for i in 0..batch.num_rows() {
            let text = |c: usize| row::text(batch.column(c), i);
            let number = |c: usize| batch.column(c).as_primitive::<Float64Type>().value(i);
            match text(3).unwrap() {
                "snapshot" if !self.loading => self.levels.clear(),
                "invalid" => self.levels.clear(),
                _ => {}
            }
            self.loading = text(3) == Some("snapshot") && !batch.column(8).as_boolean().value(i);
            if let Some(side) = text(4) {
                let key = (side.to_owned(), number(5).to_bits());
                if number(6) == 0.0 {
                    self.levels.remove(&key);
                } else {
                    self.levels.insert(key, number(6));
                }
            }
        }
    }
}

#[test]
fn a_reader_of_the_rows_has_the_book_at_every_message() {
    let mut state = 7u64;
    let mut random = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let resync = Resync::Resubscribe(Box::new(|_| Vec::new()));
    let mut books = Books::new("kraken", &BookParams::default(), resync, |_| Kraken::new(4));
    let (mut out, mut follower) = (Output::default(), Follower::default());
    let frame = frame(0, 0);
    let mut invalid = 0;
    for step in 0..5000 {
        let at = At { symbol: "X", ts_ns: step, frame: &frame };
        let mut some = |low: i128| -> Vec<Level> {
            (0..random(4)).map(|_| level(low + i128::from(random(12)), i128::from(random(3)))).collect()
        };
        let (bids, asks) = (some(900), some(1000));
        let levels = Levels { bids: &bids, asks: &asks };
        if random(25) == 0 {
            books.snapshot(at, levels, None, &mut out);
        } else {
            // A checksum that can't be right, now and then.
            let outcome = books.update(at, levels, (random(40) == 0).then_some(1), &mut out);
            invalid += i32::from(matches!(outcome, Outcome::Fault(_)));
        }
        follower.read(&books.finish());
        let mut expect = BTreeMap::new();
        if let Some(book) = books.book("X") {
            for side in [tidemill_book::Side::Bid, tidemill_book::Side::Ask] {
                assert!(book.side(side).len() <= 4);
                for level in book.side(side).iter() {
                    expect.insert(
                        (side.name().to_owned(), level.price.to_f64().to_bits()),
                        level.size.to_f64(),
                    );
                }
            }
        }
        assert_eq!(follower.levels, expect, "message {step}");
    }
    assert!(invalid > 50);
}

#[test]
fn lists_of_levels_survive_parquet_and_json() {
    let (mut books, mut out) = (spot(BookOutput::Snapshots), Output::default());
    diff(&mut books, ids(1, 1), level(980, 1), &mut out);
    whole(&mut books, 1, &mut out);
    diff(&mut books, ids(2, 2), level(985, 1), &mut out);
    diff(&mut books, ids(4, 4), level(985, 1), &mut out);
    let rows = books.finish();
    assert_eq!(rows.num_rows(), 3);
    let mut file = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file));
    let read: Vec<RecordBatch> = reader.unwrap().build().unwrap().map(Result::unwrap).collect();
    assert_eq!(read, std::slice::from_ref(&rows));
    let options = tidemill_engine::json::EncodeOptions::default();
    let mut encoder = tidemill_engine::json::Encoder::new(rows.schema(), options);
    let unit = tidemill_engine::spec::TimeUnitName::Ns;
    let mut decoder = tidemill_engine::json::Decoder::new(rows.schema(), unit);
    for line in encoder.encode(&rows).iter() {
        decoder.push(line).unwrap();
    }
    let read = decoder.finish();
    assert_eq!(read.schema(), rows.schema());
    for (column, field) in rows.schema().fields().iter().enumerate() {
        assert_eq!(read.column(column).as_ref(), rows.column(column).as_ref(), "{}", field.name());
    }
}
