//! Compaction and expiry under readers, writers, other compactions and crashes.

use super::*;
use crate::expire;

/// A sink's files over two days and two symbols, ten numbers each; 20 checkpoints.
async fn sink_files(bench: &Bench, job: &str, first: i64) -> BTreeMap<i64, usize> {
    for after in 0..20i64 {
        for (day, symbol) in [(0, "A"), (0, "B"), (1, "A")] {
            let at = day * DAY + after * 1000;
            let base = first + after * 100 + day * 50 + if symbol == "B" { 25 } else { 0 };
            let batch = rows(&(0..10).map(|i| (at + i, symbol, base + i)).collect::<Vec<_>>());
            let name = format!("{job}.history.after-{after:020}-0000-0000.g0000000005.parquet");
            bench.put(&format!("date={}/symbol={symbol}/{name}", date(at)), &batch).await;
        }
    }
    let all = (0..20).flat_map(|a| [0, 25, 50].map(|b| (0..10).map(move |i| first + a * 100 + b + i)));
    once(all.flatten())
}

fn now() -> CompactOptions {
    CompactOptions { older_than_ms: 0, ..CompactOptions::default() }
}

async fn compact_all(bench: &Bench, options: &CompactOptions) -> Result<CompactReport, ArchiveError> {
    let snapshot = bench.dataset().snapshot().await?;
    let groups = compact::plan(&snapshot, bench.now_ms(), options);
    compact::run(&snapshot, &groups, options, |_| {}).await
}

use crate::compact::CompactReport;

#[tokio::test]
async fn compaction_takes_only_what_no_restart_can_remove() {
    let bench = Bench::new();
    let mut expected = sink_files(&bench, "one", 0).await;
    expected.extend(sink_files(&bench, "two", 100_000).await);
    // Too young for the default.
    bench.pass(60_000);
    assert_eq!(compact_all(&bench, &CompactOptions::default()).await.unwrap(), CompactReport::default());
    bench.pass(2 * 3_600_000);
    let report = compact_all(&bench, &CompactOptions::default()).await.unwrap();
    // after-0 to after-10 of each folder and job: 8 behind after-19.
    assert_eq!((report.groups, report.files_before, report.files_after), (6, 66, 6));
    assert_eq!(bench.seen().await, expected);
    let snapshot = bench.dataset().snapshot().await.unwrap();
    let left = snapshot.files().iter().filter(|f| !f.own).count();
    assert_eq!(left, 2 * 3 * 9);
    for file in snapshot.files().iter().filter(|f| f.own) {
        let Origin::Sink { writer, after, generation } = &file.origin else { panic!("{file:?}") };
        assert!(["one.history", "two.history"].contains(&writer.as_str()));
        assert_eq!((*after, *generation), (10, 5));
    }
    // Again: nothing left to do. The job has ended: everything.
    assert_eq!(compact_all(&bench, &now()).await.unwrap().groups, 0);
    let report = compact_all(&bench, &CompactOptions { ended: true, ..now() }).await.unwrap();
    assert_eq!(report.files_after, 6);
    assert_eq!(bench.seen().await, expected);
    assert_eq!(bench.dataset().snapshot().await.unwrap().files().len(), 6);
}

#[tokio::test]
async fn running_readers_see_the_same_rows_and_expiry_waits_for_them() {
    let bench = Bench::new();
    let expected = sink_files(&bench, "one", 0).await;
    let early = bench.dataset().snapshot().await.unwrap();
    let options = CompactOptions { ended: true, ..now() };
    // Readers take snapshots all the while.
    let reader = async {
        for _ in 0..20 {
            assert_eq!(bench.seen().await, expected);
            tokio::task::yield_now().await;
        }
    };
    let (report, ()) = tokio::join!(compact_all(&bench, &options), reader);
    assert_eq!(report.unwrap().files_after, 3);
    assert_eq!(seen(&early).await, expected);
    let hour = 3_600_000;
    let plan_now = async |older_than| {
        let snapshot = bench.dataset().snapshot().await.unwrap();
        let plan = expire::plan(&snapshot, bench.now_ms(), older_than, None);
        (snapshot, plan)
    };
    assert!(plan_now(hour).await.1.is_empty());
    assert_eq!(seen(&early).await, expected);
    bench.pass(2 * hour);
    let (snapshot, plan) = plan_now(hour).await;
    assert_eq!(plan.deletes().0, 60);
    expire::run(&snapshot, &plan).await.unwrap();
    assert_eq!(bench.seen().await, expected);
    let after = bench.dataset().snapshot().await.unwrap();
    assert!(after.state().removed.is_empty() && after.removed.is_empty());
    // A foreign file that comes now is seen at once.
    bench.put("date=1970-01-01/symbol=A/x.parquet", &rows(&[(5, "A", -1)])).await;
    assert_eq!(bench.seen().await.len(), expected.len() + 1);
}

#[tokio::test]
async fn of_two_compactions_the_second_changes_nothing_and_says_so() {
    let bench = Bench::new();
    let expected = sink_files(&bench, "one", 0).await;
    let options = CompactOptions { ended: true, ..now() };
    let snapshot = bench.dataset().snapshot().await.unwrap();
    let groups = compact::plan(&snapshot, bench.now_ms(), &options);
    compact::run(&snapshot, &groups, &options, |_| {}).await.unwrap();
    let second = compact::run(&snapshot, &groups, &options, |_| {}).await.unwrap_err();
    assert!(matches!(second, ArchiveError::Conflict { .. }), "{second}");
    assert!(second.to_string().contains("has removed"), "{second}");
    assert_eq!(bench.seen().await, expected);
    assert!(bench.dataset().snapshot().await.unwrap().strays.is_empty(), "it has cleared up");
    // At the same time: one of them, folder by folder.
    let bench = Bench::new();
    let expected = sink_files(&bench, "one", 0).await;
    let both = tokio::join!(compact_all(&bench, &options), compact_all(&bench, &options));
    assert!(both.0.is_ok() || both.1.is_ok());
    assert_eq!(bench.seen().await, expected);
}

#[tokio::test]
async fn a_backfill_beside_a_compaction_loses_nothing() {
    let bench = Bench::new();
    bench.dataset().create_or_open(&layout()).await.unwrap();
    let filling = |n: i64| rows(&(0..50).map(|i| (i * 1000, "A", n * 100 + i)).collect::<Vec<_>>());
    for i in 0..10i64 {
        let range = (i * 5000, i * 5000 + 5000);
        let batch = filling(0).slice(i as usize * 5, 5);
        fill(&bench.dataset(), RangeKey::all(), range, &[batch]).await.unwrap();
    }
    // The compaction has planned; a filling replaces some of its files; the compaction must not bring
    // their rows back.
    let snapshot = bench.dataset().snapshot().await.unwrap();
    let groups = compact::plan(&snapshot, bench.now_ms(), &now());
    assert_eq!(groups.len(), 1);
    fill(&bench.dataset(), RangeKey::all(), (0, 12_000), &[filling(1).slice(0, 12)]).await.unwrap();
    let conflict = compact::run(&snapshot, &groups, &now(), |_| {}).await.unwrap_err();
    assert!(matches!(conflict, ArchiveError::Conflict { .. }));
    let expected = once((100..112).chain(12..50));
    assert_eq!(bench.seen().await, expected);
    // And the other way round: the filling's plan is out of date, so it plans again.
    let writer =
        async { fill(&bench.dataset(), RangeKey::all(), (0, 7000), &[filling(2).slice(0, 7)]).await };
    let options = now();
    let (filled, _) = tokio::join!(writer, compact_all(&bench, &options));
    filled.unwrap();
    assert_eq!(bench.seen().await, once((200..207).chain(107..112).chain(12..50)));
}

#[tokio::test]
async fn a_crash_at_any_change_of_compaction_or_expiry_loses_nothing() {
    let options = CompactOptions { ended: true, ..now() };
    for n in 0.. {
        let mut came = false;
        for made in [false, true] {
            let bench = Bench::new();
            let expected = sink_files(&bench, "one", 0).await;
            bench.store.fail_after(n, made);
            let _ = compact_all(&bench, &options).await;
            came |= bench.store.mend();
            assert_eq!(bench.seen().await, expected, "compaction failed after {n}");
            // What lies about is cleared away in time; what counts is not.
            bench.pass(3 * 24 * 3_600_000);
            bench.store.fail_after(n, made);
            for _ in 0..2 {
                let snapshot = bench.dataset().snapshot().await.unwrap();
                let plan = expire::plan(&snapshot, bench.now_ms(), 3_600_000, None);
                let _ = expire::run(&snapshot, &plan).await;
                came |= bench.store.mend();
                assert_eq!(bench.seen().await, expected, "expiry failed after {n}");
            }
            let snapshot = bench.dataset().snapshot().await.unwrap();
            assert!(
                snapshot.strays.is_empty()
                    && snapshot.removed.is_empty()
                    && snapshot.state().removed.is_empty()
            );
            compact_all(&bench, &options).await.unwrap();
            assert_eq!(bench.dataset().snapshot().await.unwrap().files().len(), 3);
            assert_eq!(bench.seen().await, expected);
        }
        if !came {
            assert!(n > 5);
            break;
        }
    }
}

#[tokio::test]
async fn old_days_are_dropped_with_their_ranges() {
    let bench = Bench::new();
    bench.dataset().create_or_open(&layout()).await.unwrap();
    let batch = rows(&(0..72).map(|h| (h * DAY / 24, "A", h)).collect::<Vec<_>>());
    let mut writer =
        RangeWriter::new(&bench.dataset(), "backfill", RangeKey::all(), 0, 3 * DAY, WriteOptions::default())
            .await
            .unwrap();
    writer.write(batch).await.unwrap();
    writer.gap(10, 20, "early");
    writer.gap(2 * DAY + 10, 2 * DAY + 20, "late");
    writer.finish(true).await.unwrap();
    let snapshot = bench.dataset().snapshot().await.unwrap().with_statistics().await.unwrap();
    let plan = expire::plan(&snapshot, bench.now_ms(), 3_600_000, Some(2 * DAY));
    assert_eq!(plan.drop.len(), 2);
    // Planning is dry.
    assert_eq!(bench.seen().await.len(), 72);
    expire::run(&snapshot, &plan).await.unwrap();
    assert_eq!(bench.seen().await, once(48..72));
    let after = bench.dataset().snapshot().await.unwrap();
    assert_eq!(after.ranges().iter().map(|r| (r.from, r.to)).collect::<Vec<_>>(), [(2 * DAY, 3 * DAY)]);
    assert_eq!(after.gaps().iter().map(|g| g.reason.as_str()).collect::<Vec<_>>(), ["late"]);
    assert_eq!(after.removed.len(), 2, "readers that have begun go on");
}

#[tokio::test]
async fn compaction_refuses_what_it_would_spoil() {
    let bench = Bench::new();
    let batch = rows(&[(1, "A", 1)]);
    bench.put("date=1970-01-01/a.parquet", &batch).await;
    // Another type.
    let text = arrow::compute::cast(batch.column(4), &DataType::Utf8).unwrap();
    let mut fields: Vec<Field> = schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields[4] = Field::new("n", DataType::Utf8, false);
    let mut columns = batch.columns().to_vec();
    columns[4] = text;
    let other = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    bench.put("date=1970-01-01/b.parquet", &other).await;
    let said = compact_all(&bench, &now()).await.unwrap_err().to_string();
    assert!(said.contains("column `n` is Utf8 in `date=1970-01-01/b.parquet`, but Int64"), "{said}");
    // A column that only some have is kept, and null in the others; text stays text whatever its encoding.
    let bench = Bench::new();
    bench.put("date=1970-01-01/a.parquet", &batch.project(&[0, 1, 2, 4]).unwrap()).await;
    bench.put("date=1970-01-01/b.parquet", &rows(&[(2, "A", 2)])).await;
    bench.put("date=1970-01-01/c.parquet", &rows(&[(3, "B", 3)])).await;
    assert_eq!(compact_all(&bench, &now()).await.unwrap().files_after, 1);
    let snapshot = bench.dataset().snapshot().await.unwrap();
    let found = snapshot.schema().await.unwrap();
    assert!(found.field_with_name("symbol").unwrap().is_nullable());
    let mut rows = read::rows(snapshot.dataset(), &snapshot.files()[0], Choice::all(found)).await.unwrap();
    let batch = rows.try_next().await.unwrap().unwrap();
    let symbols = batch.column_by_name("symbol").unwrap();
    assert_eq!((0..3).map(|i| row::text(symbols, i)).collect::<Vec<_>>(), [None, Some("A"), Some("B")]);
}

#[tokio::test]
async fn a_file_that_is_gone_is_said_not_skipped() {
    let bench = Bench::new();
    bench.dataset().create_or_open(&layout()).await.unwrap();
    fill(&bench.dataset(), RangeKey::all(), (0, 10), &[rows(&[(1, "A", 1)])]).await.unwrap();
    let snapshot = bench.dataset().snapshot().await.unwrap();
    bench.store.delete(&snapshot.path(&snapshot.files()[0]).unwrap()).await.unwrap();
    let said = bench.dataset().snapshot().await.unwrap_err().to_string();
    assert!(said.contains("is damaged") && said.contains("but it is gone"), "{said}");
}

#[tokio::test]
async fn holes_are_found_by_number_and_by_time() {
    let bench = Bench::new();
    let mut all: Vec<(i64, &str, i64)> = (0..1000).map(|i| (i * 60, "A", i)).collect();
    all.extend((0..1000).map(|i| (i * 60 + 5, "B", 5000 + i)));
    all.retain(|r| !(17..=29).contains(&r.2) && r.2 != 5500);
    all.push((40 * 60, "A", 40));
    for (i, part) in all.chunks(300).enumerate().collect::<Vec<_>>().into_iter().rev() {
        bench.put(&format!("{}.parquet", 9 - i), &rows(part)).await;
    }
    let snapshot = bench.dataset().snapshot().await.unwrap();
    let by = ["symbol".to_owned()];
    let found = holes::find(&snapshot, &holes::Rule::Sequence("n".into()), &by, |_| {}).await.unwrap();
    assert_eq!((found.rows, found.keys, found.duplicates), (all.len() as u64, 2, 1));
    let hole = |key: &str, from, to, numbers| holes::Hole { key: vec![key.into()], from, to, numbers };
    let expected = |numbers: bool| {
        let of = |a, b| numbers.then_some((a, b));
        [hole("A", 16 * 60, 30 * 60, of(17, 29)), hole("B", 499 * 60 + 5, 501 * 60 + 5, of(5500, 5500))]
    };
    assert_eq!(found.holes, expected(true));
    let found = holes::find(&snapshot, &holes::Rule::Every(60), &by, |_| {}).await.unwrap();
    assert_eq!(found.holes, expected(false));
    let found = holes::find(&snapshot, &holes::Rule::Every(200), &by, |_| {}).await.unwrap();
    assert_eq!(found.holes, expected(false)[..1]);
    let said =
        holes::find(&snapshot, &holes::Rule::Sequence("symbol".into()), &by, |_| {}).await.unwrap_err();
    assert!(said.to_string().contains("only whole numbers have a next one"), "{said}");
    let said = holes::find(&snapshot, &holes::Rule::Every(1), &["x".to_owned()], |_| {}).await.unwrap_err();
    assert!(said.to_string().contains("no column `x`"), "{said}");
}
