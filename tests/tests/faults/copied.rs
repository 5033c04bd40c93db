//! The oracle of the job that copies: every row that was written into its topic, once in each sink, and the rows of a
//! partition in their order as long as lateness never changes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::input::ENDS;
use crate::job::Seen;
use crate::perform::Performance;
use crate::plan::Fault;

/// The ids of rows in the order in which they stand in a sink, those that end partitions left out.
pub fn ids(lines: &[String]) -> Vec<u64> {
    all_ids(lines).into_iter().filter(|id| *id < ENDS).collect()
}

/// Whether rows that end partitions are in all sinks.
pub fn has_ends(seen: &Seen) -> bool {
    [&seen.signals, &seen.studies].iter().all(|lines| all_ids(lines).iter().any(|id| *id >= ENDS))
}

fn all_ids(lines: &[String]) -> Vec<u64> {
    let id = |line: &String| {
        let json = &line[line.find('{')?..];
        let row: Value = serde_json::from_str(json).ok()?;
        row["size"].as_f64().map(|id| id as u64)
    };
    lines.iter().filter_map(id).collect()
}

/// Rows that some sink does not have yet.
pub fn missing(run: &Performance, seen: &Seen) -> usize {
    let count = |lines: &[String]| {
        let found: std::collections::BTreeSet<u64> = ids(lines).into_iter().collect();
        run.rows as usize - found.len().min(run.rows as usize)
    };
    count(&seen.signals) + count(&seen.studies)
}

/// How what is seen differs from what was written.
pub fn difference(run: &Performance, seen: &Seen) -> Option<String> {
    let mut text = String::new();
    let reordered = run.plan.steps.iter().any(|step| matches!(step.fault, Fault::Lateness { .. }));
    for (sink, lines) in [("kafka", &seen.signals), ("jsonl", &seen.studies)] {
        let ids = ids(lines);
        let mut count: BTreeMap<u64, i64> = (0..run.rows).map(|id| (id, -1)).collect();
        ids.iter().for_each(|id| *count.entry(*id).or_default() += 1);
        let of = |sign: i64| {
            count.iter().filter(|(_, n)| n.signum() == sign).map(|(id, _)| *id).collect::<Vec<_>>()
        };
        let (lost, more) = (of(-1), of(1));
        if !lost.is_empty() || !more.is_empty() {
            let few = |ids: &[u64]| ids.iter().take(8).copied().collect::<Vec<_>>();
            text += &format!(
                "{sink}: of {} rows {} lost ({:?}), {} doubled ({:?})\n",
                run.rows,
                lost.len(),
                few(&lost),
                more.len(),
                few(&more)
            );
        }
        // Kafka promises the order of a key only; the jsonl file has the order of all.
        if sink == "jsonl" && !reordered {
            let mut last: BTreeMap<i32, u64> = BTreeMap::new();
            for id in ids {
                let Some(partition) = partition(run, id) else { continue };
                if let Some(before) = last.insert(partition, id).filter(|before| *before > id) {
                    text += &format!("jsonl: row {before} of partition {partition} stands before {id}\n");
                    break;
                }
            }
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The partition that a row was written to.
fn partition(run: &Performance, id: u64) -> Option<i32> {
    let (_, partitions) = run.written.iter().find(|(ids, _)| ids.contains(&id))?;
    Some(partitions[(id % partitions.len() as u64) as usize])
}
