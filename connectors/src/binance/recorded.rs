//! Tests' ground: the recorded sessions, an independent slow rebuild of their books, and a view of
//! what the rows say.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use bytes::Bytes;
use serde_json::Value;
use tidemill_engine::row;

use super::{BinanceFeed, Params};
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::protocol::{Output, Protocol};

/// A recorded session: its frames in the order of time.
pub(super) fn session(name: &str) -> Option<Vec<Frame>> {
    let folder = crate::files::real_data()?.join("feeds");
    let text = |file: String| {
        let file = std::fs::File::open(folder.join(file)).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        text
    };
    let ns = |seconds: &str| {
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
        let fraction: i64 = format!("{fraction:0<9}")[..9].parse().unwrap();
        whole.parse::<i64>().unwrap() * 1_000_000_000 + fraction
    };
    let frame = |time: &str, kind, data: &str| Frame {
        received_ns: ns(time),
        connection: 0,
        kind,
        data: Bytes::copy_from_slice(data.as_bytes()),
    };
    let mut frames = Vec::new();
    for line in text(format!("{name}.ws.1.0.gz")).lines().filter(|line| !line.is_empty()) {
        match line.split_once(" <-> ") {
            Some((url, time)) => frames.push(frame(time, FrameKind::Opened, url)),
            None => {
                let (time, message) = line.split_once(": ").unwrap();
                frames.push(frame(time, FrameKind::Received, message));
            }
        }
    }
    for line in text(format!("{name}.http.0.0.gz")).lines().filter(|line| !line.is_empty()) {
        let (url, rest) = line.split_once(" -> ").unwrap();
        let (time, body) = rest.split_once(": ").unwrap();
        frames.push(frame(time, FrameKind::Response { url: url.into(), status: 200 }, body));
    }
    frames.sort_by_key(|f| f.received_ns);
    Some(frames)
}

/// The feed of a graph's `with:` block.
pub(super) fn feed(with: &str) -> BinanceFeed {
    let params: Params = serde_json::from_str(with).unwrap();
    assert_eq!(super::streams::problems(&params), []);
    BinanceFeed::new(Arc::new(params))
}

/// Hands a frame to a feed; its rows, and what it says beside them.
pub(super) fn step(feed: &mut BinanceFeed, frame: &Frame) -> (RecordBatch, Output) {
    let mut out = Output::default();
    feed.on_frame(frame, &mut out);
    let kept = feed.rows();
    let rows = feed.finish();
    assert_eq!(rows.num_rows(), kept);
    (rows, out)
}

/// What a feed makes of frames: all rows as JSON objects (times as nanoseconds), and all it says beside them.
pub(super) fn run(feed: &mut BinanceFeed, frames: &[Frame]) -> (Vec<Value>, Output) {
    let (mut all, mut said) = (Vec::new(), Output::default());
    for frame in frames {
        let (rows, out) = step(feed, frame);
        all.extend(objects(&rows));
        said.actions.extend(out.actions);
        said.rejects.extend(out.rejects);
        said.notices.extend(out.notices);
        out.counts.into_iter().for_each(|(name, n)| *said.counts.entry(name).or_default() += n);
    }
    (all, said)
}

/// Rows as JSON objects.
pub(crate) fn objects(rows: &RecordBatch) -> Vec<Value> {
    (0..rows.num_rows()).map(|i| object(rows, i)).collect()
}

fn object(rows: &RecordBatch, i: usize) -> Value {
    let schema = rows.schema();
    let values = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
        let value = match column.data_type() {
            _ if column.is_null(i) => Value::Null,
            DataType::Float64 => column.as_primitive::<Float64Type>().value(i).into(),
            DataType::Int64 => column.as_primitive::<Int64Type>().value(i).into(),
            DataType::Boolean => column.as_boolean().value(i).into(),
            DataType::Timestamp(..) => {
                column.as_primitive::<arrow::datatypes::TimestampNanosecondType>().value(i).into()
            }
            DataType::List(_) => {
                let list = column.as_list::<i32>().value(i);
                list.as_primitive::<Float64Type>().values().to_vec().into()
            }
            _ => row::text(column, i).map_or(Value::Null, Into::into),
        };
        (field.name().clone(), value)
    });
    Value::Object(values.collect())
}

/// One side of a book by the slow way: prices as scaled integers, read digit by digit; price and size as they were sent.
pub(super) type SlowSide = BTreeMap<i128, (String, String)>;

/// A book by the slow way: bids, asks.
pub(super) type SlowBook = [SlowSide; 2];

/// A price as an integer of 10^-12, without the help of what is tested.
fn scaled(text: &str) -> i128 {
    read(text).unwrap()
}

fn read(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<12}").parse().ok()
}

/// A difference as it was recorded.
#[derive(Clone, Debug)]
pub(super) struct Diff {
    pub(super) first: u64,
    pub(super) last: u64,
    levels: [Vec<(String, String)>; 2],
}

/// The levels under two keys of a message.
fn levels(value: &Value, keys: [&str; 2]) -> Option<[Vec<(String, String)>; 2]> {
    let side = |key: &str| {
        let pair =
            |level: &Value| Some((level.get(0)?.as_str()?.to_owned(), level.get(1)?.as_str()?.to_owned()));
        value.get(key)?.as_array()?.iter().map(pair).collect::<Option<Vec<_>>>()
    };
    Some([side(keys[0])?, side(keys[1])?])
}

impl Diff {
    /// Of a frame of the depth stream, with its symbol.
    pub(super) fn read(data: &[u8]) -> Option<(String, Self)> {
        let value: Value = serde_json::from_slice(data).ok()?;
        let data = &value["data"];
        if data["e"] != "depthUpdate" {
            return None;
        }
        let levels = levels(data, ["b", "a"])?;
        let numbers = |(price, size): &(String, String)| read(price).and(read(size)).is_some();
        if !levels.iter().flatten().all(numbers) {
            return None;
        }
        let (first, last) = (data["U"].as_u64()?, data["u"].as_u64()?);
        Some((data["s"].as_str()?.to_owned(), Self { first, last, levels }))
    }

    fn apply(&self, book: &mut SlowBook) {
        for (side, levels) in book.iter_mut().zip(&self.levels) {
            for (price, size) in levels {
                match size.parse::<f64>().unwrap() {
                    0.0 => side.remove(&scaled(price)),
                    _ => side.insert(scaled(price), (price.clone(), size.clone())),
                };
            }
        }
    }
}

/// The true book of a symbol at every update of a session.
#[derive(Clone)]
pub(super) struct Truth {
    pub(super) snapshot_id: u64,
    snapshot: SlowBook,
    pub(super) diffs: Vec<Diff>,
    /// Of each difference: its `u`, and the fingerprint of the book after it.
    prints: Vec<(u64, u64)>,
    start: u64,
    /// Whether the book was ever crossed, or something in it can't be.
    pub(super) absurd: bool,
}

impl Truth {
    fn new(snapshot_id: u64, snapshot: SlowBook, diffs: Vec<Diff>) -> Self {
        let mut truth = Self { snapshot_id, snapshot, diffs, prints: Vec::new(), start: 0, absurd: false };
        truth.retell();
        truth
    }

    /// Works out all states anew.
    fn retell(&mut self) {
        let mut book = self.snapshot.clone();
        self.start = fingerprint(&book);
        self.prints.clear();
        for diff in self.diffs.iter().filter(|diff| diff.last > self.snapshot_id) {
            diff.apply(&mut book);
            self.prints.push((diff.last, fingerprint(&book)));
            let [bids, asks] = &book;
            let bad =
                |level: &(String, String)| level.0.parse::<f64>().unwrap() <= 0.0 || level.1.starts_with('-');
            let crossed = match (bids.last_key_value(), asks.first_key_value()) {
                (Some((bid, _)), Some((ask, _))) => bid >= ask,
                _ => false,
            };
            self.absurd |= crossed || bids.values().chain(asks.values()).any(bad);
        }
    }

    /// The same, with another difference in place of the one of the same ids.
    pub(super) fn with(&self, diff: &Diff) -> Self {
        let mut other = self.clone();
        for old in other.diffs.iter_mut().filter(|d| d.last == diff.last) {
            *old = diff.clone();
        }
        other.retell();
        other
    }

    /// The book's fingerprint after all updates up to `id`.
    pub(super) fn print(&self, id: u64) -> u64 {
        let at = self.prints.partition_point(|(last, _)| *last <= id);
        at.checked_sub(1).map_or(self.start, |i| self.prints[i].1)
    }

    /// The book after all updates up to `id`, and its id.
    pub(super) fn book(&self, id: u64) -> (u64, SlowBook) {
        let mut book = self.snapshot.clone();
        let mut last = self.snapshot_id;
        for diff in self.diffs.iter().filter(|d| d.last > self.snapshot_id && d.last <= id) {
            diff.apply(&mut book);
            last = diff.last;
        }
        (last, book)
    }

    /// What the venue would answer to who asks for the book at `id`.
    pub(super) fn answer(&self, id: u64) -> (u64, Bytes) {
        let (last, [bids, asks]) = self.book(id);
        let side = |levels: Vec<&(String, String)>| {
            levels.into_iter().map(|(p, s)| serde_json::json!([p, s])).collect::<Vec<_>>()
        };
        let answer = serde_json::json!({
            "lastUpdateId": last,
            "bids": side(bids.values().rev().collect()),
            "asks": side(asks.values().collect()),
        });
        (last, answer.to_string().into())
    }
}

/// The true books of a session, by symbol.
pub(super) fn truths(frames: &[Frame]) -> BTreeMap<String, Truth> {
    let mut diffs: BTreeMap<String, Vec<Diff>> = BTreeMap::new();
    let mut snapshots = BTreeMap::new();
    for frame in frames {
        match &frame.kind {
            FrameKind::Received => {
                if let Some((symbol, diff)) = Diff::read(&frame.data) {
                    diffs.entry(symbol).or_default().push(diff);
                }
            }
            FrameKind::Response { url, .. } => {
                let symbol = url.split("symbol=").nth(1).unwrap().split('&').next().unwrap();
                let value: Value = serde_json::from_slice(&frame.data).unwrap();
                let [bids, asks] = levels(&value, ["bids", "asks"]).unwrap();
                let side =
                    |levels: Vec<(String, String)>| levels.into_iter().map(|l| (scaled(&l.0), l)).collect();
                let id = value["lastUpdateId"].as_u64().unwrap();
                snapshots.insert(symbol.to_owned(), (id, [side(bids), side(asks)]));
            }
            _ => {}
        }
    }
    let truth = |(symbol, (id, book)): (String, (u64, SlowBook))| {
        let diffs = diffs.remove(&symbol).unwrap_or_default();
        (symbol, Truth::new(id, book, diffs))
    };
    snapshots.into_iter().map(truth).collect()
}

/// Of one level: its part of a book's fingerprint.
fn level_print(side: usize, price: f64, size: f64) -> u64 {
    let mut x = price.to_bits() ^ size.to_bits().rotate_left(23) ^ (side as u64 + 1);
    // The finaliser of SplitMix64.
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The levels' parts taken together: equal for equal books.
pub(super) fn fingerprint(book: &SlowBook) -> u64 {
    let part = |side: usize, level: &(String, String)| {
        level_print(side, level.0.parse().unwrap(), level.1.parse().unwrap())
    };
    let sides = book.iter().enumerate().flat_map(|(side, levels)| levels.values().map(move |l| (side, l)));
    sides.fold(0, |print, (side, level)| print ^ part(side, level))
}

/// What the rows of `deltas` say of one symbol.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) valid: bool,
    pub(super) id: u64,
    /// Bids, asks: price bits (positive floats sort by their bits) to size.
    pub(super) sides: [BTreeMap<u64, f64>; 2],
    pub(super) print: u64,
    /// How often it was made invalid, and why the last time.
    pub(super) invalid: u64,
    pub(super) reason: String,
    whole: bool,
}

impl View {
    fn set(&mut self, side: usize, price: f64, size: f64) {
        let old = match size {
            0.0 => self.sides[side].remove(&price.to_bits()),
            _ => self.sides[side].insert(price.to_bits(), size),
        };
        if let Some(old) = old {
            self.print ^= level_print(side, price, old);
        }
        if size != 0.0 {
            self.print ^= level_print(side, price, size);
        }
    }

    /// Takes rows, each to the view of its symbol; symbols that got any.
    pub(super) fn take(views: &mut BTreeMap<String, Self>, rows: &RecordBatch) -> Vec<String> {
        let column = |name: &str| rows.column_by_name(name).unwrap();
        let numbers = |name: &str| column(name).as_primitive::<Float64Type>().clone();
        let (prices, sizes) = (numbers("price"), numbers("size"));
        let ids = column("update_id").as_primitive::<Int64Type>().clone();
        let lasts = column("last").as_boolean().clone();
        let mut touched: Vec<String> = Vec::new();
        for i in 0..rows.num_rows() {
            let symbol = row::text(column("symbol"), i).unwrap();
            if touched.last().is_none_or(|s| s != symbol) {
                touched.push(symbol.to_owned());
            }
            let view = views.entry(symbol.to_owned()).or_default();
            match row::text(column("event"), i).unwrap() {
                "invalid" => {
                    assert!(view.valid, "{symbol} is made invalid twice");
                    view.invalid += 1;
                    let reason = row::text(column("reason"), i).unwrap().to_owned();
                    *view = Self { invalid: view.invalid, reason, ..Self::default() };
                    continue;
                }
                "snapshot" => {
                    if !view.whole {
                        *view = Self {
                            invalid: view.invalid,
                            reason: std::mem::take(&mut view.reason),
                            ..Self::default()
                        };
                    }
                    view.whole = !lasts.value(i);
                    view.valid = true;
                }
                event => assert!(event == "delta" && view.valid, "{symbol}: `{event}` without a book"),
            }
            view.id = ids.value(i) as u64;
            if let Some(side) = row::text(column("side"), i) {
                view.set(usize::from(side == "ask"), prices.value(i), sizes.value(i));
            }
        }
        touched
    }
}
