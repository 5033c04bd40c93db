//! Which source holds the job's watermark back: one that is silent while others have moved on.
//!
//! What an operator or a sink may do depends on the slowest partition of all its sources, so one empty topic stalls a whole graph
//! without an error. Each source instance reports every now and then how far it is ([`Progress`]); worker 0 compares them over all
//! workers and processes ([`Stalls`]), warns, and counts the time in the source's metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Stopwatch};
use crate::operator::END;
use crate::runtime::control::Shared;
use crate::runtime::coordinator::rfc3339;
use crate::runtime::intake::Intake;
use crate::runtime::leads::Lead;
use crate::runtime::partition::Partition;

/// A stall that lasts is reported again after so many times the time after which it was reported first.
const AGAIN: u32 = 15;

/// How often sources report their progress where stalls are reported `after` some time.
pub fn interval(after: Duration) -> Duration {
    (after / 10).clamp(Duration::from_millis(10), Duration::from_secs(2))
}

/// How far a source instance is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The source.
    pub node: usize,
    /// The worker.
    pub worker: usize,
    /// What its watermark would be, were there only its furthest partition.
    pub reached: i64,
    /// What others wait for; nothing once all has been read.
    pub behind: Option<Behind>,
    /// How far it has come by rows of its own, where it has had some.
    pub lead: Option<Lead>,
}

/// The partition that is furthest behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Its number; the instance is not open yet where there is none.
    pub partition: Option<u32>,
    /// Its watermark.
    pub watermark: i64,
    /// How long nothing has come from it, in milliseconds.
    pub quiet_ms: u64,
}

impl Progress {
    /// Of an instance that is not open, since `opened`.
    pub fn opening(node: usize, worker: usize, opened: &Stopwatch) -> Self {
        let quiet_ms = opened.elapsed().as_millis() as u64;
        let behind = Some(Behind { partition: None, watermark: i64::MIN, quiet_ms });
        Self { node, worker, reached: i64::MIN, behind, lead: None }
    }

    /// Of an instance with these partitions, of a source whose rows `intake` judges.
    pub fn of(node: usize, worker: usize, partitions: &[Partition], intake: &Intake) -> Self {
        let reached = partitions.iter().map(|p| p.watermark(intake)).max().unwrap_or(i64::MIN);
        let behind =
            partitions.iter().filter(|p| !p.ended).min_by_key(|p| p.watermark(intake)).map(|p| Behind {
                partition: Some(p.id),
                watermark: p.watermark(intake),
                quiet_ms: if p.queue.is_empty() && p.stash.is_none() {
                    p.quiet.elapsed().as_millis() as u64
                } else {
                    0
                },
            });
        Self { node, worker, reached, behind, lead: None }
    }
}

/// A source that holds the watermark back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stall {
    node: usize,
    behind: Behind,
    /// The source that is furthest, and how far.
    ahead: (usize, i64),
}

/// What worker 0 knows of all sources.
#[derive(Debug)]
pub struct Stalls {
    after: Duration,
    clock: Clock,
    progress: BTreeMap<(usize, usize), Progress>,
    /// Reported stalls, and since when.
    reported: BTreeMap<usize, Stopwatch>,
    looked: Stopwatch,
}

impl Stalls {
    /// Reports sources that are silent for longer than `after`.
    pub fn new(after: Duration, clock: &Clock) -> Self {
        let (progress, reported) = (BTreeMap::new(), BTreeMap::new());
        Self { after, clock: clock.clone(), progress, reported, looked: clock.start() }
    }

    /// Takes an instance's report.
    pub fn take(&mut self, progress: Progress) {
        self.progress.insert((progress.node, progress.worker), progress);
    }

    /// How far instances in all processes have come by rows of their own.
    pub fn leads(&self) -> BTreeMap<(usize, usize), Lead> {
        self.progress.iter().filter_map(|(instance, p)| Some((*instance, p.lead?))).collect()
    }

    /// Looks, every now and then, whether some source has begun to hold the others back; whether it has looked.
    pub fn tick(&mut self, shared: &Arc<Shared>) -> bool {
        if self.looked.elapsed() < interval(self.after) {
            return false;
        }
        self.looked = self.clock.start();
        let stalls = self.stalls();
        let nodes = &shared.plan.nodes;
        for node in self.progress.keys().map(|(node, _)| *node) {
            let stall = stalls.iter().find(|stall| stall.node == node);
            shared.metrics.node(node).stalled_ms.store(stall.map_or(0, |s| s.behind.quiet_ms), Relaxed);
        }
        for stall in self.due(&stalls) {
            let (name, ahead) = (&nodes[stall.node].name, &nodes[stall.ahead.0].name);
            tracing::warn!(source = name, "{}", wording(&stall, name, ahead));
        }
        true
    }

    /// Sources that have been silent for long, while others have moved on.
    fn stalls(&self) -> Vec<Stall> {
        let ahead = self.progress.values().map(|p| (p.reached, p.node)).max();
        let Some((reached, furthest)) = ahead else { return Vec::new() };
        let mut slowest: BTreeMap<usize, Behind> = BTreeMap::new();
        for (node, behind) in self.progress.values().filter_map(|p| Some((p.node, p.behind?))) {
            let least = slowest.entry(node).or_insert(behind);
            if (behind.watermark, behind.partition) < (least.watermark, least.partition) {
                *least = behind;
            }
        }
        let silent = |behind: &Behind| Duration::from_millis(behind.quiet_ms) >= self.after;
        slowest
            .into_iter()
            .filter(|(_, behind)| behind.watermark < reached && silent(behind))
            .map(|(node, behind)| Stall { node, behind, ahead: (furthest, reached) })
            .collect()
    }

    /// Those of `stalls` that are to be reported now: when they begin, and again every few minutes.
    fn due(&mut self, stalls: &[Stall]) -> Vec<Stall> {
        self.reported.retain(|node, _| stalls.iter().any(|stall| stall.node == *node));
        let again = self.after * AGAIN;
        let mut due = Vec::new();
        for stall in stalls {
            if self.reported.get(&stall.node).is_none_or(|since| since.elapsed() >= again) {
                self.reported.insert(stall.node, self.clock.start());
                due.push(*stall);
            }
        }
        due
    }
}

fn wording(stall: &Stall, name: &str, ahead: &str) -> String {
    let time = |ts: i64| if ts == END { "its end".to_owned() } else { rfc3339(ts) };
    let Behind { partition, watermark, quiet_ms } = stall.behind;
    let quiet = Duration::from_secs(quiet_ms / 1000);
    let what = match partition {
        None => format!("it has been opening for {quiet:?}"),
        Some(id) if watermark == i64::MIN => format!("no row of its partition {id} has come in {quiet:?}"),
        Some(id) => {
            format!("no row of its partition {id} has come for {quiet:?}, since {}", time(watermark))
        }
    };
    let other = match stall.ahead.0 == stall.node {
        true => "another of its partitions".to_owned(),
        false => format!("`{ahead}`"),
    };
    let remedy = match partition {
        None => format!("Look why it does not open, or remove `{name}` from the inputs that wait for it"),
        Some(_) => format!(
            "Set `idle_timeout` on `{name}` to go on without it when it is silent, or remove it from the inputs that wait for it"
        ),
    };
    format!(
        "source `{name}` holds the watermark back: {what}, while {other} has reached {}; what is newer waits. {remedy}",
        time(stall.ahead.1)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;

    const AFTER: Duration = Duration::from_secs(20);

    fn progress(node: usize, worker: usize, reached: i64, behind: Option<(i64, u64)>) -> Progress {
        let behind = behind.map(|(watermark, quiet)| Behind {
            partition: Some(worker as u32),
            watermark,
            quiet_ms: quiet * 1000,
        });
        Progress { node, worker, reached, behind, lead: None }
    }

    fn stalled(reports: &[Progress]) -> Vec<(usize, Option<u32>, usize)> {
        let mut stalls = Stalls::new(AFTER, &Clock::System);
        reports.iter().cloned().for_each(|p| stalls.take(p));
        stalls.stalls().into_iter().map(|s| (s.node, s.behind.partition, s.ahead.0)).collect()
    }

    #[test]
    fn a_silent_source_stalls_the_job_once_another_has_moved_on() {
        let (empty, quiet) = (i64::MIN, 25);
        // No row at all, while another has some; not where none has any, nor before its time.
        assert_eq!(
            stalled(&[progress(0, 0, 50, Some((50, 0))), progress(1, 0, empty, Some((empty, quiet)))]),
            [(1, Some(0), 0)]
        );
        assert_eq!(
            stalled(&[
                progress(0, 0, empty, Some((empty, quiet))),
                progress(1, 0, empty, Some((empty, quiet)))
            ]),
            []
        );
        assert_eq!(
            stalled(&[progress(0, 0, 50, Some((50, 0))), progress(1, 0, empty, Some((empty, 19)))]),
            []
        );
        // Rows, but none for long; one that is far behind and busy stalls nothing.
        assert_eq!(
            stalled(&[progress(0, 0, 50, Some((50, 0))), progress(1, 0, 49, Some((49, quiet)))]),
            [(1, Some(0), 0)]
        );
        assert_eq!(stalled(&[progress(0, 0, 50, Some((50, 0))), progress(1, 0, 2, Some((2, 0)))]), []);
        // A source that has ended waits for the others' rows as well; one alone waits for nothing.
        assert_eq!(
            stalled(&[progress(0, 0, 50, None), progress(1, 0, 49, Some((49, quiet)))]),
            [(1, Some(0), 0)]
        );
        assert_eq!(stalled(&[progress(0, 0, 50, Some((50, quiet)))]), []);
        // A partition on one worker holds back those on another.
        assert_eq!(
            stalled(&[progress(0, 0, 50, Some((50, quiet))), progress(0, 1, empty, Some((empty, quiet)))]),
            [(0, Some(1), 0)]
        );
        let opening = Progress {
            behind: Some(Behind { partition: None, watermark: empty, quiet_ms: 21_000 }),
            ..progress(1, 0, empty, None)
        };
        assert_eq!(stalled(&[progress(0, 0, 50, None), opening]), [(1, None, 0)]);
    }

    #[test]
    fn a_stall_is_reported_at_once_and_again_after_minutes_and_when_it_comes_back() {
        let now = Arc::new(AtomicI64::new(0));
        let mut stalls = Stalls::new(AFTER, &Clock::Manual(now.clone()));
        let mut due_at = |second: i64, quiet: u64| {
            now.store(second * 1_000_000_000, Relaxed);
            stalls.take(progress(0, 0, 50, Some((50, 0))));
            stalls.take(progress(1, 0, 10, Some((10, quiet))));
            let found = stalls.stalls();
            stalls.due(&found).len()
        };
        assert_eq!((due_at(20, 20), due_at(22, 22), due_at(319, 319), due_at(320, 320)), (1, 0, 0, 1));
        assert_eq!((due_at(322, 0), due_at(344, 22)), (0, 1));
    }

    #[test]
    fn the_report_names_the_source_since_when_and_what_to_do() {
        let stall = |partition, watermark| Stall {
            node: 1,
            behind: Behind { partition, watermark, quiet_ms: 25_400 },
            ahead: (0, 1_700_000_000_000_000_000),
        };
        assert_eq!(
            wording(&stall(Some(3), i64::MIN), "news", "trades"),
            "source `news` holds the watermark back: no row of its partition 3 has come in 25s, while `trades` has reached \
             2023-11-14T22:13:20.000Z; what is newer waits. Set `idle_timeout` on `news` to go on without it when it is silent, or \
             remove it from the inputs that wait for it"
        );
        let text = wording(&stall(Some(3), 1_600_000_000_000_000_000), "news", "trades");
        assert!(text.contains("has come for 25s, since 2020-09-13T12:26:40.000Z, while"), "{text}");
        assert!(
            wording(&stall(None, i64::MIN), "news", "trades").contains("it has been opening for 25s, while")
        );
    }
}
