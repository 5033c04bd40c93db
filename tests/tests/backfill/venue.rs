//! A server that speaks the documented REST of Binance, Coinbase Exchange and Kraken over one synthetic history, and
//! has their faults: 429 with `Retry-After`, 418, 5xx, truncated bodies, cut connections.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemill_tests::Rng;

/// A trade; whole milliseconds, so that every venue's format holds its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trade {
    pub id: i64,
    pub ns: i64,
    pub price: f64,
    pub size: f64,
    pub taker_bought: bool,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// One request in so many fails; 0: none.
    one_in: u64,
    seed: u64,
    banned: bool,
    delay: Duration,
}

impl Faults {
    pub fn none() -> Self {
        Self { one_in: 0, seed: 0, banned: false, delay: Duration::ZERO }
    }

    pub fn some(seed: u64) -> Self {
        Self { one_in: 6, seed, ..Self::none() }
    }

    pub fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::none() }
    }

    pub fn ban() -> Self {
        Self { banned: true, ..Self::none() }
    }
}

pub struct Venue {
    pub url: String,
    pub trades: Arc<Vec<Trade>>,
    log: Arc<Mutex<Vec<String>>>,
    faults: Arc<AtomicUsize>,
}

struct Server {
    trades: Arc<Vec<Trade>>,
    aggregates: Vec<Aggregate>,
    log: Arc<Mutex<Vec<String>>>,
    faulty: Arc<AtomicUsize>,
    faults: Faults,
    rng: Mutex<Rng>,
}

/// Trades of one instant, price and taker.
#[derive(Clone, Copy)]
struct Aggregate {
    id: i64,
    first: i64,
    last: i64,
    size: f64,
    trade: Trade,
}

impl Venue {
    /// A history: `per_day` trades a day, several of them in one millisecond.
    pub fn history(seed: u64, start_ms: i64, days: i64, per_day: i64) -> Vec<Trade> {
        let mut rng = Rng(seed);
        let mut times: Vec<i64> = (0..days * per_day)
            .map(|_| start_ms + rng.within(0..(days * 86_400_000) as u64) as i64)
            .collect();
        // Bursts: more trades in a millisecond than a page has, twice.
        for _ in 0..2 {
            let burst = times[rng.within(0..times.len() as u64) as usize];
            times.extend(std::iter::repeat_n(burst, if per_day >= 5000 { 1300 } else { 7 }));
        }
        times.sort_unstable();
        let mut price = 4_000_000_i64;
        let first = 1000 + rng.within(0..1000) as i64;
        times
            .iter()
            .enumerate()
            .map(|(i, ms)| {
                price += rng.within(0..201) as i64 - 100;
                Trade {
                    id: first + i as i64,
                    ns: ms * 1_000_000,
                    price: price as f64 / 100.0,
                    size: (1 + rng.within(0..1_000_000)) as f64 / 100_000.0,
                    taker_bought: rng.within(0..2) == 1,
                }
            })
            .collect()
    }

    pub fn start(trades: Vec<Trade>, faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let trades = Arc::new(trades);
        let (log, faulty) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
        let server = Arc::new(Server {
            aggregates: aggregates(&trades),
            trades: trades.clone(),
            log: log.clone(),
            faulty: faulty.clone(),
            faults,
            rng: Mutex::new(Rng(faults.seed)),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || drop(server.serve(stream)));
            }
        });
        Self { url, trades, log, faults: faulty }
    }

    /// Requests so far, those that failed among them.
    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn faults(&self) -> usize {
        self.faults.load(Ordering::Relaxed)
    }

    /// The aggregate trades as the archive should have them.
    pub fn aggregates(&self) -> Vec<Trade> {
        aggregates(&self.trades).iter().map(|a| Trade { id: a.id, size: a.size, ..a.trade }).collect()
    }

    /// Bars: start (ms), open, high, low, close, volume, trades.
    pub fn klines(&self, interval_ms: i64) -> Vec<(i64, [f64; 5], i64)> {
        klines(&self.trades, interval_ms)
    }
}

fn aggregates(trades: &[Trade]) -> Vec<Aggregate> {
    let mut all: Vec<Aggregate> = Vec::new();
    for t in trades {
        match all.last_mut() {
            Some(a)
                if a.trade.ns == t.ns
                    && a.trade.price == t.price
                    && a.trade.taker_bought == t.taker_bought =>
            {
                a.last = t.id;
                a.size += t.size;
            }
            _ => all.push(Aggregate {
                id: 77 + all.len() as i64,
                first: t.id,
                last: t.id,
                size: t.size,
                trade: *t,
            }),
        }
    }
    all
}

fn klines(trades: &[Trade], interval_ms: i64) -> Vec<(i64, [f64; 5], i64)> {
    let mut bars: Vec<(i64, [f64; 5], i64)> = Vec::new();
    for t in trades {
        let start = t.ns / 1_000_000 / interval_ms * interval_ms;
        match bars.last_mut() {
            Some((s, p, n)) if *s == start => {
                *p = [p[0], p[1].max(t.price), p[2].min(t.price), t.price, p[4] + t.size];
                *n += 1;
            }
            last => {
                // A venue has a bar for minutes without trades, at the last price; here only for short silences, so
                // that a long one looks as if it had been down.
                let before = last.as_deref().copied();
                if let Some((s, p, _)) = before
                    && start - s <= 8 * interval_ms
                {
                    let mut at = s + interval_ms;
                    while at < start {
                        bars.push((at, [p[3], p[3], p[3], p[3], 0.0], 0));
                        at += interval_ms;
                    }
                }
                bars.push((start, [t.price, t.price, t.price, t.price, t.size], 1));
            }
        }
    }
    bars
}

fn query<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    path.split_once('?')?.1.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn number(path: &str, name: &str) -> Option<i64> {
    query(path, name)?.parse().ok()
}

impl Server {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut line = String::new();
            while reader.read_line(&mut line)? > 2 {
                line.clear();
            }
            let path = first.split_whitespace().nth(1).unwrap_or("/").to_owned();
            self.log.lock().unwrap().push(path.clone());
            std::thread::sleep(self.faults.delay);
            let fault = {
                let mut rng = self.rng.lock().unwrap();
                match self.faults.one_in {
                    0 => None,
                    n => (rng.within(0..n) == 0).then(|| rng.within(0..5)),
                }
            };
            if fault.is_some() {
                self.faulty.fetch_add(1, Ordering::Relaxed);
            }
            let (status, body, more) = match fault {
                _ if self.faults.banned => (
                    418,
                    r#"{"code":-1003,"msg":"Way too much request weight used; IP banned."}"#.to_owned(),
                    "Retry-After: 120\r\n",
                ),
                Some(0) => {
                    (429, r#"{"code":-1003,"msg":"Too many requests."}"#.to_owned(), "Retry-After: 1\r\n")
                }
                Some(1) => (503, "upstream is away".to_owned(), ""),
                _ => {
                    let (status, body) = self.answer(&path);
                    (status, body, "X-MBX-USED-WEIGHT-1M: 12\r\n")
                }
            };
            let body = match fault {
                // Cut off by whoever made it: the length is that of what is sent.
                Some(2) => body[..body.len() / 2].to_owned(),
                _ => body,
            };
            let length = body.len();
            let sent = match fault {
                // Cut off on its way.
                Some(3) => &body[..length / 2],
                Some(4) => return Ok(()),
                _ => &body,
            };
            write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n{sent}"
            )?;
            stream.flush()?;
            if sent.len() < length {
                return Ok(());
            }
        }
    }

    fn answer(&self, path: &str) -> (u16, String) {
        if query(path, "symbol") == Some("NONE") {
            return (400, r#"{"code":-1121,"msg":"Invalid symbol."}"#.to_owned());
        }
        let endpoint = path.split('?').next().unwrap_or_default();
        match endpoint {
            "/api/v3/aggTrades" | "/fapi/v1/aggTrades" => self.agg_trades(path),
            "/api/v3/historicalTrades" | "/fapi/v1/historicalTrades" => self.historical_trades(path),
            "/api/v3/klines" | "/fapi/v1/klines" => self.klines(path),
            "/0/public/Trades" => self.kraken(path),
            _ if endpoint.starts_with("/products/") && endpoint.ends_with("/trades") => self.coinbase(path),
            _ => (404, "{}".into()),
        }
    }

    fn agg_trades(&self, path: &str) -> (u16, String) {
        let limit = number(path, "limit").unwrap_or(500).min(1000) as usize;
        let from = match (number(path, "fromId"), number(path, "startTime")) {
            (Some(id), _) => self.aggregates.partition_point(|a| a.id < id),
            (None, Some(ms)) => self.aggregates.partition_point(|a| a.trade.ns < ms * 1_000_000),
            (None, None) => self.aggregates.len().saturating_sub(limit),
        };
        let page = self.aggregates[from..].iter().take(limit).map(|a| {
            let Aggregate { id, first, last, size, trade } = a;
            let (ms, maker) = (trade.ns / 1_000_000, !trade.taker_bought);
            format!(
                r#"{{"a":{id},"p":"{}","q":"{size}","f":{first},"l":{last},"T":{ms},"m":{maker},"M":true}}"#,
                trade.price
            )
        });
        (200, format!("[{}]", page.collect::<Vec<_>>().join(",")))
    }

    fn historical_trades(&self, path: &str) -> (u16, String) {
        let limit = number(path, "limit").unwrap_or(500).min(1000) as usize;
        let from = self.trades.partition_point(|t| t.id < number(path, "fromId").unwrap_or(0));
        let page = self.trades[from..].iter().take(limit).map(|t| {
            let (ms, maker) = (t.ns / 1_000_000, !t.taker_bought);
            format!(r#"{{"id":{},"price":"{}","qty":"{}","quoteQty":"1","time":{ms},"isBuyerMaker":{maker},"isBestMatch":true}}"#, t.id, t.price, t.size)
        });
        (200, format!("[{}]", page.collect::<Vec<_>>().join(",")))
    }

    fn klines(&self, path: &str) -> (u16, String) {
        let limit = number(path, "limit").unwrap_or(500).min(1000) as usize;
        let (from, to) =
            (number(path, "startTime").unwrap_or(0), number(path, "endTime").unwrap_or(i64::MAX));
        let all = klines(&self.trades, 60_000);
        let page =
            all.iter().filter(|b| b.0 >= from && b.0 <= to).take(limit).map(|(start, [o, h, l, c, v], n)| {
                format!(
                    r#"[{start},"{o}","{h}","{l}","{c}","{v}",{},"1.0",{n},"1.0","1.0","0"]"#,
                    start + 59_999
                )
            });
        (200, format!("[{}]", page.collect::<Vec<_>>().join(",")))
    }

    /// Newest first; `after` is exclusive.
    fn coinbase(&self, path: &str) -> (u16, String) {
        let limit = number(path, "limit").unwrap_or(1000).min(1000) as usize;
        let to =
            number(path, "after").map_or(self.trades.len(), |id| self.trades.partition_point(|t| t.id < id));
        let page = self.trades[..to].iter().rev().take(limit).map(|t| {
            let time = chrono::DateTime::from_timestamp_nanos(t.ns).format("%Y-%m-%dT%H:%M:%S%.6fZ");
            let maker = if t.taker_bought { "sell" } else { "buy" };
            format!(
                r#"{{"time":"{time}","trade_id":{},"price":"{}","size":"{}","side":"{maker}"}}"#,
                t.id, t.price, t.size
            )
        });
        (200, format!("[{}]", page.collect::<Vec<_>>().join(",")))
    }

    /// `since` is exclusive.
    fn kraken(&self, path: &str) -> (u16, String) {
        let limit = number(path, "count").unwrap_or(1000).min(1000) as usize;
        let since = number(path, "since").unwrap_or(0);
        let from = self.trades.partition_point(|t| t.ns <= since);
        let page: Vec<&Trade> = self.trades[from..].iter().take(limit).collect();
        let last = page.last().map_or(since, |t| t.ns);
        let rows = page.iter().map(|t| {
            let (s, ns) = (t.ns / 1_000_000_000, t.ns % 1_000_000_000);
            let time = format!("{s}.{ns:09}");
            let side = if t.taker_bought { "b" } else { "s" };
            format!(
                r#"["{}","{}",{},"{side}","l","",{}]"#,
                t.price,
                t.size,
                time.trim_end_matches('0').trim_end_matches('.'),
                t.id
            )
        });
        let rows = rows.collect::<Vec<_>>().join(",");
        (200, format!(r#"{{"error":[],"result":{{"XXBTZUSD":[{rows}],"last":"{last}"}}}}"#))
    }
}
