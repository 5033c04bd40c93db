//! The recorded sessions read from their text, and their books rebuilt the slowest way: decimal text in trees. Shares no code with
//! what it judges.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// A market whose session was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Venue {
    Spot,
    Futures,
    Coinbase,
    Kraken,
}

/// What a line says, as far as books and trades go.
pub enum Message {
    Book(BookMessage),
    Trades(Vec<Trade>),
    Other,
}

/// A whole book, or levels to be set in the order sent.
pub struct BookMessage {
    pub at_ns: i64,
    pub symbol: String,
    whole: bool,
    /// Whether a bid, price, size.
    levels: Vec<(bool, String, String)>,
    /// Of a whole book its id; of a difference the first and the last id it covers, and the last one before it.
    id: Option<u64>,
    first: Option<u64>,
    previous: Option<u64>,
    checksum: Option<u32>,
}

/// A trade as its row must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Trade {
    pub received_ns: i64,
    pub ts_ns: i64,
    pub symbol: String,
    pub id: Option<i64>,
    pub price: f64,
    pub size: f64,
    pub side: &'static str,
}

/// The session's messages and answers in the order of time.
pub fn messages(folder: &Path, files: &[&str], venue: Venue) -> Vec<Message> {
    let mut all = Vec::new();
    for file in files {
        let mut text = String::new();
        let file = std::fs::File::open(folder.join(file)).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (head, body) = line.split_once(": ").unwrap_or((line, ""));
            let time = head.rsplit(' ').next().unwrap();
            let at_ns = nanoseconds(time);
            let message = match head.split_once(" -> ") {
                Some((url, _)) => answer(url, at_ns, &serde_json::from_str(body).unwrap()),
                None if head.starts_with("ws") => continue,
                None => received(venue, at_ns, &serde_json::from_str(body).unwrap()),
            };
            all.push((at_ns, message));
        }
    }
    all.sort_by_key(|(at_ns, _)| *at_ns);
    all.into_iter().map(|(_, message)| message).collect()
}

/// Decimal seconds.
fn nanoseconds(text: &str) -> i64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{}", &format!("{fraction:0<9}")[..9]).parse().unwrap()
}

fn rfc3339(text: &Value) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text.as_str().unwrap()).unwrap().timestamp_nanos_opt().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

/// Adds the levels of one side.
fn side(levels: &mut Vec<(bool, String, String)>, bid: bool, from: &Value) {
    levels.extend(from.as_array().into_iter().flatten().map(|l| (bid, text(&l[0]), text(&l[1]))));
}

/// A book message without ids.
fn book(at_ns: i64, symbol: &Value, whole: bool, bids: &Value, asks: &Value) -> BookMessage {
    let mut levels = Vec::new();
    side(&mut levels, true, bids);
    side(&mut levels, false, asks);
    let symbol = text(symbol);
    BookMessage { at_ns, symbol, whole, levels, id: None, first: None, previous: None, checksum: None }
}

fn answer(url: &str, at_ns: i64, body: &Value) -> Message {
    let symbol = url.split("symbol=").nth(1).unwrap().split('&').next().unwrap();
    let whole = book(at_ns, &symbol.into(), true, &body["bids"], &body["asks"]);
    Message::Book(BookMessage { id: body["lastUpdateId"].as_u64(), ..whole })
}

fn received(venue: Venue, at_ns: i64, body: &Value) -> Message {
    match venue {
        Venue::Spot | Venue::Futures => binance(at_ns, &body["data"]),
        Venue::Coinbase => coinbase(at_ns, body),
        Venue::Kraken => kraken(at_ns, body),
    }
}

fn binance(at_ns: i64, data: &Value) -> Message {
    match data["e"].as_str() {
        Some("depthUpdate") => {
            let update = book(at_ns, &data["s"], false, &data["b"], &data["a"]);
            let [first, id, previous] = ["U", "u", "pu"].map(|key| data[key].as_u64());
            Message::Book(BookMessage { id, first, previous, ..update })
        }
        Some("aggTrade") => Message::Trades(vec![Trade {
            received_ns: at_ns,
            ts_ns: data["T"].as_i64().unwrap() * 1_000_000,
            symbol: text(&data["s"]),
            id: data["a"].as_i64(),
            price: number(&data["p"]),
            size: number(&data["q"]),
            side: if data["m"] == true { "sell" } else { "buy" },
        }]),
        _ => Message::Other,
    }
}

fn coinbase(at_ns: i64, body: &Value) -> Message {
    match body["type"].as_str() {
        Some("snapshot") => {
            Message::Book(book(at_ns, &body["product_id"], true, &body["bids"], &body["asks"]))
        }
        Some("l2update") => {
            let mut update = book(at_ns, &body["product_id"], false, &Value::Null, &Value::Null);
            let changes = body["changes"].as_array().unwrap();
            update.levels = changes.iter().map(|c| (c[0] == "buy", text(&c[1]), text(&c[2]))).collect();
            Message::Book(update)
        }
        Some("match" | "last_match") => Message::Trades(vec![Trade {
            received_ns: at_ns,
            ts_ns: rfc3339(&body["time"]),
            symbol: text(&body["product_id"]),
            id: body["trade_id"].as_i64(),
            price: number(&body["price"]),
            size: number(&body["size"]),
            // The venue names the maker's side.
            side: if body["side"] == "sell" { "buy" } else { "sell" },
        }]),
        _ => Message::Other,
    }
}

fn kraken(at_ns: i64, body: &Value) -> Message {
    let Some(parts) = body.as_array() else { return Message::Other };
    let (symbol, channel) = (&parts[parts.len() - 1], text(&parts[parts.len() - 2]));
    if channel == "trade" {
        let mut trades: Vec<Trade> = Vec::new();
        for trade in parts[1].as_array().unwrap() {
            trades.push(Trade {
                received_ns: at_ns,
                ts_ns: nanoseconds(trade[2].as_str().unwrap()),
                symbol: text(symbol),
                id: None,
                price: number(&trade[0]),
                size: number(&trade[1]),
                side: if trade[3] == "b" { "buy" } else { "sell" },
            });
        }
        return Message::Trades(trades);
    }
    if !channel.starts_with("book-") {
        return Message::Other;
    }
    let payloads = &parts[1..parts.len() - 2];
    let whole = payloads.iter().any(|p| p.get("as").is_some() || p.get("bs").is_some());
    let mut message = book(at_ns, symbol, whole, &Value::Null, &Value::Null);
    for payload in payloads {
        for (key, bid) in [("as", false), ("bs", true), ("a", false), ("b", true)] {
            side(&mut message.levels, bid, &payload[key]);
        }
        message.checksum = payload["c"].as_str().map(|c| c.parse().unwrap()).or(message.checksum);
    }
    Message::Book(message)
}

/// A level: as sent, and as rows have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    text: (String, String),
    pub numbers: (f64, f64),
}

/// One side by its price's digits, padded to the same places.
pub type Side = BTreeMap<String, Level>;

/// Levels a side of the Kraken session's books.
pub const KRAKEN_LEVELS: usize = 1000;

/// A symbol's book after each message, by the venue's own words.
pub struct Rebuild {
    venue: Venue,
    pub bids: Side,
    pub asks: Side,
    /// Whether the book is known: differences need a snapshot, and Binance's snapshot differences.
    pub known: bool,
    pub id: Option<u64>,
    snapshot_id: Option<u64>,
    waiting: Vec<BookMessage>,
    /// The last id of the last difference.
    last: Option<u64>,
    joined: bool,
    /// Whole books, differences, differences that a snapshot held already, checksums that were right.
    pub counts: [u64; 4],
}

impl Rebuild {
    pub fn new(venue: Venue) -> Self {
        let (bids, asks) = (Side::new(), Side::new());
        let (known, joined, waiting) = (false, false, Vec::new());
        Self {
            venue,
            bids,
            asks,
            known,
            id: None,
            snapshot_id: None,
            waiting,
            last: None,
            joined,
            counts: [0; 4],
        }
    }

    /// Takes the next message of the symbol.
    pub fn take(&mut self, message: BookMessage) {
        self.counts[usize::from(!message.whole)] += 1;
        let binance = matches!(self.venue, Venue::Spot | Venue::Futures);
        if message.whole {
            (self.bids, self.asks) = (Side::new(), Side::new());
            self.set(&message);
            (self.id, self.snapshot_id) = (message.id, message.id);
            let waiting = std::mem::take(&mut self.waiting);
            self.known = !binance || !waiting.is_empty();
            for update in waiting {
                self.join(&update);
            }
        } else if !binance {
            assert!(self.known, "{}: a change before the whole book", message.symbol);
            self.set(&message);
        } else {
            self.unbroken(&message);
            if self.snapshot_id.is_some() {
                self.known = true;
                self.join(&message);
            } else {
                self.waiting.push(message);
            }
        }
    }

    /// The recorded chain has no hole, or the session would be no proof.
    fn unbroken(&mut self, update: &BookMessage) {
        if let Some(last) = self.last {
            match self.venue {
                Venue::Spot => assert_eq!(update.first, Some(last + 1), "{}", update.symbol),
                _ => assert_eq!(update.previous, Some(last), "{}", update.symbol),
            }
        }
        self.last = update.id;
    }

    /// Applies a difference that the snapshot does not hold.
    fn join(&mut self, update: &BookMessage) {
        let (id, snapshot) = (update.id.unwrap(), self.snapshot_id.unwrap());
        let newer = if self.venue == Venue::Spot { id > snapshot } else { id >= snapshot };
        if !newer {
            self.counts[2] += 1;
            return;
        }
        if !self.joined {
            self.joined = true;
            let fits = match self.venue {
                Venue::Spot => update.first.unwrap() <= snapshot + 1,
                _ => update.previous.unwrap() <= snapshot,
            };
            assert!(fits, "{}: the first difference does not join its snapshot", update.symbol);
        }
        self.id = Some(id);
        self.set(update);
    }

    fn set(&mut self, message: &BookMessage) {
        for (bid, price, size) in &message.levels {
            let side = if *bid { &mut self.bids } else { &mut self.asks };
            let (whole, fraction) = price.split_once('.').unwrap_or((price, ""));
            let key = format!("{whole:0>12}{fraction:0<16}");
            if size.bytes().all(|b| b == b'0' || b == b'.') {
                side.remove(&key);
            } else {
                let numbers = (price.parse().unwrap(), size.parse().unwrap());
                side.insert(key, Level { text: (price.clone(), size.clone()), numbers });
            }
        }
        if self.venue != Venue::Kraken {
            return;
        }
        while self.bids.len() > KRAKEN_LEVELS {
            self.bids.pop_first();
        }
        while self.asks.len() > KRAKEN_LEVELS {
            self.asks.pop_last();
        }
        if let Some(checksum) = message.checksum {
            assert_eq!(self.checksum(), checksum, "{} at {}", message.symbol, message.at_ns);
            self.counts[3] += 1;
        }
    }

    /// The venue's recipe: <https://docs.kraken.com/api/docs/guides/spot-ws-book-v1>.
    fn checksum(&self) -> u32 {
        let digits = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
        let best = self.asks.values().take(10).chain(self.bids.values().rev().take(10));
        let text: String = best.map(|level| digits(&level.text.0) + &digits(&level.text.1)).collect();
        let mut crc = !0u32;
        for byte in text.bytes() {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            }
        }
        !crc
    }

    /// The best levels: bids, asks.
    pub fn top(&self, depth: usize) -> [Vec<(f64, f64)>; 2] {
        [
            self.bids.values().rev().take(depth).map(|l| l.numbers).collect(),
            self.asks.values().take(depth).map(|l| l.numbers).collect(),
        ]
    }
}
