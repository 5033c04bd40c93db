//! Messages here are written by hand from the Avro specification ("binary encoding"): the encoder
//! that arrow-avro has is no witness for its decoder.

use super::*;
use arrow::array::{DictionaryArray, Float64Array, StringArray};
use arrow::datatypes::{Int32Type, SchemaRef};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidemill_engine::json::{EncodeOptions, Encoder};
use tidemill_engine::row;
use tidemill_engine::schema::SchemaSpec;

/// An integer: zig-zag, 7 bits a byte, the lowest first.
fn long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    long(value.len() as i64, out);
    out.extend_from_slice(value);
}

fn message(id: u32, record: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&id.to_be_bytes());
    record(&mut out);
    out
}

fn record(fields: Value) -> String {
    json!({"type": "record", "name": "trade", "namespace": "another.team", "fields": fields}).to_string()
}

fn columns(spec: Value) -> SchemaRef {
    serde_json::from_value::<SchemaSpec>(spec).unwrap().resolve("schema").unwrap()
}

fn decode(
    target: Target,
    ahead: Option<AheadGuard>,
    schemas: &[(u32, String)],
    messages: &[Vec<u8>],
) -> Decoded {
    let known: BTreeMap<u32, String> = schemas.iter().cloned().collect();
    let mut all = Messages::new(Arc::new(Schemas::fixed(known)), target, ahead);
    for (i, message) in messages.iter().enumerate() {
        all.push(100 + i as u64, None, Some(message), Some(0));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(all.decode()).unwrap()
}

/// Rows as JSON, for comparison.
fn shown(rows: &RecordBatch) -> Vec<String> {
    let mut encoder = Encoder::new(rows.schema(), EncodeOptions::default());
    encoder.encode(rows).iter().map(|r| String::from_utf8(r.to_vec()).unwrap()).collect()
}

fn by_columns(spec: Value, schema: String, messages: &[Vec<u8>]) -> (Vec<String>, Vec<String>) {
    let decoded = decode(Target::columns(columns(spec), 1_000_000), None, &[(7, schema)], messages);
    let rejects = decoded.rejects.iter().map(|r| format!("{}@{} {}", r.seq, r.before, r.reason)).collect();
    (shown(&decoded.rows), rejects)
}

#[test]
fn every_type_a_column_may_come_from() {
    let schema = record(json!([
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "symbol", "type": {"type": "enum", "name": "s", "symbols": ["AAA", "BBB"]}},
        {"name": "venue", "type": "string"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "size", "type": "int"},
        {"name": "passed", "type": {"type": "map", "values": {"type": "array", "items": "long"}}},
        {"name": "note", "type": ["null", "string"], "default": null},
        {"name": "last", "type": ["float", "null"]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "millis", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "nanos", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
        {"name": "plain", "type": "long"},
        {"name": "text", "type": "string"},
        {"name": "up", "type": "boolean"}
    ]));
    let one = message(7, |out| {
        long(1_000_001, out);
        long(1, out);
        bytes(b"XNYS", out);
        bytes(&[0xff, 0x85], out); // -123 in two's complement
        long(-7, out);
        long(1, out); // a map of one: {"k": [5]}
        bytes(b"k", out);
        long(1, out);
        long(5, out);
        long(0, out);
        long(0, out);
        long(1, out); // the union's second branch
        bytes("ü".as_bytes(), out);
        long(0, out);
        out.extend_from_slice(&1.5_f32.to_le_bytes());
        long(19_000, out);
        long(2_500, out);
        long(-1, out);
        long(3, out);
        bytes(b"2.25", out);
        out.push(1);
    });
    let (rows, rejects) = by_columns(
        json!({
            "up": "bool", "ts": "timestamp", "symbol": "symbol", "venue": "symbol", "price": "f64", "size": "f64",
            "note": "string?", "last": "f64?", "day": "date", "millis": "timestamp", "nanos": "timestamp",
            "plain": "timestamp", "text": "f64", "absent": "string?"
        }),
        schema,
        &[one],
    );
    assert_eq!(rejects, Vec::<String>::new());
    assert_eq!(
        rows,
        [concat!(
            r#"{"up":true,"ts":"1970-01-01T00:00:01.000001Z","symbol":"BBB","venue":"XNYS","price":-1.23,"size":-7.0,"#,
            r#""note":"ü","last":1.5,"day":"2022-01-08","millis":"1970-01-01T00:00:02.500Z","#,
            r#""nanos":"1969-12-31T23:59:59.999999999Z","plain":"1970-01-01T00:00:00.003Z","text":2.25,"absent":null}"#
        )]
    );
}

fn trade() -> String {
    record(json!([
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "side", "type": {"type": "enum", "name": "side", "symbols": ["BUY", "SELL"]}},
        {"name": "symbol", "type": ["null", "string"]},
        {"name": "price", "type": "double"}
    ]))
}

fn good(n: i64) -> Vec<u8> {
    message(7, |out| {
        long(n, out);
        long(n % 2, out);
        long(1, out);
        bytes(format!("S{n}").as_bytes(), out);
        out.extend_from_slice(&(n as f64).to_le_bytes());
    })
}

#[test]
fn bad_messages_are_rejects_and_good_ones_beside_them_stay() {
    let mut messages: Vec<Vec<u8>> = (0..40).map(good).collect();
    let field = |symbol: &[u8], side: i64, ts: i64| {
        message(7, |out| {
            long(ts, out);
            long(side, out);
            long(1, out);
            bytes(symbol, out);
            out.extend_from_slice(&1.0_f64.to_le_bytes());
        })
    };
    let breaks_off = messages[3][..messages[3].len() - 1].to_vec();
    let mut left_over = good(4);
    left_over.push(0);
    // What is left may even look like a message.
    let doubled = [good(5), good(5)].concat();
    let null = message(7, |out| {
        for n in [1, 0, 0] {
            long(n, out);
        }
        out.extend_from_slice(&1.0_f64.to_le_bytes());
    });
    for (i, (at, bad)) in [
        (3, breaks_off),
        (4, left_over),
        (5, doubled),
        (9, b"{\"ts\":1}".to_vec()),
        (10, vec![]),
        (11, vec![0, 0, 0]),
        (12, message(8, |out| out.push(0))),
        (20, field(b"\xff\xfe", 0, 1)),
        (21, field(b"A", 2, 1)),
        (22, field(b"A", 0, i64::MAX / 2)),
        (23, null),
        (30, message(9, |out| out.push(0))),
        (39, vec![0, 0, 0, 0, 7]),
    ]
    .into_iter()
    .enumerate()
    {
        messages.insert(at + i, bad);
    }
    let schemas = [(7, trade()), (9, record(json!([{"name": "ts", "type": "string"}])))];
    let spec = json!({"ts": "timestamp", "side": "symbol", "symbol": "symbol", "price": "f64"});
    let decoded = decode(Target::columns(columns(spec), 1), None, &schemas, &messages);
    let prices = decoded.rows.column(3).as_any().downcast_ref::<Float64Array>().unwrap();
    assert_eq!(prices.values().to_vec(), (0..40).map(f64::from).collect::<Vec<_>>());
    let symbols = decoded.rows.column(2).as_any().downcast_ref::<DictionaryArray<Int32Type>>().unwrap();
    let symbols: Vec<_> = symbols.downcast_dict::<StringArray>().unwrap().into_iter().flatten().collect();
    assert_eq!(symbols, (0..40).map(|n| format!("S{n}")).collect::<Vec<_>>());
    let reasons: Vec<(usize, &str)> = decoded.rejects.iter().map(|r| (r.before, r.reason.as_str())).collect();
    let expected = [
        (3, "breaks off"),
        (4, "bytes left behind the record"),
        (5, "bytes left behind the record"),
        (9, "the first byte is 0x7b, not 0x00"),
        (10, "the message is empty"),
        (11, "shorter than the 5 bytes"),
        (12, "the schema registry has no schema 8"),
        (20, "UTF-8"),
        (21, "not a record of schema 7"),
        (22, "column `ts`: "),
        (23, "column `symbol`: is null"),
        (30, "schema 9: it has no field `side`"),
        (39, "breaks off"),
    ];
    assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
    for ((before, reason), (at, part)) in reasons.iter().zip(expected) {
        assert!(*before == at && reason.contains(part), "{before} {reason}, expected {at} {part}");
    }
    let mut all: Vec<u64> = decoded.rejects.iter().map(|r| r.seq).chain(decoded.seqs.clone()).collect();
    all.sort_unstable();
    assert_eq!(all, (100..100 + messages.len() as u64).collect::<Vec<_>>());
    for reject in &decoded.rejects {
        assert_eq!(reject.raw, messages[(reject.seq - 100) as usize]);
    }
}

#[test]
fn rows_do_not_depend_on_where_chunks_are_cut() {
    let mut messages: Vec<Vec<u8>> = (0..60).map(good).collect();
    for at in [0, 7, 8, 30, 59] {
        let keep = messages[at].len() / 2;
        messages[at].truncate(keep);
    }
    messages[20] = message(8, |out| {
        long(1, out);
        out.extend_from_slice(&2.0_f64.to_le_bytes());
    });
    let older = record(json!([{"name": "ts", "type": "long"}, {"name": "price", "type": "double"}]));
    let schemas = [(7, trade()), (8, older)];
    let spec = || json!({"ts": "timestamp", "symbol": "symbol?", "price": "f64"});
    let whole = decode(Target::columns(columns(spec()), 1), None, &schemas, &messages);
    let (mut rows, mut rejects) = (Vec::new(), Vec::new());
    for piece in messages.chunks(7) {
        let part = decode(Target::columns(columns(spec()), 1), None, &schemas, piece);
        rows.extend(shown(&part.rows));
        rejects.extend(part.rejects.into_iter().map(|r| r.reason));
    }
    assert_eq!(shown(&whole.rows), rows);
    assert_eq!(whole.rejects.iter().map(|r| r.reason.clone()).collect::<Vec<_>>(), rejects);
    assert_eq!((rows.len(), rejects.len()), (55, 5));
    assert_eq!(rows[17], r#"{"ts":"1970-01-01T00:00:00.000000001Z","symbol":null,"price":2.0}"#);
}

#[test]
fn a_reader_schema_brings_aliases_defaults_promotions_and_keeps_units() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trade.avsc");
    let reader = json!({"type": "record", "name": "OurTrade", "fields": [
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
        {"name": "px", "type": "double", "aliases": ["price"]},
        {"name": "fee", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 4}},
        {"name": "side", "type": {"type": "enum", "name": "side", "symbols": ["NONE", "SELL", "BUY"], "default": "NONE"}},
        {"name": "lots", "type": "long", "default": 9},
        {"name": "note", "type": ["null", "string"], "default": null}
    ]});
    std::fs::write(&file, reader.to_string()).unwrap();
    let target = Target::from_file(&file, "schema").unwrap();
    let names: Vec<(&str, bool)> =
        target.columns.fields().iter().map(|f| (f.name().as_str(), f.is_nullable())).collect();
    assert_eq!(
        names,
        [("ts", false), ("px", false), ("fee", false), ("side", false), ("lots", false), ("note", true)]
    );
    let first = record(json!([
        {"name": "price", "type": "float"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "fee", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "side", "type": {"type": "enum", "name": "side", "symbols": ["BUY", "SELL", "CROSS"]}}
    ]));
    let second = record(json!([
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "px", "type": "double"},
        {"name": "fee", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 4}},
        {"name": "side", "type": {"type": "enum", "name": "side", "symbols": ["BUY", "SELL", "CROSS"]}},
        {"name": "lots", "type": "int"},
        {"name": "note", "type": "string"}
    ]));
    let older = message(1, |out| {
        out.extend_from_slice(&0.5_f32.to_le_bytes());
        long(1500, out);
        bytes(&[125], out);
        long(2, out);
    });
    let newer = message(2, |out| {
        long(2_000_000, out);
        out.extend_from_slice(&0.25_f64.to_le_bytes());
        bytes(&[125], out);
        long(1, out);
        long(3, out);
        bytes(b"n", out);
    });
    let decoded = decode(target, None, &[(1, first), (2, second)], &[older.clone(), newer, older]);
    assert_eq!(decoded.rejects.len(), 0, "{:?}", decoded.rejects);
    let old =
        r#"{"ts":"1970-01-01T00:00:01.500Z","px":0.5,"fee":"1.2500","side":"NONE","lots":9,"note":null}"#;
    let new = r#"{"ts":"1970-01-01T00:00:02Z","px":0.25,"fee":"0.0125","side":"SELL","lots":3,"note":"n"}"#;
    assert_eq!(shown(&decoded.rows), [old, new, old]);
}

#[test]
fn a_writer_that_does_not_fit_refuses_its_messages_only() {
    let spec = json!({"ts": "timestamp", "price": "f64"});
    let wrong = [
        (1, record(json!([{"name": "ts", "type": "long"}, {"name": "price", "type": "boolean"}]))),
        (2, r#"{"type": "enum", "name": "e", "symbols": ["A"]}"#.to_owned()),
        (3, "not json".to_owned()),
        (
            4,
            record(
                json!([{"name": "ts", "type": "long"}, {"name": "price", "type": ["string", "double", "null"]}]),
            ),
        ),
    ];
    let messages: Vec<Vec<u8>> = (1..=4).map(|id| message(id, |out| out.push(0))).collect();
    let decoded = decode(Target::columns(columns(spec), 1), None, &wrong, &messages);
    let reasons: Vec<&str> = decoded.rejects.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(reasons.len(), 4);
    assert_eq!(reasons[0], "schema 1: its field `price` is Boolean, which cannot be read as f64");
    assert_eq!(reasons[1], "schema 2: it is not a record");
    assert!(reasons[2].starts_with("schema 3: not JSON"));
    assert!(reasons[3].starts_with("schema 4: its field `price` is Union"), "{}", reasons[3]);
}

#[test]
fn a_time_ahead_of_its_message_is_refused() {
    let schema = record(json!([{"name": "ts", "type": "long"}]));
    let messages: Vec<Vec<u8>> = [999, 1000, 1001].map(|t| message(7, |out| long(t, out))).to_vec();
    let guard = AheadGuard { column: 0, unit_ns: 1, max_ns: 1_000_000_000 };
    let spec = columns(json!({"ts": "timestamp"}));
    let decoded = decode(Target::columns(spec, 1_000_000), Some(guard), &[(7, schema)], &messages);
    assert_eq!((decoded.seqs, decoded.rejects.len()), (vec![100, 101], 1));
    assert!(decoded.rejects[0].reason.contains("ahead of the message's own timestamp"));
}

#[test]
fn no_bytes_make_it_panic_or_lose_a_message() {
    let spec = columns(json!({"ts": "timestamp", "side": "symbol", "symbol": "symbol?", "price": "f64"}));
    let mut seed = 0x9e37_79b9_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let messages: Vec<Vec<u8>> = (0..3000)
        .map(|n| {
            let mut one = good(n);
            for _ in 0..random() % 3 {
                let at = 5 + (random() as usize) % (one.len() - 5);
                one[at] = random() as u8;
            }
            if random() % 10 == 0 {
                one.truncate((random() as usize) % one.len());
            }
            one
        })
        .collect();
    let decoded = decode(Target::columns(spec, 1), None, &[(7, trade())], &messages);
    assert_eq!(decoded.seqs.len(), decoded.rows.num_rows());
    assert_eq!(decoded.seqs.len() + decoded.rejects.len(), 3000);
    assert!(decoded.rejects.len() > 300 && decoded.seqs.len() > 1000, "{}", decoded.rejects.len());
    assert_eq!(decoded.rows.schema().field(0).data_type(), &row::ts_type());
}
