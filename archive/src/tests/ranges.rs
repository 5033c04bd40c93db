//! Ranges: filled twice, filled partly, filled while the process dies.

use super::*;

const HOUR: i64 = DAY / 24;

/// A row an hour, two symbols, over three days; numbers tell hour, symbol and filling.
fn hours(symbols: &[&str], from: i64, to: i64, filling: i64) -> RecordBatch {
    let mut all = Vec::new();
    for hour in from..to {
        for (i, symbol) in ["A", "B"].iter().enumerate() {
            if symbols.contains(symbol) {
                all.push((hour * HOUR, *symbol, number(hour, i, filling)));
            }
        }
    }
    // In any order.
    all.sort_by_key(|r| (r.2 * 7919) % 101);
    rows(&all)
}

fn number(hour: i64, symbol: usize, filling: i64) -> i64 {
    filling * 10_000 + hour * 10 + symbol as i64
}

fn numbers(symbols: &[usize], hours: std::ops::Range<i64>, filling: i64) -> Vec<i64> {
    hours.flat_map(|h| symbols.iter().map(move |s| number(h, *s, filling))).collect()
}

#[tokio::test]
async fn filling_a_range_twice_changes_nothing_else() {
    let bench = Bench::new();
    let dataset = bench.dataset();
    dataset.create_or_open(&layout()).await.unwrap();
    let all = (0, 3 * DAY);
    let first = fill(&dataset, RangeKey::all(), all, &[hours(&["A", "B"], 0, 72, 0)]).await.unwrap();
    assert_eq!((first.rows, first.files, first.replaced_files), (144, 6, 0));
    let before = bench.seen().await;
    let again = fill(&bench.dataset(), RangeKey::all(), all, &[hours(&["A", "B"], 0, 72, 0)]).await.unwrap();
    assert_eq!((again.rows, again.files, again.replaced_files), (144, 6, 6));
    assert_eq!(bench.seen().await, before);

    // A day and a half of all symbols: what is before and behind stays.
    fill(&dataset, RangeKey::all(), (6 * HOUR, 42 * HOUR), &[hours(&["A", "B"], 6, 42, 1)]).await.unwrap();
    let mut expected = numbers(&[0, 1], 0..6, 0);
    expected.extend(numbers(&[0, 1], 6..42, 1));
    expected.extend(numbers(&[0, 1], 42..72, 0));
    assert_eq!(bench.seen().await, once(expected));

    // One symbol only, of a source that has been filled as a whole: only its rows are replaced.
    let key = RangeKey::all().with("symbol", "B");
    fill(&dataset, key.clone(), (0, 2 * HOUR), &[hours(&["B"], 0, 1, 2)]).await.unwrap();
    let mut expected = numbers(&[0], 0..6, 0);
    expected.extend(numbers(&[1], 0..1, 2));
    expected.extend(numbers(&[1], 2..6, 0));
    expected.extend(numbers(&[0, 1], 6..42, 1));
    expected.extend(numbers(&[0, 1], 42..72, 0));
    assert_eq!(bench.seen().await, once(expected.clone()));

    // After compaction the ranges can still be told apart, and an empty filling empties.
    let snapshot = bench.dataset().snapshot().await.unwrap();
    let options = CompactOptions { older_than_ms: 0, ..CompactOptions::default() };
    let groups = compact::plan(&snapshot, bench.now_ms(), &options);
    let report = compact::run(&snapshot, &groups, &options, |_| {}).await.unwrap();
    assert!(report.files_after < report.files_before, "{report:?}");
    assert_eq!(bench.seen().await, once(expected.clone()));
    fill(&dataset, key, (0, 3 * DAY), &[]).await.unwrap();
    expected.retain(|n| n % 10 == 0);
    assert_eq!(bench.seen().await, once(expected));
}

#[tokio::test]
async fn rows_that_do_not_belong_are_refused() {
    let bench = Bench::new();
    let dataset = bench.dataset();
    assert!(fill(&dataset, RangeKey::all(), (0, 1), &[]).await.is_err());
    dataset.create_or_open(&layout()).await.unwrap();
    let key = RangeKey::all().with("symbol", "A");
    let said = |e: ArchiveError| e.to_string();
    let outside = fill(&dataset, key.clone(), (0, 10), &[rows(&[(0, "A", 1), (10, "A", 2)])]).await;
    assert_eq!(
        outside.map_err(said).unwrap_err(),
        "1 of 2 rows are outside the range 0 to 10 of `backfill` (symbol=A)"
    );
    let other = fill(&dataset, key, (0, 10), &[rows(&[(0, "B", 1)])]).await;
    assert!(other.is_err());
    let none = fill(&dataset, RangeKey::all().with("venue", "x"), (0, 10), &[]).await;
    assert!(none.map_err(said).unwrap_err().contains("`venue`"));
    assert!(bench.seen().await.is_empty());
    // Columns go by name; a missing one that may not be null is an error.
    let batch = rows(&[(0, "A", 1)]);
    let fewer = batch.project(&[0, 1, 2, 4]).unwrap();
    let missing = fill(&dataset, RangeKey::all(), (0, 10), &[fewer]).await;
    assert!(missing.map_err(said).unwrap_err().contains("`symbol`"));
    let turned = batch.project(&[4, 3, 2, 1, 0]).unwrap();
    fill(&dataset, RangeKey::all(), (0, 10), &[turned]).await.unwrap();
    assert_eq!(bench.seen().await, once([1]));
}

/// Dies before or behind every single change that a replacement makes: readers see the old rows or the
/// new, and doing it again ends well.
#[tokio::test]
async fn a_crash_at_any_change_leaves_the_old_rows_or_the_new() {
    let old = once(numbers(&[0, 1], 0..48, 0));
    let mut wanted = numbers(&[0, 1], 0..6, 0);
    wanted.extend(numbers(&[0, 1], 6..30, 1));
    wanted.extend(numbers(&[0, 1], 30..48, 0));
    let new = once(wanted);
    let (mut olds, mut news) = (0, 0);
    for n in 0.. {
        let mut came = false;
        for made in [false, true] {
            let bench = Bench::new();
            let dataset = bench.dataset();
            dataset.create_or_open(&layout()).await.unwrap();
            let batch = hours(&["A", "B"], 0, 48, 0);
            fill(&dataset, RangeKey::all(), (0, 2 * DAY), &[batch]).await.unwrap();
            let range = (6 * HOUR, 30 * HOUR);
            let batch = hours(&["A", "B"], 6, 30, 1);
            bench.store.fail_after(n, made);
            let done = fill(&bench.dataset(), RangeKey::all(), range, std::slice::from_ref(&batch)).await;
            came |= bench.store.mend();
            let seen = bench.seen().await;
            if done.is_ok() {
                assert_eq!(seen, new);
            } else if seen == old {
                olds += 1;
            } else {
                assert_eq!(seen, new, "failed after {n}");
                news += 1;
            }
            fill(&bench.dataset(), RangeKey::all(), range, &[batch]).await.unwrap();
            assert_eq!(bench.seen().await, new);
        }
        if !came {
            assert!(n > 5 && olds > 5 && news > 0, "{n} {olds} {news}");
            break;
        }
    }
}
