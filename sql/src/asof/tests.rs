//! As-of joins against a search through all pairs.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;

use crate::{Engine, EngineConfig};

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[derive(Clone, Debug)]
struct Row {
    ts: Option<i64>,
    key: Option<&'static str>,
    id: i64,
    seq: u64,
}

fn table(rng: &mut Rng, n: u64, span: u64) -> Vec<Row> {
    let keys = [Some("a"), Some("b"), Some("a key that fits into no view of twelve bytes"), None];
    let rows = (0..n).map(|id| Row {
        ts: (rng.below(40) > 0).then(|| rng.below(span) as i64),
        key: keys[rng.below(4) as usize],
        id: id as i64,
        seq: rng.below(1000) * 1000 + id,
    });
    let mut rows: Vec<Row> = rows.collect();
    if rng.below(2) == 0 {
        rows.sort_by_key(|r| r.ts);
    }
    rows
}

fn load(engine: &Engine, name: &str, rows: &[Row], partitions: usize, with_seq: bool) {
    let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, Some("UTC".into()));
    let mut fields = vec![
        Field::new("ts", utc, true),
        Field::new("key", DataType::Utf8, true),
        Field::new("id", DataType::Int64, false),
    ];
    if with_seq {
        fields.push(Field::new("_seq", DataType::UInt64, false));
    }
    let schema = Arc::new(Schema::new(fields));
    let per = rows.len().div_ceil(partitions).max(1);
    let batch = |rows: &[Row]| {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampNanosecondArray::from_iter(rows.iter().map(|r| r.ts)).with_timezone("UTC")),
            Arc::new(StringArray::from_iter(rows.iter().map(|r| r.key))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
        ];
        if with_seq {
            columns.push(Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| r.seq))));
        }
        RecordBatch::try_new(schema.clone(), columns).unwrap()
    };
    let parts = rows.chunks(per).map(|part| part.chunks(13).map(batch).collect()).collect();
    engine.add_rows(name, schema.clone(), parts).unwrap();
}

/// The right row for a left one, by looking at all.
fn search<'a>(left: &Row, right: &'a [Row], op: &str, tolerance: Option<i64>, seq: bool) -> Option<&'a Row> {
    let (ts, key) = (left.ts?, left.key?);
    let fits = |r: &&Row| {
        r.key == Some(key)
            && r.ts.is_some_and(|t| match op {
                ">=" => ts >= t,
                ">" => ts > t,
                "<=" => ts <= t,
                _ => ts < t,
            })
    };
    let mut best: Option<&Row> = None;
    for row in right.iter().filter(fits) {
        let Some(b) = best else {
            best = Some(row);
            continue;
        };
        let nearer = if op.starts_with('>') { row.ts > b.ts } else { row.ts < b.ts };
        if nearer || (row.ts == b.ts && (!seq || row.seq > b.seq)) {
            best = Some(row);
        }
    }
    best.filter(|b| tolerance.is_none_or(|most| (ts - b.ts.unwrap()).abs() <= most))
}

#[tokio::test]
async fn random_joins_equal_a_search_through_all_pairs() {
    let mut rng = Rng(20_131_007);
    for round in 0..60 {
        let seq = rng.below(2) == 0;
        let config = EngineConfig {
            // Tables in memory are dealt out anew to more threads: without `_seq` their order is gone then.
            target_partitions: if seq { 1 + rng.below(4) as usize } else { 1 },
            batch_rows: 1 + rng.below(50) as usize,
            ..EngineConfig::default()
        };
        let engine = Engine::open(config).await.unwrap();
        let (nl, nr) = (rng.below(200), rng.below(200));
        let span = 1 + rng.below(300);
        let (left, right) = (table(&mut rng, nl, span), table(&mut rng, nr, span));
        load(&engine, "l", &left, 1 + rng.below(3) as usize, false);
        load(&engine, "r", &right, 1 + rng.below(3) as usize, seq);
        let op = [">=", ">", "<=", "<"][rng.below(4) as usize];
        let tolerance = (rng.below(2) == 0).then(|| 1 + rng.below(60) as i64);
        let bound = tolerance.map(|ns| {
            let (a, b) = if op.starts_with('>') { ("l.ts", "r.ts") } else { ("r.ts", "l.ts") };
            format!(" AND {a} - {b} <= INTERVAL '{ns} nanoseconds'")
        });
        let sql = format!(
            "SELECT l.id, r.id FROM l ASOF JOIN r MATCH_CONDITION (l.ts {op} r.ts{}) ON l.key = r.key ORDER BY l.id",
            bound.unwrap_or_default()
        );
        let answer = engine.query(&sql).await.unwrap_or_else(|e| panic!("{}", e.render(&sql)));
        let mut got = Vec::new();
        for batch in answer.collect().await.unwrap_or_else(|e| panic!("{}", e.render(&sql))) {
            for i in 0..batch.num_rows() {
                got.push([0, 1].map(|c| array_value_to_string(batch.column(c), i).unwrap()));
            }
        }
        let expected: Vec<[String; 2]> = {
            let mut rows = left.clone();
            rows.sort_by_key(|r| r.id);
            let found =
                |l: &Row| search(l, &right, op, tolerance, seq).map_or(String::new(), |r| r.id.to_string());
            rows.iter().map(|l| [l.id.to_string(), found(l)]).collect()
        };
        if got != expected {
            panic!("round {round}: {sql}\n{}\n{got:?}\n{expected:?}", plan(&engine, &sql).await);
        }
    }
}

async fn plan(engine: &Engine, sql: &str) -> String {
    let sql = format!("EXPLAIN {sql}");
    let answer = engine.query(&sql).await.unwrap_or_else(|e| panic!("{}", e.render(&sql)));
    let batches = answer.collect().await.unwrap();
    batches
        .iter()
        .flat_map(|b| (0..b.num_rows()).map(|i| array_value_to_string(b.column(1), i).unwrap()))
        .collect()
}

#[tokio::test]
async fn filters_move_below_and_only_columns_in_use_are_read() {
    let engine = Engine::open(EngineConfig::default()).await.unwrap();
    let mut rng = Rng(1);
    let (left, right) = (table(&mut rng, 100, 100), table(&mut rng, 100, 100));
    load(&engine, "l", &left, 1, false);
    load(&engine, "r", &right, 1, true);
    let sql = "SELECT l.id, r.id AS rid FROM l ASOF JOIN r MATCH_CONDITION (l.ts >= r.ts) ON l.key = r.key \
               WHERE l.key = 'a' AND l.ts < TIMESTAMP '1970-01-01T00:00:00.000000050Z'";
    let plan = plan(&engine, sql).await;
    let below = &plan[plan.find("AsofJoin:").unwrap()..];
    assert!(below.contains("l.key = Utf8(\"a\")") && below.contains("r.key = Utf8(\"a\")"), "{plan}");
    assert_eq!(below[..below.find("AsofJoinExec").unwrap()].matches("ts <").count(), 2, "{plan}");
    // A filter on what was matched stays above.
    let sql =
        "SELECT l.id FROM l ASOF JOIN r MATCH_CONDITION (l.ts >= r.ts) ON l.key = r.key WHERE r.id > 50";
    let answer = engine.query(sql).await.unwrap().collect().await.unwrap();
    let expected =
        left.iter().filter(|l| search(l, &right, ">=", None, true).is_some_and(|r| r.id > 50)).count();
    assert_eq!(answer.iter().map(|b| b.num_rows()).sum::<usize>(), expected);
}

#[tokio::test]
async fn the_function_and_the_marker_say_the_same_as_the_syntax() {
    let engine = Engine::open(EngineConfig::default()).await.unwrap();
    let mut rng = Rng(3);
    let (left, right) = (table(&mut rng, 80, 90), table(&mut rng, 80, 90));
    load(&engine, "l", &left, 2, false);
    load(&engine, "r", &right, 2, true);
    let text = |sql: &'static str| {
        let engine = engine.clone();
        async move {
            let answer = engine.query(sql).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
            let batches = answer.collect().await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
            arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
        }
    };
    let syntax = text(
        "SELECT l.id, r.id AS rid FROM l ASOF JOIN r \
         MATCH_CONDITION (l.ts >= r.ts AND r.ts >= l.ts - INTERVAL '9 nanoseconds') ON l.key = r.key ORDER BY l.id",
    )
    .await;
    let function =
        text("SELECT id, right_id AS rid FROM asof_join(l, (SELECT * FROM r), 'key', '9ns') ORDER BY id")
            .await;
    let marker = text(
        "SELECT l.id, r.id AS rid FROM l LEFT JOIN r ON l.key = r.key AND asof_match(l.ts >= r.ts, '9ns') ORDER BY l.id",
    )
    .await;
    assert_eq!(syntax, function);
    assert_eq!(syntax, marker);
    let inner = engine
        .query("SELECT l.id FROM l JOIN r ON l.key = r.key AND asof_match(l.ts >= r.ts, '9ns')")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let expected = left.iter().filter(|l| search(l, &right, ">=", Some(9), true).is_some()).count();
    assert_eq!(inner.iter().map(|b| b.num_rows()).sum::<usize>(), expected);
}
