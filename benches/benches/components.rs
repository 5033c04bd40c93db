//! Parts by themselves: JSON in and out, per trade.
//!
//!     cargo bench --workspace --bench components

use std::hint::black_box;

use arrow::array::RecordBatch;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidemill_engine::json::{Decoder, EncodeOptions, Encoder};
use tidemill_engine::row;
use tidemill_engine::schema::SchemaSpec;
use tidemill_engine::spec::TimeUnitName;

const ROWS: usize = 8192;

/// Trades as venues write them.
fn messages() -> Vec<Vec<u8>> {
    let message = |i: usize| {
        let (ns, cents) = (i * 1_234_567 % 1_000_000_000, 10_000 + i * 7 % 500);
        format!(
            r#"{{"ts":"2024-01-02T14:{:02}:{:02}.{ns:09}Z","symbol":"S{:04}","price":{}.{:02},"size":{}}}"#,
            30 + i / 60 % 30,
            i % 60,
            i % 64,
            cents / 100,
            cents % 100,
            1 + i % 500
        )
        .into_bytes()
    };
    (0..ROWS).map(message).collect()
}

fn decoder() -> Decoder {
    let schema = SchemaSpec::Named("trade".into()).resolve("schema").expect("the engine knows `trade`");
    Decoder::new(schema, TimeUnitName::Ns)
}

fn batch() -> RecordBatch {
    let mut decoder = decoder();
    for message in messages() {
        decoder.push(&message).expect("the messages are valid");
    }
    let rows = decoder.finish();
    let user: Vec<_> = rows.schema().fields().iter().cloned().collect();
    let mut columns = vec![
        rows.column(0).clone(),
        row::u64_array(vec![1; ROWS]),
        row::u64_array((0..ROWS as u64).collect()),
    ];
    columns.extend(rows.columns().iter().skip(1).cloned());
    RecordBatch::try_new(row::stream_schema(&user), columns).expect("the columns are those of a stream")
}

fn json(c: &mut Criterion) {
    let messages = messages();
    let mut group = c.benchmark_group("json");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("decode a trade", |b| {
        let mut decoder = decoder();
        b.iter(|| {
            for message in &messages {
                let _ = decoder.push(black_box(message));
            }
            decoder.finish()
        });
    });
    let batch = batch();
    group.bench_function("encode a trade", |b| {
        let mut encoder = Encoder::new(batch.schema(), EncodeOptions::default());
        b.iter(|| encoder.encode(black_box(&batch)).bytes().len());
    });
    group.finish();
}

criterion_group!(benches, json);
criterion_main!(benches);
