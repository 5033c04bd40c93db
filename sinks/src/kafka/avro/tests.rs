//! Expected bytes are written by hand from the Avro specification ("binary encoding").

use super::*;
use arrow::array::{Date32Array, Decimal128Array, Float64Array, Int64Array, UInt64Array};
use tidemill_connectors::kafka::registry::RegistryParams;

fn stream() -> (StreamInfo, RecordBatch) {
    let user = vec![
        Arc::new(Field::new("symbol", row::symbol_type(), true)),
        Arc::new(Field::new("price", DataType::Float64, false)),
        Arc::new(Field::new("n", DataType::UInt64, true)),
        Arc::new(Field::new("cash", DataType::Decimal128(38, 18), false)),
        Arc::new(Field::new("day", DataType::Date32, false)),
        Arc::new(Field::new("lots", DataType::Int64, false)),
    ];
    let schema = row::stream_schema(&user);
    let symbols: DictionaryArray<Int32Type> = vec![Some("B"), None].into_iter().collect();
    let rows = RecordBatch::try_new(
        schema.clone(),
        vec![
            row::ts_array(vec![1_000_000, -1]),
            row::u64_array(vec![0, 0]),
            row::u64_array(vec![1, 2]),
            Arc::new(symbols),
            Arc::new(Float64Array::from(vec![1.5, -0.0])),
            Arc::new(UInt64Array::from(vec![None, Some(3)])),
            Arc::new(
                Decimal128Array::from(vec![-1_230_000_000_000_000_000, 128])
                    .with_precision_and_scale(38, 18)
                    .unwrap(),
            ),
            Arc::new(Date32Array::from(vec![0, 64])),
            Arc::new(Int64Array::from(vec![-65, 1 << 40])),
        ],
    )
    .unwrap();
    (StreamInfo { name: "orders".into(), schema }, rows)
}

fn plan(own: Option<&str>, input: &StreamInfo) -> Result<Plan, Vec<String>> {
    let params: RegistryParams = serde_json::from_value(json!({"url": "http://127.0.0.1:1"})).unwrap();
    let registry = Registry::new(&params, "registry").unwrap();
    Plan::new(registry, "s-value".into(), true, "orders_v1", own, input)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn encode(plan: &Plan, rows: &RecordBatch) -> Result<Vec<Vec<u8>>, String> {
    let encoded = Writer::new(&plan.shape, 0x0102_0304).unwrap().encode(rows)?;
    Ok(encoded.iter().map(|row| row.to_vec()).collect())
}

#[test]
fn a_schema_is_made_from_columns_and_records_are_as_the_specification_says() {
    let (input, rows) = stream();
    let plan = plan(None, &input).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&plan.shape.avro).unwrap(),
        json!({"type": "record", "name": "orders_v1", "namespace": "tidemill", "fields": [
            {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
            {"name": "symbol", "type": ["null", "string"], "default": null},
            {"name": "price", "type": "double"},
            {"name": "n", "type": ["null", "long"], "default": null},
            {"name": "cash", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}},
            {"name": "day", "type": {"type": "int", "logicalType": "date"}},
            {"name": "lots", "type": "long"}
        ]})
    );
    let first = [
        &[0, 1, 2, 3, 4][..],
        &[0x80, 0x89, 0x7a], // 1,000,000 zig-zag: 2,000,000
        &[2, 2, b'B'],
        &1.5_f64.to_le_bytes(),
        &[0],
        &[16, 0xee, 0xee, 0x29, 0x84, 0x4e, 0x45, 0x00, 0x00],
        &[0],
        &[0x81, 0x01],
    ]
    .concat();
    let second = [
        &[0, 1, 2, 3, 4][..],
        &[1],
        &[0],
        &(-0.0_f64).to_le_bytes(),
        &[2, 6],
        &[4, 0x00, 0x80], // 128 needs a byte more for its sign
        &[0x80, 0x01],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x40],
    ]
    .concat();
    assert_eq!(encode(&plan, &rows).unwrap(), [first, second]);
}

#[test]
fn an_own_schema_is_filled_by_name_in_its_units() {
    let (input, rows) = stream();
    let own = json!({"type": "record", "name": "Mine", "fields": [
        {"name": "cash", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "symbol", "type": ["null", {"type": "enum", "name": "s", "symbols": ["A", "B"]}]},
        {"name": "extra", "type": ["null", "long"], "default": null},
        {"name": "lots", "type": "double"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}}
    ]})
    .to_string();
    let plan = plan(Some(&own), &input).unwrap();
    let first = [&[0, 1, 2, 3, 4][..], &[2, 0x85], &[2, 2], &[0], &(-65.0_f64).to_le_bytes(), &[2]].concat();
    assert_eq!(encode(&plan, &rows.slice(0, 1)).unwrap(), [first]);
    let other: DictionaryArray<Int32Type> = vec![Some("C"), None].into_iter().collect();
    let mut columns = rows.columns().to_vec();
    columns[3] = Arc::new(other);
    let rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
    assert_eq!(encode(&plan, &rows).unwrap_err(), "column `symbol`: `C` is not among the schema's symbols");
}

#[test]
fn what_a_schema_cannot_hold_is_said_when_it_is_planned() {
    let (input, _) = stream();
    let own = json!({"type": "record", "name": "Mine", "fields": [
        {"name": "n", "type": "long"},
        {"name": "absent", "type": "long"},
        {"name": "price", "type": "int"}
    ]})
    .to_string();
    let problems = plan(Some(&own), &input).unwrap_err();
    assert_eq!(problems.len(), 3);
    assert!(problems[0].starts_with("schema: column `n` may be null, and the schema's field may not"));
    assert!(problems[1].starts_with("schema: `orders` has no column `absent`"));
    assert_eq!(problems[2], "schema: column `price` is f64, which cannot be written as the schema's Int32");
    assert!(plan(Some("{"), &input).unwrap_err()[0].starts_with("schema: not JSON"));
    let odd = StreamInfo {
        name: "odd".into(),
        schema: row::stream_schema(&[
            Arc::new(Field::new("a-b", DataType::Int64, false)),
            Arc::new(Field::new("list", DataType::new_list(DataType::Int64, true), false)),
        ]),
    };
    let problems = plan(None, &odd).unwrap_err();
    assert!(
        problems[0].contains("`a-b` cannot be an Avro field") && problems[1].contains("`list` is"),
        "{problems:?}"
    );
}

#[test]
fn a_number_too_large_stops_the_job_and_is_never_a_null() {
    let (input, rows) = stream();
    let mut columns = rows.columns().to_vec();
    columns[5] = Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]));
    let rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let error = encode(&plan(None, &input).unwrap(), &rows).unwrap_err();
    assert!(error.contains("column `n`"), "{error}");
}

#[test]
fn topics_give_records_their_names() {
    assert_eq!(record_name("trades.v1-x"), "trades_v1_x");
    assert_eq!(record_name("1m"), "_1m");
}
