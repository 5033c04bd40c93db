//! Against the standard library's stable sort.

use std::sync::Arc;

use arrow::array::{AsArray, DictionaryArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use tidemill_engine::row;

use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", row::ts_type(), false),
        Field::new("symbol", row::symbol_type(), true),
        Field::new("n", DataType::Int64, false),
    ]))
}

fn batch(rows: &[(i64, Option<String>, i64)]) -> RecordBatch {
    let symbols: DictionaryArray<Int32Type> = rows.iter().map(|r| r.1.as_deref()).collect();
    RecordBatch::try_new(
        schema(),
        vec![
            row::ts_array(rows.iter().map(|r| r.0).collect()),
            Arc::new(symbols),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2))),
        ],
    )
    .unwrap()
}

fn numbers(sorter: Sorter) -> Vec<i64> {
    let mut all = Vec::new();
    for batch in sorter.finish().unwrap() {
        all.extend_from_slice(batch.unwrap().column(2).as_primitive::<Int64Type>().values());
    }
    all
}

#[test]
fn any_split_and_any_limit_give_the_stable_order() {
    let mut seed = 42u64;
    let mut next = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    for round in 0..12 {
        let nearly = round % 3 == 0;
        let rows: Vec<(i64, Option<String>, i64)> = (0..20_000)
            .map(|i| {
                let ts = if nearly { i / 4 + next(50) as i64 } else { next(3000) as i64 };
                let symbol = (next(7) > 0).then(|| format!("S{}", next(40)));
                (ts * 100_000_000_000, symbol, i)
            })
            .collect();
        // By date, symbol, time: nulls first.
        let mut expected = rows.clone();
        expected.sort_by_key(|r| (r.0.div_euclid(86_400_000_000_000), r.1.clone(), r.0));
        let expected: Vec<i64> = expected.iter().map(|r| r.2).collect();
        for limit in [1 << 30, 200_000, 40_000] {
            let names = ["date", "symbol", "ts"].map(str::to_owned);
            let mut sorter = Sorter::new(schema(), &names, limit).unwrap();
            let mut at = 0;
            while at < rows.len() {
                let n = (next(3000) as usize + 1).min(rows.len() - at);
                sorter.push(batch(&rows[at..at + n])).unwrap();
                at += n;
            }
            assert_eq!(sorter.runs.is_empty(), limit == 1 << 30);
            assert_eq!(numbers(sorter), expected, "round {round}, limit {limit}");
        }
    }
}

#[test]
fn nothing_and_what_is_in_order_pass_through() {
    let names = ["ts".to_owned()];
    assert_eq!(numbers(Sorter::new(schema(), &names, 1).unwrap()), [0i64; 0]);
    let rows: Vec<_> = (0..10_000i64).map(|i| (i, None, i)).collect();
    let mut sorter = Sorter::new(schema(), &names, 1 << 30).unwrap();
    sorter.push(batch(&rows[..5000])).unwrap();
    sorter.push(batch(&rows[5000..])).unwrap();
    assert_eq!(numbers(sorter), (0..10_000).collect::<Vec<_>>());
}
