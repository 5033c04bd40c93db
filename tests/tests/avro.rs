//! Kafka Avro against a real broker, a real Schema Registry and other people's Avro:
//! `scripts/services start kafka registry`, `scripts/python`.
//!
//! The registry is Apicurio's, by its Confluent-compatible API. The witness is confluent-kafka for Python, whose
//! Avro is fastavro: what it writes we must read, what we write it must read. Only where a registry has
//! to misbehave is it played by a few lines of HTTP here.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type};
use serde_json::{Value, json};
use tidemill_connectors::kafka::admin::{self, Message};
use tidemill_connectors::kafka::{Connection, Kafka as KafkaSource};
use tidemill_engine::clock::Clock;
use tidemill_engine::component::{PlanContext, SinkKind, SourceKind, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::json::{EncodeOptions, Encoder};
use tidemill_engine::row;
use tidemill_engine::sink::{SinkContext, SinkWriter};
use tidemill_engine::source::{Seqs, SourceContext, SourceEvent};
use tidemill_sinks::kafka::Kafka as KafkaSink;
use tidemill_tests::patience::guarded;
use tidemill_tests::{kafka, python, schema_registry, unique};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

fn context() -> PlanContext {
    PlanContext { job: "job".into(), node: "node".into(), base: ".".into(), clock: Clock::System }
}

/// What a bounded read of a topic gave: rows as JSON, rows' offsets, rejects.
#[derive(Debug, Default)]
struct Read {
    rows: Vec<Value>,
    seqs: Vec<u64>,
    rejects: Vec<String>,
}

async fn read(with: Value, chunk_rows: usize) -> Result<Read, ConnectorError> {
    let plan = KafkaSource::plan(serde_json::from_value(with).unwrap(), &context()).await.unwrap();
    let (events_in, mut events) = mpsc::unbounded_channel();
    let (_committed, committed) = watch::channel(BTreeMap::new());
    let cx = SourceContext {
        name: "orders".into(),
        instance: 0,
        instances: 1,
        restored: BTreeMap::new(),
        chunk_rows,
        clock: Clock::System,
        stop: CancellationToken::new(),
        committed,
        events: events_in,
        wake: Arc::new(|| {}),
        counts: Default::default(),
        run: 0,
        generation: 0,
        log: Default::default(),
    };
    let done = tokio::spawn(async move { plan.source.run(cx).await });
    let mut queues: Vec<tidemill_engine::source::ChunkQueue> = Vec::new();
    while let Some(event) = guarded("no event of the source", events.recv()).await {
        match event {
            SourceEvent::Partition(_, queue, _) => queues.push(queue),
            SourceEvent::Begins(..) => {}
            SourceEvent::Ready => break,
        }
    }
    let mut all = Read::default();
    for mut queue in queues {
        while let Some(chunk) = queue.recv().await {
            let mut encoder = Encoder::new(chunk.rows.schema(), EncodeOptions::default());
            let rows = encoder.encode(&chunk.rows);
            all.rows.extend(rows.iter().map(|row| serde_json::from_slice::<Value>(row).unwrap()));
            match chunk.seqs {
                Seqs::From(first) => all.seqs.extend((first..).take(chunk.rows.num_rows())),
                Seqs::List(list) => all.seqs.extend(list),
            }
            all.rejects.extend(chunk.rejects.iter().map(|r| format!("{} {}", r.seq, r.reason)));
        }
    }
    done.await.unwrap()?;
    Ok(all)
}

fn run_python(python: &std::path::Path, script: &str, args: &[&str]) -> String {
    let out = std::process::Command::new(python).arg("-c").arg(script).args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Writes 200 orders as confluent-kafka does: every other one by a newer version of the schema.
const WRITE: &str = r#"
import sys, json, datetime, decimal
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import SerializationContext, MessageField
brokers, registry, topic = sys.argv[1:4]
old = [
  {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
  {"name": "symbol", "type": {"type": "enum", "name": "sym", "symbols": ["AAA", "BBB", "CCC"]}},
  {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 4}},
  {"name": "size", "type": "int"},
  {"name": "tags", "type": {"type": "array", "items": "string"}},
]
new = [
  {"name": "venue", "type": ["null", "string"], "default": None},
  {"name": "symbol", "type": "string"},
  {"name": "size", "type": "double"},
  {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "legs", "type": {"type": "map", "values": {"type": "record", "name": "leg", "fields": [{"name": "px", "type": "double"}]}}, "default": {}},
  {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
]
schema = lambda fields: json.dumps({"type": "record", "name": "order", "namespace": "desk", "fields": fields})
client = SchemaRegistryClient({"url": registry})
producer = Producer({"bootstrap.servers": brokers})
serializers = [AvroSerializer(client, schema(old)), AvroSerializer(client, schema(new))]
start = datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc)
for n in range(200):
    ts = start + datetime.timedelta(milliseconds=n)
    symbol = ["AAA", "BBB", "CCC"][n % 3]
    price = decimal.Decimal(n) / 4
    if n % 2 == 0:
        value = {"ts": ts, "symbol": symbol, "price": price, "size": n, "tags": ["x"] * (n % 4)}
    else:
        value = {"ts": ts, "symbol": symbol, "price": price, "size": n + 0.5, "legs": {"a": {"px": 1.0}}, "venue": "XNYS" if n % 4 == 1 else None}
    payload = serializers[n % 2](value, SerializationContext(topic, MessageField.VALUE))
    producer.produce(topic, payload, timestamp=int(ts.timestamp() * 1000))
producer.flush()
"#;

fn expected(n: u32) -> Value {
    let size = if n.is_multiple_of(2) { f64::from(n) } else { f64::from(n) + 0.5 };
    let venue = if n % 4 == 1 { json!("XNYS") } else { Value::Null };
    let symbol = ["AAA", "BBB", "CCC"][n as usize % 3];
    let ts = if n == 0 { "2024-01-02T00:00:00Z".to_owned() } else { format!("2024-01-02T00:00:00.{n:03}Z") };
    json!({"ts": ts, "symbol": symbol, "price": f64::from(n) / 4.0, "size": size, "venue": venue})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_confluent_kafka_writes_in_two_versions_is_read_in_one() {
    let (Some(brokers), Some(registry), Some(python)) = (kafka(), schema_registry(), python()) else {
        return;
    };
    let (topic, connection) = (unique("avro"), Connection::plain(&brokers));
    admin::create_topic(&connection, &topic, 1, &[]).await.unwrap();
    run_python(&python, WRITE, &[&brokers, &registry, &topic]);
    let columns =
        json!({"ts": "timestamp", "symbol": "symbol", "price": "f64", "size": "f64", "venue": "symbol?"});
    let with = |schema: Value| {
        json!({
            "brokers": brokers, "topic": topic, "stop": "end", "format": "avro", "schema": schema,
            "registry": { "url": registry },
        })
    };
    let got = read(with(columns.clone()), 64).await.unwrap();
    assert_eq!(got.rejects, Vec::<String>::new());
    assert_eq!(got.seqs, (0..200).collect::<Vec<_>>());
    for (n, row) in got.rows.iter().enumerate() {
        assert_eq!(*row, expected(n as u32), "row {n}");
    }

    // The same by an Avro reader schema: an alias, a default, a unit and a scale of its own.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("order.avsc");
    let reader = json!({"type": "record", "name": "Ours", "fields": [
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
        {"name": "px", "aliases": ["price"],
         "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 6}},
        {"name": "desk", "type": "string", "default": "none"},
        {"name": "size", "type": "double"}
    ]});
    std::fs::write(&file, reader.to_string()).unwrap();
    let got = read(with(json!(file.to_str().unwrap())), 64).await.unwrap();
    assert_eq!((got.rows.len(), got.rejects.len()), (200, 0), "{:?}", got.rejects.first());
    for (n, row) in got.rows.iter().enumerate() {
        let whole = expected(n as u32);
        let px = format!("{}.{:02}0000", n / 4, n % 4 * 25);
        assert_eq!(*row, json!({"ts": whole["ts"], "px": px, "desk": "none", "size": whole["size"]}));
    }

    // Bad messages beside them change nothing of it.
    let good = admin::read_all(&connection, &topic, true).await.unwrap();
    let mut messages: Vec<Message> = Vec::new();
    for (n, message) in good.into_iter().enumerate() {
        let payload = message.payload.clone().unwrap();
        if n % 20 == 7 {
            let bad = match n / 20 % 4 {
                0 => payload[..payload.len() - 1].to_vec(),
                1 => b"{}".to_vec(),
                2 => [&[0, 0x7f, 0xff, 0xff, 0xff], &payload[5..]].concat(),
                _ => [&payload[..], &[1]].concat(),
            };
            messages.push(Message { payload: Some(bad), ..message.clone() });
        }
        messages.push(message);
    }
    let torn = unique("avro-torn");
    admin::create_topic(&connection, &torn, 1, &[]).await.unwrap();
    admin::produce(&connection, &torn, messages).await.unwrap();
    let mut with = with(columns);
    with["topic"] = json!(torn);
    for chunk_rows in [1000, 13] {
        let got = read(with.clone(), chunk_rows).await.unwrap();
        assert_eq!((got.rows.len(), got.rejects.len()), (200, 10), "{:?}", got.rejects);
        for (n, row) in got.rows.iter().enumerate() {
            assert_eq!(*row, expected(n as u32), "row {n}");
        }
        assert!(got.rejects[0].contains("breaks off"), "{:?}", got.rejects);
        assert!(got.rejects[1].contains("the first byte is 0x7b"), "{:?}", got.rejects);
        assert!(got.rejects[2].contains("has no schema 2147483647"), "{:?}", got.rejects);
    }
}

fn orders() -> StreamInfo {
    let user = vec![
        Arc::new(Field::new("symbol", row::symbol_type(), true)),
        Arc::new(Field::new("price", DataType::Float64, false)),
        Arc::new(Field::new("cash", DataType::Decimal128(38, 18), false)),
        Arc::new(Field::new("day", DataType::Date32, false)),
        Arc::new(Field::new("lots", DataType::Int64, true)),
    ];
    StreamInfo { name: "orders".into(), schema: row::stream_schema(&user) }
}

fn rows(range: std::ops::Range<i64>) -> RecordBatch {
    let n = || range.clone();
    let symbols: DictionaryArray<Int32Type> =
        n().map(|i| ["AAA", "BBB"].get(i as usize % 3).copied()).collect();
    let cash = Decimal128Array::from_iter_values(n().map(|i| i128::from(i) * 1_500_000_000_000_000_001));
    RecordBatch::try_new(
        orders().schema,
        vec![
            row::ts_array(n().map(|i| i * 1_000_000 + i).collect()),
            row::u64_array(n().map(|_| 7).collect()),
            row::u64_array(n().map(|i| i as u64).collect()),
            Arc::new(symbols),
            Arc::new(Float64Array::from_iter_values(n().map(|i| i as f64 / 8.0))),
            Arc::new(cash.with_precision_and_scale(38, 18).unwrap()),
            Arc::new(Date32Array::from_iter_values(n().map(|i| i as i32))),
            Arc::new(Int64Array::from_iter(n().map(|i| (i % 2 == 0).then_some(i - 50)))),
        ],
    )
    .unwrap()
}

async fn open(with: &Value, job: &str, generation: u64) -> Result<Box<dyn SinkWriter>, ConnectorError> {
    let plan = KafkaSink::plan(serde_json::from_value(with.clone()).unwrap(), &orders(), &context()).unwrap();
    let cx = SinkContext {
        job: job.into(),
        name: "orders".into(),
        shard: 0,
        shards: 1,
        generation,
        run: 1,
        fresh: generation == 1,
        resumed: generation != 1,
        replayable: true,
        start_checkpoint: 0,
        schema: orders().schema,
        restored: vec![],
        former: Vec::new(),
        base: ".".into(),
        clock: Clock::System,
    };
    plan.sink.open(cx).await
}

/// Reads a topic as confluent-kafka does; one JSON object a line, times as Avro has them.
const READ: &str = r#"
import sys, json
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import SerializationContext, MessageField
brokers, registry, topic = sys.argv[1:4]
deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
consumer = Consumer({"bootstrap.servers": brokers, "group.id": "witness", "isolation.level": "read_committed", "auto.offset.reset": "earliest", "enable.partition.eof": True})
consumer.assign([TopicPartition(topic, 0, 0)])
while True:
    message = consumer.poll(20)
    assert message is not None, "nothing came"
    if message.error():
        assert message.error().code() == -191, message.error()
        break
    value = deserialize(message.value(), SerializationContext(topic, MessageField.VALUE))
    print(json.dumps([message.key().decode() if message.key() else None, value], default=str))
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_we_write_confluent_kafka_reads_once_and_so_do_we() {
    let (Some(brokers), Some(registry), Some(python)) = (kafka(), schema_registry(), python()) else {
        return;
    };
    for delivery in ["exactly_once", "at_least_once"] {
        let (topic, job) = (unique("avro-out"), unique("job"));
        let with = json!({
            "brokers": brokers, "topic": topic, "key": ["symbol"], "delivery": delivery, "format": "avro",
            "registry": { "url": registry },
        });
        let mut writer = open(&with, &job, 1).await.unwrap();
        writer.write(rows(0..60)).await.unwrap();
        writer.flush(59_000_060).await.unwrap();
        writer.write(rows(60..100)).await.unwrap();
        if delivery == "exactly_once" {
            // Killed within the transaction: a restart writes what is not there, and only that.
            drop(writer);
            writer = open(&with, &job, 2).await.unwrap();
            writer.write(rows(30..100)).await.unwrap();
        }
        writer.flush(i64::MAX).await.unwrap();
        drop(writer);
        let printed = run_python(&python, READ, &[&brokers, &registry, &topic]);
        let seen: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(seen.len(), 100, "{delivery}");
        for (i, seen) in (0_i64..).zip(&seen) {
            let symbol = ["AAA", "BBB"].get(i as usize % 3).map_or(Value::Null, |s| json!(s));
            let unscaled = i128::from(i) * 1_500_000_000_000_000_001;
            let (whole, part) = (unscaled / 10_i128.pow(18), unscaled % 10_i128.pow(18));
            let day = chrono_day(i);
            let lots = if i % 2 == 0 { json!(i - 50) } else { Value::Null };
            assert_eq!(seen[0], symbol);
            let value = &seen[1];
            // fastavro knows no nanoseconds and gives the number.
            assert_eq!(value["ts"], json!(i * 1_000_001), "row {i} of {delivery}");
            assert_eq!(value["symbol"], symbol);
            assert_eq!(value["price"], json!(i as f64 / 8.0));
            assert_eq!(decimal(value["cash"].as_str().unwrap()), (whole, part), "{}", value["cash"]);
            assert_eq!((&value["day"], &value["lots"]), (&json!(day), &lots));
        }
        let back = json!({
            "brokers": brokers, "topic": topic, "stop": "end", "format": "avro", "registry": { "url": registry },
            "schema": {"ts": "timestamp", "symbol": "symbol?", "price": "f64", "day": "date", "lots": "i64?"},
        });
        let back = read(back, 1000).await.unwrap();
        assert_eq!((back.rows.len(), back.rejects.len()), (100, 0));
        assert_eq!(back.rows[3]["ts"], json!("1970-01-01T00:00:00.003000003Z"));
    }
}

/// The whole and the 18 decimals of a number as Python prints it.
fn decimal(text: &str) -> (i128, i128) {
    if let Some((digits, exponent)) = text.split_once("E-") {
        let exponent: u32 = exponent.parse().unwrap();
        let digits: i128 = digits.replace('.', "").parse().unwrap();
        assert!(digits == 0 || exponent == 18, "{text}");
        return (0, digits);
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    (whole.parse().unwrap(), format!("{part:0<18}").parse().unwrap())
}

/// The date so many days (below 120) after 1970-01-01.
fn chrono_day(days: i64) -> String {
    let (mut month, mut day) = (1, days + 1);
    for length in [31, 28, 31, 30] {
        if day > length {
            day -= length;
            month += 1;
        } else {
            break;
        }
    }
    format!("1970-{month:02}-{day:02}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_may_not_be_registered_stops_the_sink_at_its_start() {
    let (Some(brokers), Some(registry)) = (kafka(), schema_registry()) else { return };
    let topic = unique("avro-strict");
    let mut with = json!({
        "brokers": brokers, "topic": topic, "format": "avro", "auto_register": false, "registry": { "url": registry },
    });
    let fatal = |opened: Result<Box<dyn SinkWriter>, ConnectorError>| match opened {
        Err(ConnectorError::Fatal(reason)) => reason,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opened"),
    };
    let reason = fatal(open(&with, &unique("job"), 1).await);
    assert!(reason.contains(&format!("not registered under subject `{topic}-value`")), "{reason}");
    with["auto_register"] = json!(true);
    open(&with, &unique("job"), 1).await.unwrap();
    with["auto_register"] = json!(false);
    open(&with, &unique("job"), 1).await.unwrap();

    // The subject now asks for compatible changes; another type of a field is none.
    let rule = format!("{registry}/config/{topic}-value");
    let body = r#"{"compatibility":"FULL"}"#;
    put(&rule, body).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.avsc");
    let own = json!({"type": "record", "name": "x", "fields": [{"name": "price", "type": "float"}]});
    std::fs::write(&file, own.to_string()).unwrap();
    with["auto_register"] = json!(true);
    with["schema"] = json!(file.to_str().unwrap());
    let reason = fatal(open(&with, &unique("job"), 1).await);
    assert!(reason.contains("incompatible with the subject's earlier ones (409"), "{reason}");
}

async fn put(url: &str, body: &str) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!(
        "PUT /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A registry that gives these answers in turn, then the last for ever; and counts questions.
async fn play(answers: Vec<(u16, String)>) -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = asked.clone();
    tokio::spawn(async move {
        let mut turn = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => request.extend_from_slice(&piece[..n]),
                }
            }
            heard.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
            let (status, body) = &answers[turn.min(answers.len() - 1)];
            turn += 1;
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_in_trouble_delays_rows_and_refuses_none() {
    let topic = unique("avro-trouble");
    let connection = Connection::plain("embedded");
    admin::create_topic(&connection, &topic, 1, &[]).await.unwrap();
    let message = |id: u8| Message {
        partition: Some(0),
        offset: 0,
        timestamp_ms: Some(5),
        key: None,
        payload: Some(vec![0, 0, 0, 0, id, 10]),
        headers: Vec::new(),
    };
    admin::produce(&connection, &topic, vec![message(1), message(1), message(2)]).await.unwrap();
    let schema =
        json!({"type": "record", "name": "t", "fields": [{"name": "ts", "type": "long"}]}).to_string();
    let found = json!({ "schema": schema }).to_string();
    let with = |url: &str| {
        json!({
            "brokers": "embedded", "topic": topic, "stop": "end", "format": "avro",
            "registry": { "url": url, "username": "me", "password": "hunter2", "timeout": "1s" },
            "schema": {"ts": "timestamp"}, "event_time_unit": "ms",
        })
    };
    let away = (503, r#"{"error_code":50003,"message":"no leader"}"#.to_owned());
    let missing = (404, r#"{"error_code":40403,"message":"Schema not found"}"#.to_owned());
    let (url, asked) = play(vec![away.clone(), away.clone(), (200, found), missing]).await;
    let got = read(with(&url), 100).await.unwrap();
    assert_eq!(got.rows, vec![json!({"ts": "1970-01-01T00:00:00.005Z"}); 2]);
    assert_eq!(got.rejects, ["2 the schema registry has no schema 2"]);
    let asked = asked.lock().unwrap().clone();
    let lines: Vec<&str> = asked.iter().filter_map(|request| request.lines().next()).collect();
    let one = "GET /schemas/ids/1 HTTP/1.1";
    assert_eq!(lines, [one, one, one, "GET /schemas/ids/2 HTTP/1.1"]);
    assert!(asked[0].to_lowercase().contains("authorization: basic bwu6ahvudgvymg=="), "{}", asked[0]);

    let (url, _) = play(vec![away]).await;
    match read(with(&url), 100).await {
        Err(ConnectorError::Transient(reason)) => {
            assert!(reason.contains("answered 503: no leader") && !reason.contains("hunter2"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    for (answer, part) in [
        ((404, "<html>".to_owned()), "correct the `url`"),
        ((401, "{}".to_owned()), "correct `username` and `password`"),
        ((200, "<html>".to_owned()), "did not answer with JSON"),
    ] {
        let (url, _) = play(vec![answer]).await;
        match read(with(&url), 100).await {
            Err(ConnectorError::Fatal(reason)) => assert!(reason.contains(part), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
