//! Reading one message of a venue: its text to numbers (`parse`), and its text to rows of the feed (`rows`).
//!
//!     cargo bench --workspace --bench feeds

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sonic_rs::LazyValue;
use tidemill_book::sync::kraken::checksum_of;
use tidemill_book::{Book, Levels};
use tidemill_connectors::binance::wire::{DepthUpdate, Envelope, Trade, event};
use tidemill_connectors::binance::{BinanceFeed, Params};
use tidemill_connectors::venue::frame::{Frame, FrameKind};
use tidemill_connectors::venue::json::read;
use tidemill_connectors::venue::protocol::{Output, Protocol};
use tidemill_connectors::{coinbase, kraken};

const TRADE: &str = r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1672515782136,"s":"BTCUSDT","t":2912345678,"p":"16548.52000000","q":"0.01204000","T":1672515782135,"m":true,"M":true}}"#;

const COINBASE_LEVEL2: &str = r#"{"channel":"l2_data","client_id":"","timestamp":"2023-02-09T20:32:50.714964855Z","sequence_num":7,"events":[{"type":"update","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"2023-02-09T20:32:50.604137Z","price_level":"21921.73","new_quantity":"0.06317902"},{"side":"bid","event_time":"2023-02-09T20:32:50.604137Z","price_level":"21921.3","new_quantity":"0.02"},{"side":"offer","event_time":"2023-02-09T20:32:50.604137Z","price_level":"21924.51","new_quantity":"0"}]}]}"#;

const KRAKEN_BOOK: &str = r#"{"channel":"book","type":"update","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5657,"qty":1098.3947558},{"price":0.5656,"qty":2000.00000000}],"asks":[{"price":0.5669,"qty":24000.00000000}],"checksum":2114181697,"timestamp":"2023-10-06T17:35:55.440295Z"}]}"#;

/// A difference of so many levels, half of them bids; `first` is its only update.
fn depth(levels: usize, first: u64) -> String {
    let side = |base: i64, step: i64| {
        let level = |i: usize| {
            let cents = base + step * i as i64;
            format!(
                r#"["{}.{:02}000000","{}.{:08}"]"#,
                cents / 100,
                cents % 100,
                i % 7,
                1_234_567 * (i + 1) % 99_999_999
            )
        };
        (0..levels / 2).map(level).collect::<Vec<_>>().join(",")
    };
    format!(
        r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1672515782136,"s":"BTCUSDT","U":{first},"u":{first},"b":[{}],"a":[{}]}}}}"#,
        side(1_654_850, -1),
        side(1_654_852, 1)
    )
}

fn frame(kind: FrameKind, text: &str) -> Frame {
    Frame {
        received_ns: 1_672_515_782_200_000_000,
        connection: 0,
        kind,
        data: text.as_bytes().to_vec().into(),
    }
}

fn feed(with: &str) -> BinanceFeed {
    let params: Params = serde_json::from_str(with).expect("the parameters are valid");
    BinanceFeed::new(Arc::new(params))
}

/// Hands frames over as a driver does, taking the rows now and then.
fn hear(feed: &mut BinanceFeed, frames: &[Frame], out: &mut Output) -> usize {
    let mut rows = 0;
    for chunk in frames.chunks(64) {
        for frame in chunk {
            feed.on_frame(black_box(frame), out);
        }
        rows += feed.finish().num_rows();
    }
    rows
}

/// Messages of one iteration of the `rows` benches; their times are to be divided by it.
const MESSAGES: u64 = 1024;

fn binance(c: &mut Criterion) {
    let mut group = c.benchmark_group("binance");
    group.bench_function("trade, parse", |b| b.iter(|| event::<Trade<'_>>(black_box(TRADE.as_bytes()))));
    group.bench_function("trade, parse with serde_json", |b| {
        b.iter(|| serde_json::from_slice::<Envelope<'_, Trade<'_>>>(black_box(TRADE.as_bytes())));
    });
    for levels in [10, 20] {
        let text = depth(levels, 160);
        group.bench_function(format!("depth of {levels} levels, parse"), |b| {
            b.iter(|| event::<DepthUpdate<'_>>(black_box(text.as_bytes())));
        });
    }
    group.throughput(criterion::Throughput::Elements(MESSAGES));
    let with = r#"{"market":"spot","symbols":["BTCUSDT"],"channel":"trades","check_symbols":false}"#;
    let trades: Vec<Frame> = (0..MESSAGES)
        .map(|i| frame(FrameKind::Received, &TRADE.replace("2912345678", &(2_912_345_678 + i).to_string())))
        .collect();
    group.bench_function("trade, rows", |b| {
        let fresh = || (feed(with), Output::default());
        b.iter_batched_ref(fresh, |(feed, out)| hear(feed, &trades, out), BatchSize::SmallInput);
    });
    for levels in [10, 20] {
        let with = r#"{"market":"spot","symbols":["BTCUSDT"],"channel":"book","check_symbols":false,"book":{"output":"quotes"}}"#;
        let updates: Vec<Frame> =
            (0..MESSAGES).map(|i| frame(FrameKind::Received, &depth(levels, 161 + i))).collect();
        let fresh = || {
            let (mut feed, mut out) = (feed(with), Output::default());
            let url = "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000".to_owned();
            let snapshot = r#"{"lastUpdateId":160,"bids":[["16548.50","1"]],"asks":[["16548.52","1"]]}"#;
            feed.on_frame(&frame(FrameKind::Received, &depth(levels, 160)), &mut out);
            feed.on_frame(&frame(FrameKind::Response { url, status: 200 }, snapshot), &mut out);
            (feed, out)
        };
        group.bench_function(format!("depth of {levels} levels, book and rows"), |b| {
            b.iter_batched_ref(fresh, |(feed, out)| hear(feed, &updates, out), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn others(c: &mut Criterion) {
    let mut group = c.benchmark_group("coinbase");
    group.bench_function("level2 of 3 levels, parse", |b| {
        b.iter(|| {
            let envelope =
                read::<coinbase::wire::Envelope<'_>>(black_box(COINBASE_LEVEL2.as_bytes())).ok()?;
            let events = envelope.events?;
            read::<Vec<coinbase::wire::BookEvent<'_>>>(events.as_raw_str().as_bytes())
                .ok()
                .map(|e| e[0].updates.len())
        });
    });
    group.finish();
    let mut group = c.benchmark_group("kraken");
    group.bench_function("book of 3 levels, parse and checksum", |b| {
        let mut book = Book::new(Some(10));
        b.iter(|| {
            let envelope = read::<kraken::v2_wire::Envelope<'_>>(black_box(KRAKEN_BOOK.as_bytes())).ok()?;
            let data: LazyValue<'_> = envelope.data?;
            let update = read::<Vec<kraken::v2_wire::Book<'_>>>(data.as_raw_str().as_bytes()).ok()?.pop()?;
            let levels = Levels { bids: &update.bids.0, asks: &update.asks.0 };
            for (side, level) in levels.iter() {
                book.set(side, level).ok()?;
            }
            Some(checksum_of(&book, None) == update.checksum)
        });
    });
    group.finish();
}

criterion_group!(benches, binance, others);
criterion_main!(benches);
