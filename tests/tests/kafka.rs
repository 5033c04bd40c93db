//! The Kafka source and sink against a real broker: `scripts/services start kafka`.
//!
//! Each test makes topics of its own. Without a broker (`TIDEMILL_TEST_KAFKA` unset) they say loudly
//! that nothing was tested; where CI=true that is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{DictionaryArray, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use tidemill_connectors::kafka::admin::{self, Message};
use tidemill_connectors::kafka::{Connection, Kafka as KafkaSource};
use tidemill_engine::clock::Clock;
use tidemill_engine::component::{PlanContext, SinkKind, SourceKind, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::operator::END;
use tidemill_engine::row;
use tidemill_engine::sink::{SinkContext, SinkWriter};
use tidemill_engine::source::{Chunk, Seqs, SourceContext, SourceEvent};
use tidemill_sinks::kafka::Kafka as KafkaSink;
use tidemill_tests::patience::{guarded, hang_guard};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The broker's address, or `None` where there is none.
fn broker() -> Option<String> {
    match std::env::var("TIDEMILL_TEST_KAFKA") {
        Ok(address) => Some(address),
        Err(_) if std::env::var("CI").is_ok_and(|v| v == "true") => {
            panic!("TIDEMILL_TEST_KAFKA is not set, and CI=true")
        }
        Err(_) => {
            eprintln!(
                "SKIPPED, NOT TESTED: no Kafka; run scripts/services start kafka; eval \"$(scripts/services env)\""
            );
            None
        }
    }
}

fn unique(name: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("t{}-{}-{n}-{name}", std::process::id(), Clock::System.now_ns() % 1_000_000_007)
}

fn plan_context() -> PlanContext {
    PlanContext { job: "job".into(), node: "node".into(), base: ".".into(), clock: Clock::System }
}

// ---------------------------------------------------------------- the source, run by hand

struct Reading {
    events: mpsc::UnboundedReceiver<SourceEvent>,
    stop: CancellationToken,
    committed: watch::Sender<BTreeMap<u32, Value>>,
    done: tokio::task::JoinHandle<Result<(), ConnectorError>>,
    /// Of each partition announced by `ready`, whether it has ended.
    ended: Vec<Arc<AtomicBool>>,
}

async fn read(with: Value, restored: BTreeMap<u32, Value>) -> Reading {
    read_as(with, restored, 0, 1).await
}

async fn read_as(with: Value, restored: BTreeMap<u32, Value>, instance: usize, instances: usize) -> Reading {
    let plan = KafkaSource::plan(serde_json::from_value(with).unwrap(), &plan_context()).await.unwrap();
    let (events_in, events) = mpsc::unbounded_channel();
    let (committed, committed_out) = watch::channel(BTreeMap::new());
    let stop = CancellationToken::new();
    let cx = SourceContext {
        name: "trades".into(),
        instance,
        instances,
        restored,
        chunk_rows: 1000,
        clock: Clock::System,
        stop: stop.clone(),
        committed: committed_out,
        events: events_in,
        wake: Arc::new(|| {}),
        counts: Default::default(),
        run: 0,
        generation: 0,
        log: Default::default(),
    };
    let done = tokio::spawn(async move { plan.source.run(cx).await });
    Reading { events, stop, committed, done, ended: Vec::new() }
}

fn trades(address: &str, topic: &str, more: Value) -> Value {
    let mut with = json!({ "brokers": address, "topic": topic, "schema": "trade", "start": "earliest" });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    with
}

impl Reading {
    /// The queues of the partitions announced by `ready`.
    async fn partitions(&mut self) -> Vec<(u32, tidemill_engine::source::ChunkQueue)> {
        let mut queues = Vec::new();
        loop {
            match guarded("no event of the source", self.events.recv()).await {
                Some(SourceEvent::Partition(id, queue, ended)) => {
                    self.ended.push(ended);
                    queues.push((id, queue));
                }
                Some(SourceEvent::Begins(..)) => {}
                Some(SourceEvent::Ready) => return queues,
                None => panic!("the source ended: {:?}", (&mut self.done).await),
            }
        }
    }

    /// Reads a bounded topic to its end: rows' offsets by partition, rejects, last positions.
    async fn all(mut self) -> (BTreeMap<u32, Vec<u64>>, Vec<String>, BTreeMap<u32, Value>) {
        let (mut offsets, mut rejects, mut positions) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for (id, mut queue) in self.partitions().await {
            let of: &mut Vec<u64> = offsets.entry(id).or_default();
            while let Some(chunk) = queue.recv().await {
                of.extend(seqs(&chunk));
                rejects.extend(chunk.rejects.iter().map(|r| format!("{}@{} {}", r.seq, r.before, r.reason)));
                positions.insert(id, chunk.position);
            }
        }
        self.done.await.unwrap().unwrap();
        (offsets, rejects, positions)
    }
}

fn seqs(chunk: &Chunk) -> Vec<u64> {
    match &chunk.seqs {
        Seqs::From(first) => (*first..).take(chunk.rows.num_rows()).collect(),
        Seqs::List(all) => all.clone(),
    }
}

fn trade(i: usize) -> Message {
    let payload =
        json!({ "ts": i as i64 * 1_000_000, "symbol": format!("S{}", i % 5), "price": i, "size": 1 });
    Message {
        payload: Some(payload.to_string().into_bytes()),
        key: Some(format!("S{}", i % 5).into_bytes()),
        ..Message::default()
    }
}

// ---------------------------------------------------------------- the sink, driven by hand

fn signal_info() -> StreamInfo {
    let fields = [
        Arc::new(Field::new("symbol", row::symbol_type(), false)),
        Arc::new(Field::new("price", DataType::Float64, true)),
    ];
    StreamInfo { name: "signal".into(), schema: row::stream_schema(&fields) }
}

/// Rows at `ts` in `range`, in order, one a nanosecond, `_seq` the same.
fn signals(range: std::ops::Range<i64>) -> RecordBatch {
    let names: Vec<String> = range.clone().map(|i| format!("S{}", i % 5)).collect();
    let symbols: DictionaryArray<Int32Type> = names.iter().map(String::as_str).collect();
    RecordBatch::try_new(
        signal_info().schema,
        vec![
            row::ts_array(range.clone().collect()),
            row::u64_array(range.clone().map(|_| 7).collect()),
            row::u64_array(range.clone().map(|i| i as u64).collect()),
            Arc::new(symbols),
            Arc::new(Float64Array::from_iter_values(range.map(|i| i as f64))),
        ],
    )
    .unwrap()
}

/// Opens the sink as a job's first start (`generation` 1) or as a restart does.
async fn open(
    with: &Value,
    job: &str,
    generation: u64,
    restored: Vec<(usize, Value)>,
) -> Result<Box<dyn SinkWriter>, ConnectorError> {
    open_run(with, job, generation, 1, restored).await
}

async fn open_run(
    with: &Value,
    job: &str,
    generation: u64,
    run: u64,
    restored: Vec<(usize, Value)>,
) -> Result<Box<dyn SinkWriter>, ConnectorError> {
    let plan =
        KafkaSink::plan(serde_json::from_value(with.clone()).unwrap(), &signal_info(), &plan_context())
            .unwrap();
    let shards = with.get("shards").and_then(Value::as_u64).unwrap_or(1) as usize;
    let cx = SinkContext {
        job: job.into(),
        name: "signals".into(),
        shard: 0,
        shards,
        generation,
        run,
        fresh: generation == run,
        resumed: generation != run,
        replayable: true,
        start_checkpoint: u64::from(!restored.is_empty()),
        former: Vec::new(),
        schema: signal_info().schema,
        restored,
        base: ".".into(),
        clock: Clock::System,
    };
    plan.sink.open(cx).await
}

async fn prices(connection: &Connection, topic: &str, committed: bool) -> Vec<i64> {
    let all = admin::read_all(connection, topic, committed).await.unwrap();
    let price = |m: &Message| {
        serde_json::from_slice::<Value>(m.payload.as_ref().unwrap()).unwrap()["price"].as_f64().unwrap()
            as i64
    };
    all.iter().map(price).collect()
}

// ---------------------------------------------------------------- source

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_comes_once_by_partition_and_a_resumed_run_goes_on_behind_it() {
    let Some(address) = broker() else { return };
    let (connection, topic) = (Connection::plain(&address), unique("trades"));
    admin::create_topic(&connection, &topic, 3, &[]).await.unwrap();
    admin::produce(&connection, &topic, (0..20_000).map(trade).collect()).await.unwrap();
    let (offsets, rejects, positions) =
        read(trades(&address, &topic, json!({"stop": "end"})), BTreeMap::new()).await.all().await;
    assert_eq!(offsets.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(offsets.values().map(Vec::len).sum::<usize>(), 20_000);
    for of in offsets.values() {
        assert!(of.iter().copied().eq(0..of.len() as u64));
    }
    assert!(rejects.is_empty());
    // Bad ones between good ones, then resumed on two instances.
    let bad = |payload: Option<&str>| Message {
        payload: payload.map(|p| p.as_bytes().to_vec()),
        partition: Some(0),
        ..Message::default()
    };
    let good = Message { partition: Some(0), ..trade(7) };
    let far = r#"{"ts":"2199-01-01T00:00:00Z","symbol":"A","price":1,"size":1}"#;
    admin::produce(
        &connection,
        &topic,
        vec![good.clone(), bad(Some("{nonsense")), bad(None), good.clone(), bad(Some(far)), good],
    )
    .await
    .unwrap();
    let start = offsets[&0].len() as u64;
    // The run that has read them ends where it was going to.
    let (same, rejects, _) =
        read(trades(&address, &topic, json!({"stop": "end"})), positions.clone()).await.all().await;
    assert!(same.values().all(Vec::is_empty) && rejects.is_empty(), "{same:?}");
    // One that had no end takes that of the topic.
    let positions: BTreeMap<u32, Value> =
        positions.into_iter().map(|(p, at)| (p, json!({"offset": at["offset"]}))).collect();
    let (again, rejects, _) =
        read_as(trades(&address, &topic, json!({"stop": "end"})), positions.clone(), 0, 2).await.all().await;
    assert_eq!(again, BTreeMap::from([(0, vec![start, start + 3, start + 5]), (2, vec![])]));
    assert_eq!(rejects.len(), 3);
    assert!(rejects[0].starts_with(&format!("{}@1 not valid JSON", start + 1)), "{rejects:?}");
    assert!(rejects[1].ends_with("the message has no value (a tombstone)"), "{rejects:?}");
    assert!(rejects[2].starts_with(&format!("{}@2 event time is", start + 4)), "{rejects:?}");
    let (other, _, _) =
        read_as(trades(&address, &topic, json!({"stop": "end"})), positions, 1, 2).await.all().await;
    assert_eq!(other, BTreeMap::from([(1, vec![])]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_topic_ends_at_once_and_one_with_only_aborted_messages_too() {
    let Some(address) = broker() else { return };
    let (connection, topic) = (Connection::plain(&address), unique("empty"));
    admin::create_topic(&connection, &topic, 1, &[]).await.unwrap();
    let with = trades(&address, &topic, json!({"stop": "end"}));
    let (offsets, ..) = read(with.clone(), BTreeMap::new()).await.all().await;
    assert_eq!(offsets, BTreeMap::from([(0, vec![])]));
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &address)
        .set("transactional.id", &topic)
        .create()
        .unwrap();
    producer.init_transactions(Duration::from_secs(10)).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<[u8], _>::to(&topic).payload("{}")).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
    producer.abort_transaction(Duration::from_secs(10)).unwrap();
    let (offsets, ..) = read(with, BTreeMap::new()).await.all().await;
    assert_eq!(offsets, BTreeMap::from([(0, vec![])]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_are_read_and_offsets_of_checkpoints_reach_the_group() {
    let Some(address) = broker() else { return };
    let (connection, topic) = (Connection::plain(&address), unique("grows"));
    admin::create_topic(&connection, &topic, 1, &[]).await.unwrap();
    admin::produce(&connection, &topic, (0..10).map(trade).collect()).await.unwrap();
    let mut reading = read(
        trades(&address, &topic, json!({"discover": "200ms", "group": topic, "start": "latest"})),
        BTreeMap::new(),
    )
    .await;
    let mut first = reading.partitions().await.remove(0).1;
    // Where it begins is told before any row: a restart before the first row begins there too.
    let chunk = first.recv().await.unwrap();
    assert_eq!((chunk.rows.num_rows(), chunk.position), (0, json!({"topic": topic, "offset": 10})));
    let client: rdkafka::admin::AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", &address).create().unwrap();
    client
        .create_partitions(&[rdkafka::admin::NewPartitions::new(&topic, 2)], &Default::default())
        .await
        .unwrap();
    admin::produce(&connection, &topic, vec![Message { partition: Some(0), ..trade(1) }]).await.unwrap();
    while admin::topic_partitions(&connection, &topic).await.unwrap() != Some(2) {}
    admin::produce(&connection, &topic, vec![Message { partition: Some(1), ..trade(2) }]).await.unwrap();
    assert_eq!(seqs(&first.recv().await.unwrap()), [10]);
    let Some(SourceEvent::Begins(1, _)) = reading.events.recv().await else { panic!("no new partition") };
    let Some(SourceEvent::Partition(1, mut second, _)) = reading.events.recv().await else {
        panic!("no new partition")
    };
    assert_eq!(second.recv().await.unwrap().position, json!({"topic": topic, "offset": 0}));
    assert_eq!(seqs(&second.recv().await.unwrap()), [0]);
    reading.committed.send(BTreeMap::from([(0, json!({"offset": 11})), (1, json!({"offset": 1}))])).unwrap();
    let committed = tokio::task::spawn_blocking(move || {
        use rdkafka::consumer::Consumer;
        let group: rdkafka::consumer::BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &address).set("group.id", &topic).create().unwrap();
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition(&topic, 0);
        list.add_partition(&topic, 1);
        let guard = hang_guard();
        loop {
            let offsets = group.committed_offsets(list.clone(), Duration::from_secs(10)).unwrap();
            let offsets: Vec<_> = offsets.elements().iter().map(|e| e.offset()).collect();
            if offsets == [rdkafka::Offset::Offset(11), rdkafka::Offset::Offset(1)] {
                return;
            }
            guard.check(|| format!("committed are {offsets:?}"));
        }
    });
    committed.await.unwrap();
    reading.stop.cancel();
    reading.done.await.unwrap().unwrap();
    // Stopped is not ended.
    assert!(first.try_recv().is_err() && !reading.ended[0].load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_named() {
    let Some(address) = broker() else { return };
    let (connection, topic) = (Connection::plain(&address), unique("missing"));
    let error =
        read(trades(&address, &topic, json!({})), BTreeMap::new()).await.done.await.unwrap().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("kafka topic `{topic}` does not exist at {address}; create it")),
        "{error}"
    );
    assert!(matches!(error, ConnectorError::Fatal(_)));
    // Read up to here; then retention deletes, and the topic is shorter than the checkpoint knows.
    admin::create_topic(&connection, &topic, 1, &[]).await.unwrap();
    admin::produce(&connection, &topic, (0..10).map(trade).collect()).await.unwrap();
    for (offset, why) in [(11, "cut short"), (2, "retention")] {
        if offset == 2 {
            let client: rdkafka::admin::AdminClient<_> =
                ClientConfig::new().set("bootstrap.servers", &address).create().unwrap();
            let mut until = rdkafka::TopicPartitionList::new();
            until.add_partition_offset(&topic, 0, rdkafka::Offset::Offset(5)).unwrap();
            client.delete_records(&until, &Default::default()).await.unwrap();
        }
        let restored = BTreeMap::from([(0, json!({"offset": offset}))]);
        let error = read(trades(&address, &topic, json!({})), restored)
            .await
            .done
            .await
            .unwrap()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(why)
                && error.contains(&format!("no offset {offset}"))
                && error.contains("--from none"),
            "{error}"
        );
    }
}

/// Given a checkpoint in a topic that was deleted and created again with as many messages, then going on there is refused; with what had
/// been read cut off by retention, it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_created_again_is_refused() {
    let Some(address) = broker() else { return };
    let (connection, topic) = (Connection::plain(&address), unique("again"));
    let with = trades(&address, &topic, json!({"stop": "end"}));
    admin::create_topic(&connection, &topic, 1, &[]).await.unwrap();
    admin::produce(&connection, &topic, (0..10).map(trade).collect()).await.unwrap();
    let (.., mut positions) = read(with.clone(), BTreeMap::new()).await.all().await;
    // The end that this read had is not that of the next.
    for position in positions.values_mut() {
        position.as_object_mut().unwrap().remove("end");
    }
    admin::produce(&connection, &topic, (10..20).map(trade).collect()).await.unwrap();
    let client: rdkafka::admin::AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", &address).create().unwrap();
    let mut until = rdkafka::TopicPartitionList::new();
    until.add_partition_offset(&topic, 0, rdkafka::Offset::Offset(10)).unwrap();
    client.delete_records(&until, &Default::default()).await.unwrap();
    let (offsets, ..) = read(with.clone(), positions.clone()).await.all().await;
    assert_eq!(offsets[&0], (10..20).collect::<Vec<_>>());

    admin::delete_topic(&connection, &topic).await.unwrap();
    while admin::topic_partitions(&connection, &topic).await.unwrap().is_some() {}
    admin::create_topic(&connection, &topic, 1, &[]).await.unwrap();
    admin::produce(&connection, &topic, (100..120).map(trade).collect()).await.unwrap();
    let error = read(with, positions).await.done.await.unwrap().unwrap_err();
    let ConnectorError::Fatal(reason) = &error else { panic!("{error}") };
    assert!(reason.contains("another message at offset 9") && reason.contains("--from none"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_vanishes_stops_the_job_with_its_name() {
    let Some(address) = broker() else { return };
    let (connection, topic) = (Connection::plain(&address), unique("vanishes"));
    admin::create_topic(&connection, &topic, 1, &[]).await.unwrap();
    admin::produce(&connection, &topic, vec![trade(1)]).await.unwrap();
    let mut reading = read(trades(&address, &topic, json!({"discover": "1s"})), BTreeMap::new()).await;
    let mut queue = reading.partitions().await.remove(0).1;
    while seqs(&queue.recv().await.unwrap()).is_empty() {}
    admin::delete_topic(&connection, &topic).await.unwrap();
    let error = guarded("the source goes on", reading.done).await.unwrap().unwrap_err();
    assert!(error.to_string().contains(&format!("`{topic}` at {address} has vanished")), "{error}");
    // Failed is not ended.
    assert!(queue.try_recv().is_err() && !reading.ended[0].load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_nobody_takes_from_does_not_stop_the_others() {
    let Some(address) = broker() else { return };
    let (connection, topic) = (Connection::plain(&address), unique("slow"));
    admin::create_topic(&connection, &topic, 2, &[]).await.unwrap();
    let messages = (0..60_000).map(|i| Message { partition: Some(i as i32 % 2), ..trade(i) }).collect();
    admin::produce(&connection, &topic, messages).await.unwrap();
    let mut reading = read(trades(&address, &topic, json!({"stop": "end"})), BTreeMap::new()).await;
    let mut queues = reading.partitions().await;
    let mut got = 0;
    while let Some(chunk) = queues[1].1.recv().await {
        got += chunk.rows.num_rows();
    }
    assert_eq!(got, 30_000);
    let mut rest = 0;
    while let Some(chunk) = queues[0].1.recv().await {
        rest += chunk.rows.num_rows();
    }
    assert_eq!(rest, 30_000);
    reading.done.await.unwrap().unwrap();
}

// ---------------------------------------------------------------- sink

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_and_replayed_each_row_is_there_once() {
    let Some(address) = broker() else { return };
    let (connection, topic, job) = (Connection::plain(&address), unique("once"), unique("job"));
    let with = json!({ "brokers": address, "topic": topic, "key": ["symbol"] });
    let mut writer = open(&with, &job, 1, vec![]).await.unwrap();
    writer.flush(5).await.unwrap();
    writer.write(signals(10..20)).await.unwrap();
    writer.flush(20).await.unwrap();
    let checkpoint = writer.checkpoint(1).await.unwrap();
    assert_eq!(checkpoint, json!({"topic": topic, "shards": 1, "watermark": 20}));
    writer.write(signals(20..30)).await.unwrap();
    writer.flush(31).await.unwrap();
    // Killed in mid transaction: rows are in the log, and never committed.
    writer.write(signals(31..40)).await.unwrap();
    let guard = hang_guard();
    while prices(&connection, &topic, false).await.len() < 29 {
        guard.check(|| "the open transaction's rows are not in the log".to_owned());
    }
    std::mem::forget(writer);
    assert_eq!(prices(&connection, &topic, false).await, (10..30).chain(31..40).collect::<Vec<_>>());
    let mut writer = open(&with, &job, 2, vec![(0, checkpoint)]).await.unwrap();
    // Replay from the checkpoint in other batches.
    writer.write(signals(20..25)).await.unwrap();
    writer.flush(25).await.unwrap();
    writer.write(signals(25..30)).await.unwrap();
    writer.write(signals(31..50)).await.unwrap();
    writer.flush(END).await.unwrap();
    assert_eq!(writer.checkpoint(2).await.unwrap()["watermark"], 50);
    writer.close().await.unwrap();
    assert_eq!(prices(&connection, &topic, true).await, (10..30).chain(31..50).collect::<Vec<_>>());
    let message = admin::read_all(&connection, &topic, true).await.unwrap().remove(0);
    assert_eq!(message.key.as_deref(), Some(b"S0".as_slice()));
    assert_eq!(
        String::from_utf8(message.payload.unwrap()).unwrap(),
        r#"{"ts":"1970-01-01T00:00:00.000000010Z","symbol":"S0","price":10.0}"#
    );
    assert_eq!(message.headers, [("tidemill-origin".to_owned(), b"7:10".to_vec())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_fences_the_first() {
    let Some(address) = broker() else { return };
    let (connection, topic, job) = (Connection::plain(&address), unique("fenced"), unique("job"));
    let with = json!({ "brokers": address, "topic": topic });
    let mut old = open(&with, &job, 1, vec![]).await.unwrap();
    old.write(signals(0..10)).await.unwrap();
    old.flush(10).await.unwrap();
    old.write(signals(10..15)).await.unwrap();
    let mut new = open(&with, &job, 2, vec![]).await.unwrap();
    let error = old.flush(15).await.unwrap_err();
    assert!(matches!(error, ConnectorError::Fenced(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("fenced: a newer run of job `{job}` has taken over topic `{topic}`")
    );
    // Nor can it go on later.
    let later = match old.write(signals(15..16)).await {
        Ok(()) => old.flush(16).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(later, ConnectorError::Fenced(_)), "{later:?}");
    new.write(signals(0..30)).await.unwrap();
    new.flush(30).await.unwrap();
    assert_eq!(prices(&connection, &topic, true).await, (0..30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_found_behind_a_tail_of_aborted_transactions() {
    let Some(address) = broker() else { return };
    let (connection, topic, job) = (Connection::plain(&address), unique("tail"), unique("job"));
    let with = json!({ "brokers": address, "topic": topic });
    let mut writer = open(&with, &job, 1, vec![]).await.unwrap();
    writer.write(signals(0..10)).await.unwrap();
    writer.flush(10).await.unwrap();
    drop(writer);
    let aborts = move |address: String, id: String, progress: String| {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &address)
            .set("transactional.id", &id)
            .create()
            .unwrap();
        producer.init_transactions(Duration::from_secs(10)).unwrap();
        for i in 0..300 {
            producer.begin_transaction().unwrap();
            let junk = json!({ "watermark": i }).to_string();
            producer.send(BaseRecord::<[u8], _>::to(&progress).partition(0).payload(&junk)).unwrap();
            while producer.in_flight_count() > 0 {
                producer.poll(Duration::from_millis(1));
            }
            producer.abort_transaction(Duration::from_secs(10)).unwrap();
        }
    };
    let (address2, id, progress) =
        (address.clone(), format!("tidemill.{job}.signals.0"), format!("tidemill.{job}.signals.progress"));
    tokio::task::spawn_blocking(move || aborts(address2, id, progress)).await.unwrap();
    let mut writer = open(&with, &job, 2, vec![]).await.unwrap();
    assert_eq!(writer.checkpoint(1).await.unwrap()["watermark"], 10);
    writer.write(signals(0..20)).await.unwrap();
    writer.flush(20).await.unwrap();
    assert_eq!(prices(&connection, &topic, true).await, (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_from_nothing_writes_everything_again_and_an_old_start_cannot_come_back() {
    let Some(address) = broker() else { return };
    let (connection, topic, job) = (Connection::plain(&address), unique("again"), unique("job"));
    let with = json!({ "brokers": address, "topic": topic });
    let mut writer = open(&with, &job, 1, vec![]).await.unwrap();
    writer.write(signals(0..10)).await.unwrap();
    writer.flush(10).await.unwrap();
    // Killed before it commits anything, the new run is still a new run when it restarts.
    drop(open_run(&with, &job, 4, 4, vec![]).await.unwrap());
    let mut writer = open_run(&with, &job, 5, 4, vec![]).await.unwrap();
    writer.write(signals(0..10)).await.unwrap();
    writer.flush(10).await.unwrap();
    assert_eq!(prices(&connection, &topic, true).await, (0..10).chain(0..10).collect::<Vec<_>>());
    assert!(matches!(open_run(&with, &job, 3, 4, vec![]).await.err(), Some(ConnectorError::Fenced(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_that_was_deleted_or_sharded_otherwise_stops_the_job() {
    let Some(address) = broker() else { return };
    let (topic, job) = (unique("lost"), unique("job"));
    let with = json!({ "brokers": address, "topic": topic, "key": ["symbol"] });
    let error = |result: Result<Box<dyn SinkWriter>, ConnectorError>| match result {
        Err(error @ ConnectorError::Fatal(_)) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opened"),
    };
    let remembered = vec![(0, json!({"topic": topic, "shards": 1, "watermark": 20}))];
    let lost = error(open(&with, &job, 2, remembered).await);
    assert!(lost.contains("knows nothing of it: it was deleted or cut short"), "{lost}");
    let mut writer = open(&with, &job, 3, vec![]).await.unwrap();
    writer.write(signals(0..10)).await.unwrap();
    writer.flush(10).await.unwrap();
    let lost =
        error(open(&with, &job, 4, vec![(0, json!({"topic": topic, "shards": 1, "watermark": 20}))]).await);
    assert!(lost.contains("knows less"), "{lost}");
    let mut two = with.clone();
    two["shards"] = json!(2);
    let rescaled = error(open(&two, &job, 5, vec![]).await);
    assert!(rescaled.contains("keep `shards: 1`"), "{rescaled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_writes_every_row_before_flush_returns() {
    let Some(address) = broker() else { return };
    let (connection, topic, job) = (Connection::plain(&address), unique("least"), unique("job"));
    let with = json!({ "brokers": address, "topic": topic, "delivery": "at_least_once", "partitions": 3, "key": ["symbol"], "compression": "zstd" });
    let mut writer = open(&with, &job, 1, vec![]).await.unwrap();
    writer.write(signals(0..5000)).await.unwrap();
    writer.flush(0).await.unwrap();
    let mut all = prices(&connection, &topic, true).await;
    all.sort_unstable();
    assert_eq!(all, (0..5000).collect::<Vec<_>>());
    // Java's default partitioner puts these keys (murmur2, positive, modulo 3) where we do.
    for message in admin::read_all(&connection, &topic, true).await.unwrap() {
        let hash = murmur2(message.key.as_ref().unwrap()) & 0x7fff_ffff;
        assert_eq!(message.partition, Some((hash % 3) as i32));
    }
}

/// `org.apache.kafka.common.utils.Utils.murmur2`, written from its description.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_broker_takes_what_the_sink_writes_and_gives_it_to_the_source() {
    let (topic, job) = (unique("embedded"), unique("job"));
    let with = json!({ "brokers": "embedded", "topic": topic, "key": ["symbol"] });
    let mut writer = open(&with, &job, 1, vec![]).await.unwrap();
    writer.write(signals(0..100)).await.unwrap();
    writer.flush(100).await.unwrap();
    drop(writer);
    let mut writer = open(&with, &job, 2, vec![]).await.unwrap();
    writer.write(signals(50..200)).await.unwrap();
    writer.flush(200).await.unwrap();
    let source = json!({ "brokers": "embedded", "topic": topic, "stop": "end", "schema": {"ts": "timestamp", "symbol": "symbol", "price": "f64"} });
    let (offsets, rejects, _) = read(source, BTreeMap::new()).await.all().await;
    assert_eq!((offsets[&0].len(), rejects.len()), (200, 0));
}
