//! For tests: recorded sessions as frames, the slowest order book there is, and books as rows tell them.
//!
//! Nothing here uses the code under test: messages are read with serde_json, prices are kept as text and
//! ordered by their padded digits, the checksum is the venue's recipe over strings and a bitwise CRC32.

use std::collections::BTreeMap;
use std::io::Read;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::Value;
use tidemill_engine::row;

use super::frame::{Frame, FrameKind};
use super::protocol::{Output, Protocol};

/// The frames of a recorded session: first line `URL <-> time`, then `URL <- time: sent` or `time: received`.
pub fn frames(file: &str, connection: u32) -> Option<Vec<Frame>> {
    let path = crate::files::real_data()?.join("feeds").join(file);
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let frame = |kind, at: &str, data: &str| Frame {
        received_ns: nanoseconds(at),
        connection,
        kind,
        data: Bytes::copy_from_slice(data.as_bytes()),
    };
    let frames = text.lines().filter(|line| !line.is_empty()).map(|line| {
        if let Some((url, at)) = line.split_once(" <-> ") {
            return frame(FrameKind::Opened, at, url);
        }
        let (head, data) = line.split_once(": ").unwrap();
        match head.split_once(" <- ") {
            Some((_, at)) => frame(FrameKind::Sent, at, data),
            None => frame(FrameKind::Received, head, data),
        }
    });
    Some(frames.collect())
}

/// `1618678132.8258188` as nanoseconds.
pub fn nanoseconds(seconds: &str) -> i64 {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    format!("{whole}{fraction:0<9}").parse().unwrap()
}

/// A received frame.
pub fn received(at_ns: i64, text: &str) -> Frame {
    Frame {
        received_ns: at_ns,
        connection: 0,
        kind: FrameKind::Received,
        data: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// A frame that says that the connection was made or lost.
pub fn turned(at_ns: i64, kind: FrameKind) -> Frame {
    Frame { received_ns: at_ns, connection: 0, kind, data: Bytes::new() }
}

/// One side of a slow book, by the price's digits padded to 20 before and 20 after the point.
pub type SlowSide = BTreeMap<String, SlowLevel>;

/// A level: price and size as text, and as numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowLevel {
    /// As sent.
    pub text: (String, String),
    /// As rows have them.
    pub numbers: (f64, f64),
}

/// A book as slow as it is plain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlowBook {
    /// Bids; the best is the last.
    pub bids: SlowSide,
    /// Asks; the best is the first.
    pub asks: SlowSide,
}

fn padded(price: &str) -> String {
    let (whole, fraction) = price.split_once('.').unwrap_or((price, ""));
    format!("{whole:0>20}{fraction:0<20}")
}

fn zero(size: &str) -> bool {
    size.bytes().all(|b| b == b'0' || b == b'.')
}

impl SlowBook {
    /// Sets a level, or takes it away.
    pub fn set(&mut self, bid: bool, price: &str, size: &str) {
        let side = if bid { &mut self.bids } else { &mut self.asks };
        if zero(size) {
            side.remove(&padded(price));
        } else {
            let numbers = (price.parse().unwrap(), size.parse().unwrap());
            side.insert(padded(price), SlowLevel { text: (price.to_owned(), size.to_owned()), numbers });
        }
    }

    /// Keeps the best `depth` levels of both sides.
    pub fn cut(&mut self, depth: usize) {
        while self.bids.len() > depth {
            self.bids.pop_first();
        }
        while self.asks.len() > depth {
            self.asks.pop_last();
        }
    }

    /// Texts of price and size, best first.
    pub fn side(&self, bid: bool) -> Vec<(&str, &str)> {
        match bid {
            true => self.bids.values().rev().map(|l| (l.text.0.as_str(), l.text.1.as_str())).collect(),
            false => self.asks.values().map(|l| (l.text.0.as_str(), l.text.1.as_str())).collect(),
        }
    }

    /// Prices and sizes as numbers, best first: what rows hold.
    pub fn numbers(&self, bid: bool, depth: usize) -> Vec<(f64, f64)> {
        match bid {
            true => self.bids.values().rev().take(depth).map(|l| l.numbers).collect(),
            false => self.asks.values().take(depth).map(|l| l.numbers).collect(),
        }
    }

    /// The venue's checksum, step by step as its guide has it.
    pub fn kraken_checksum(&self) -> u32 {
        let digits = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
        let mut text = String::new();
        for bid in [false, true] {
            for (price, size) in self.side(bid).into_iter().take(10) {
                text += &digits(price);
                text += &digits(size);
            }
        }
        let mut crc = !0u32;
        for byte in text.bytes() {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            }
        }
        !crc
    }

    /// Takes a book message of Kraken's v1, and returns its checksum.
    pub fn kraken_v1(&mut self, message: &Value, depth: usize) -> Option<u32> {
        let parts = message.as_array().unwrap();
        let mut checksum = None;
        for payload in parts[1..parts.len() - 2].iter().map(|p| p.as_object().unwrap()) {
            if payload.contains_key("as") {
                *self = Self::default();
            }
            for (key, value) in payload {
                match key.as_str() {
                    "c" => checksum = value.as_str().map(|c| c.parse().unwrap()),
                    side => {
                        for level in value.as_array().unwrap() {
                            let [price, size] = [0, 1].map(|i| level[i].as_str().unwrap());
                            self.set(side.starts_with('b'), price, size);
                        }
                    }
                }
            }
        }
        self.cut(depth);
        checksum
    }
}

/// What a reader of `deltas` rows knows of one book.
#[derive(Clone, Debug, Default)]
pub struct RowBook {
    /// Whether it is to be believed.
    pub valid: bool,
    /// How often it was told to be invalid.
    pub invalid: usize,
    bids: BTreeMap<u64, f64>,
    asks: BTreeMap<u64, f64>,
    begun: bool,
}

impl RowBook {
    /// Prices and sizes, best first. (Of numbers above zero, the order of the bits is that of the numbers.)
    pub fn numbers(&self, bid: bool, depth: usize) -> Vec<(f64, f64)> {
        let number = |(bits, size): (&u64, &f64)| (f64::from_bits(*bits), *size);
        match bid {
            true => self.bids.iter().rev().take(depth).map(number).collect(),
            false => self.asks.iter().take(depth).map(number).collect(),
        }
    }

    /// Whether its best levels are those of a slow book.
    pub fn equals(&self, slow: &SlowBook, depth: usize) -> bool {
        [true, false].iter().all(|bid| self.numbers(*bid, depth) == slow.numbers(*bid, depth))
    }
}

/// Takes the rows of a frame into the books of a reader of `deltas`.
pub fn read_deltas(books: &mut BTreeMap<String, RowBook>, batch: &RecordBatch) {
    let column = |name: &str| batch.column_by_name(name).unwrap();
    let (prices, sizes) =
        (column("price").as_primitive::<Float64Type>(), column("size").as_primitive::<Float64Type>());
    let last = column("last").as_boolean();
    for i in 0..batch.num_rows() {
        let symbol = row::text(column("symbol"), i).unwrap();
        if !books.contains_key(symbol) {
            books.insert(symbol.to_owned(), RowBook::default());
        }
        let book = books.get_mut(symbol).unwrap();
        let event = row::text(column("event"), i).unwrap();
        if event == "invalid" {
            assert!(book.valid, "invalid is told once");
            assert!(row::text(column("reason"), i).is_some());
            *book = RowBook { invalid: book.invalid + 1, ..RowBook::default() };
            continue;
        }
        if event == "snapshot" && !book.begun {
            *book = RowBook { valid: true, invalid: book.invalid, ..RowBook::default() };
        }
        assert!(book.valid, "nothing but a snapshot follows an invalid row");
        book.begun = !last.value(i);
        if let Some(side) = row::text(column("side"), i) {
            let side = if side == "bid" { &mut book.bids } else { &mut book.asks };
            match sizes.value(i) {
                0.0 => side.remove(&prices.value(i).to_bits()),
                size => side.insert(prices.value(i).to_bits(), size),
            };
        }
    }
}

/// Hands a frame to a protocol.
pub fn step(protocol: &mut dyn Protocol, frame: &Frame) -> (RecordBatch, Output) {
    let mut out = Output::default();
    protocol.on_frame(frame, &mut out);
    (protocol.finish(), out)
}

/// Adds the counts of a step to those before.
pub fn add(counts: &mut BTreeMap<&'static str, u64>, out: &Output) {
    for (name, count) in &out.counts {
        *counts.entry(name).or_default() += count;
    }
}
