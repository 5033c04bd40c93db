//! The end of a bounded run, and guards that a graph cannot have.

use serde_json::json;

use super::*;

#[test]
fn the_account_at_the_end_of_all_rows_is_told_however_they_come() {
    let plan = plan::<Execution>(with(json!({ "sample": "1m" })), &schemas()).unwrap();
    let inputs = [
        quotes(&[(S, "A", 99.0, 100.0), (61 * S, "A", 99.0, 100.0), (70 * S, "A", 109.0, 110.0)]),
        wishes(&[(2 * S, "A", Some("BUY"))]),
    ];
    let rows = whole(&plan, &inputs);
    let told: Vec<String> =
        told(&plan.schema, &rows).into_iter().filter(|r| r.contains("event=equity")).collect();
    // 10 bought at 100, worth 99.5, then 109.5 each.
    let worth = ["equity=100000", "equity=99995", "equity=100095"];
    assert!(told.len() == 3 && told.iter().zip(worth).all(|(row, worth)| row.contains(worth)), "{told:?}");
    assert!(rows.last().unwrap().starts_with(&format!("{},", 70 * S)), "{rows:?}");
    for seed in 0..20 {
        check(&plan, &inputs, rows.clone(), seed);
    }
}

#[test]
fn a_run_that_is_shorter_than_a_sample_has_one() {
    let plan = plan::<Execution>(with(json!({ "sample": "1d" })), &schemas()).unwrap();
    let inputs = [quotes(&[(S, "A", 99.0, 100.0)]), wishes(&[])];
    let rows = told(&plan.schema, &whole(&plan, &inputs));
    assert_eq!(rows.iter().filter(|r| r.contains("event=equity")).count(), 1, "{rows:?}");
}

#[test]
fn distances_in_average_true_ranges_need_their_column() {
    let protect = json!({ "protect": { "stop_loss": { "atr": 2 }, "take_profit": { "atr": 3 } } });
    let problems = plan::<Execution>(with(protect.clone()), &schemas()).err().unwrap();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let expect = "protect.stop_loss.atr: counts average true ranges, and `right` has no numeric column `atr`";
    assert!(problems[0].starts_with(expect), "{problems:?}");
    let [market, _] = schemas();
    let atr = nullable(stream(
        &[],
        vec![
            ("symbol", symbols([])),
            ("side", Arc::new(StringArray::from_iter([] as [Option<&str>; 0])) as ArrayRef),
            ("atr", numbers([])),
        ],
    ));
    plan::<Execution>(with(protect), &[market, atr.schema()]).unwrap();
}
