//! What the jobs read: topics of trades.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use serde_json::json;
use tidemill_connectors::kafka::Connection;
use tidemill_connectors::kafka::admin::{self, Message};
use tidemill_tests::patience::hang_guard;
use tidemill_tests::{Rng, wait_for};

/// Trades in the topic of the jobs that compute.
pub const TRADES: u64 = 12_000;
/// Event time of the first, milliseconds.
pub const START_MS: u64 = 1_704_207_600_000;
/// Rows that the job which copies has from the start.
pub const COPIED: u64 = 3_000;
/// Ids of the rows that end each partition begin here.
pub const ENDS: u64 = 1_000_000;

/// Makes a topic.
pub fn create(brokers: &str, topic: &str, partitions: usize) {
    let connection = Connection::plain(brokers);
    wait_for(admin::create_topic(&connection, topic, partitions, &[("retention.ms", "-1")])).unwrap();
}

/// Writes to a topic.
pub fn produce(brokers: &str, topic: &str, messages: Vec<Message>) {
    wait_for(admin::produce(&Connection::plain(brokers), topic, messages)).unwrap();
}

/// Gives a topic more partitions. A broker that has just been started again may not know yet that it can.
pub fn grow(brokers: &str, topic: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let guard = hang_guard();
    loop {
        let new = [NewPartitions::new(topic, partitions)];
        let failed = match wait_for(admin.create_partitions(&new, &AdminOptions::new())) {
            Ok(results) => match results.into_iter().find_map(Result::err) {
                None => return,
                Some((_, code)) => code.to_string(),
            },
            Err(error) => error.to_string(),
        };
        guard.check(|| format!("topic {topic} gets no more partitions: {failed}"));
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Trades of a dozen symbols over five minutes of event time, out of order here and there, some far
/// too late, some no trades at all.
pub fn trades() -> Vec<Message> {
    let mut rng = Rng(7);
    let mut prices = [100.0f64; 12];
    let message = |i: u64| {
        let symbol = rng.within(0..12) as usize;
        prices[symbol] += (rng.within(0..201) as f64 - 100.0) / 100.0;
        let behind = match rng.within(0..1000) {
            0..=1 => rng.within(2_000..60_000),
            2..=99 => rng.within(0..150),
            _ => 0,
        };
        let ts = START_MS + (i * 300_000 / TRADES).saturating_sub(behind);
        let payload = match rng.within(0..2000) {
            0 => "{\"ts\": 17042076".to_owned(),
            1 => json!({ "ts": ts, "symbol": "S1", "price": "much", "size": 1 }).to_string(),
            _ => json!({ "ts": ts, "symbol": format!("S{symbol}"), "price": prices[symbol], "size": rng.within(1..500) }).to_string(),
        };
        Message {
            key: Some(format!("S{symbol}").into_bytes()),
            payload: Some(payload.into_bytes()),
            ..Message::default()
        }
    };
    (0..TRADES).map(message).collect()
}

/// Rows of given ids, whose `size` is the id, over given partitions: partition `id % n` of those. Their time goes on by
/// `step_ms` a row from the start, and now and then a row is older than the one before it.
pub fn numbered(ids: std::ops::Range<u64>, partitions: &[i32], step_ms: u64) -> Vec<Message> {
    let first = ids.start;
    ids.map(|id| {
        let behind = if id.is_multiple_of(13) { 150 } else { 0 };
        let ts = START_MS + ((id - first) * step_ms).saturating_sub(behind);
        row(id, ts, partitions[(id % partitions.len() as u64) as usize])
    })
    .collect()
}

/// A row far behind all others for each partition: with them, time has passed all that counts.
pub fn ends(partitions: i32) -> Vec<Message> {
    // Two of each: what is as old as the newest row of a partition is not yet passed.
    (0..2 * partitions)
        .map(|i| {
            row(ENDS + i as u64, START_MS + 3_600_000 + 60_000 * u64::from(i >= partitions), i % partitions)
        })
        .collect()
}

fn row(id: u64, ts: u64, partition: i32) -> Message {
    let symbol = format!("S{}", id % 5);
    let payload = json!({ "ts": ts, "symbol": symbol, "price": 1.5, "size": id }).to_string();
    Message {
        partition: Some(partition),
        key: Some(symbol.into_bytes()),
        payload: Some(payload.into_bytes()),
        ..Message::default()
    }
}
