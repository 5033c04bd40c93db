//! Rows that wait for the watermark when a job stops, on other workers afterwards.

use super::*;

/// [`graph`] with a second sum behind the first: its rows are with the owner of their key already, and wait for a second source.
fn sum_of_sums(rows: &[Row], last: bool) -> (Plan, Collected) {
    let (mut plan, out) = graph(&[rows.to_vec()], "0", !last);
    let nothing = match last {
        true => MemorySource::plan(columns(), vec![many_rows(0)]),
        false => MemorySource::endless(columns(), vec![many_rows(0)]),
    };
    let (mut slow, mut again, mut sink) =
        (plan.nodes[0].clone(), plan.nodes[1].clone(), plan.nodes.remove(2));
    (slow.id, slow.name, slow.identity) = (2, "slow".into(), "slow".into());
    if let Body::Source { plan, .. } = &mut slow.body {
        *plan = nothing;
    }
    (again.id, again.name, again.identity) = (3, "again".into(), "again".into());
    let edge = |from, exchange| Edge { from, port: Port::Rows, exchange };
    again.inputs = vec![edge(1, Exchange::Stay), edge(2, Exchange::Key(vec![3]))];
    if let Body::Operator { plan, delivery } = &mut again.body {
        plan.distribution = Distribution::Keyed(vec![vec!["k".into()]; 2]);
        *delivery = Delivery::Ordered;
    }
    sink.id = 4;
    sink.inputs[0].from = 3;
    plan.nodes.extend([slow, again, sink]);
    (plan, out)
}

/// Given an operator whose rows stay on the worker of their key and wait there for another input, when the job goes on with other
/// workers, then what waited is with the later rows of its key, and the sums are those of an undisturbed run.
#[test]
fn held_rows_that_need_not_move_go_to_the_owner_of_their_key() {
    let rows: Vec<Row> = (0..3000).map(|i| (i, (3 * i) % 17, i)).collect();
    let mut sums = std::collections::HashMap::new();
    let twice = oracle(std::slice::from_ref(&rows), 0).into_iter().map(|(ts, k, v)| {
        let sum: &mut i64 = sums.entry(k).or_default();
        *sum = (*sum * 31 + v) % 1_000_003;
        (ts, k, *sum)
    });
    let expected: Vec<Row> = twice.collect();
    for workers in [[2, 2], [1, 3], [3, 2]] {
        let folder = tempfile::tempdir().unwrap();
        let options = |workers| RunOptions {
            workers,
            chunk_rows: 64,
            in_flight_rows: 1000,
            checkpoints: Some(CheckpointOptions {
                url: "checkpoints".into(),
                base: folder.path().into(),
                keep: 2,
                from: StartFrom::Latest,
                changes: Default::default(),
            }),
            ..Default::default()
        };
        let (plan, out) = sum_of_sums(&rows, false);
        run_until(plan, options(workers[0]), |m| m.read()[3].rows_in >= 500);
        assert_eq!(taken(&out), [], "all of it waits");
        let (plan, out) = sum_of_sums(&rows, true);
        execute(plan, &options(workers[1]), CancellationToken::new()).unwrap();
        assert_eq!(taken(&out), expected, "{workers:?} workers");
    }
}
