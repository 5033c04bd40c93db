//! A plan of faults from a seed: which job, and what goes wrong in each of its runs.

use std::fmt;

use tidemill_tests::Rng;

/// The job that is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Bars, indicators and signals; rows out of order are late at once, and moved.
    Strict,
    /// The same; rows are put in order for 200 ms, and those that come later diverted.
    Patient,
    /// Every row as it is: what partitions and lateness do while the job runs may move a row, never lose or double it.
    Copy,
}

/// What is wrong with the newest manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It has no bytes.
    Empty,
    /// It has half of its bytes.
    Truncated,
}

/// A fault of the storage that checkpoints and Parquet files go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 503.
    Unavailable,
    /// Answers wait for so many milliseconds.
    Slow(u64),
    /// Done, but the answer is lost.
    LostAnswer,
}

/// What goes wrong in one run. Instants (`at`) are thousandths of an undisturbed run's duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// All processes are killed.
    Kill { at: u64 },
    /// The same, while the run plans, recovers and opens its sinks.
    KillEarly { after_ms: u64 },
    /// The process aborts between two steps whose order matters.
    Abort { point: &'static str, nth: u64 },
    /// One of two processes is killed; the launcher brings all back, and is killed after a while.
    KillMember { at: u64, then_ms: u64 },
    /// The launcher of two or three processes is killed.
    KillLauncher { at: u64 },
    /// The broker is restarted, with its data.
    RestartBroker { at: u64 },
    /// All connections to the broker break.
    CutBroker { at: u64, times: u64 },
    /// Each answer of the broker waits.
    SlowBroker { ms: u64 },
    /// Answers of the broker are lost with their connections.
    LoseBrokerAnswers { at: u64, n: u64 },
    /// Requests to storage fail.
    Storage { fault: Storage, skip: u64, count: u64 },
    /// Writes fail with an error of the operating system.
    Write { point: &'static str, first: u64, count: u64, error: &'static str },
    /// A step takes long.
    Delay { point: &'static str, first: u64, count: u64, ms: u64 },
    /// The process is stopped, another instance started, and the first goes on while the second runs.
    Pause { at: u64, for_ms: u64 },
    /// Two instances are started at once.
    Twice { at: u64 },
    /// The clock is set, `ms` from the machine's.
    Clock { at: u64, ms: i64 },
    /// Before the run, the newest manifest is damaged.
    DamageManifest { how: Damage },
    /// The topic gets more partitions, and rows in them.
    Grow { partitions: u64 },
    /// One partition has no rows until the end, and partitions without rows hold nothing back after a while.
    Idle,
    /// The run has another `lateness` than the one before.
    Lateness { ms: u64, at: u64 },
}

/// One run: a fault, and on how many workers and processes it meets the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What goes wrong.
    pub fault: Fault,
    /// Worker threads of each process.
    pub workers: u64,
    /// Processes.
    pub processes: u64,
    /// After a fault that the run may survive, it is killed at this instant; `None`: it may end.
    pub kill: Option<u64>,
}

/// A job and its disturbed runs; one undisturbed run follows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// The job.
    pub flow: Flow,
    /// Sinks that hold a lock on a local file are part of it.
    pub files: bool,
    /// Checkpoints and Parquet files are on the S3 server.
    pub s3: bool,
    /// Its runs.
    pub steps: Vec<Step>,
}

/// Kinds of faults, taken in turn so that as many plans as there are kinds have all of them.
pub const KINDS: usize = 30;
/// Points where a process aborts.
pub const POINTS: [&str; 8] = [
    "state-written",
    "sink-checkpointed",
    "parquet-put",
    "before-manifest",
    "after-manifest",
    "kafka-before-commit",
    "kafka-after-commit",
    "ended",
];
/// Points in front of writes.
const WRITES: [&str; 4] = ["state-put", "manifest-put", "jsonl-write", "parquet-write"];

/// A fault of a kind.
fn fault(kind: usize, rng: &mut Rng) -> Fault {
    // Most instants are in the first half: what is disturbed late has nothing left to recover.
    let at = rng.within(80..800);
    let (first, count) = (rng.within(1..6), rng.within(1..7));
    let mut write = |error| {
        let point = WRITES[rng.within(0..WRITES.len() as u64) as usize];
        Fault::Write { point, first, count, error }
    };
    match kind {
        0 => Fault::Kill { at },
        1..=8 => {
            let point = POINTS[kind - 1];
            Fault::Abort { point, nth: if point == "ended" { 1 } else { first } }
        }
        9 => Fault::KillEarly { after_ms: rng.within(0..700) },
        10 => Fault::KillMember { at, then_ms: rng.within(0..3000) },
        11 => Fault::KillLauncher { at },
        12 => Fault::CutBroker { at: at / 2, times: rng.within(1..4) },
        13 => Fault::SlowBroker { ms: rng.within(5..60) },
        14 => Fault::LoseBrokerAnswers { at: at / 2, n: rng.within(1..5) },
        15 => {
            Fault::Storage { fault: Storage::Unavailable, skip: rng.within(0..30), count: rng.within(1..40) }
        }
        16 => {
            let fault = Storage::Slow(rng.within(50..1500));
            Fault::Storage { fault, skip: rng.within(0..30), count: rng.within(1..8) }
        }
        17 => Fault::Storage { fault: Storage::LostAnswer, skip: rng.within(0..40), count: rng.within(1..4) },
        18 => write("eio"),
        19 => write("enospc"),
        20 => {
            let point = POINTS[rng.within(0..7) as usize];
            Fault::Delay { point, first, count, ms: rng.within(20..800) }
        }
        21 => Fault::Pause { at: at / 2, for_ms: rng.within(200..2500) },
        22 => Fault::Twice { at },
        23 => Fault::Clock { at: at / 2, ms: -(rng.within(1..90_000_000) as i64) },
        24 => Fault::Clock { at: at / 2, ms: rng.within(1..90_000_000) as i64 },
        25 => Fault::DamageManifest { how: if first % 2 == 0 { Damage::Empty } else { Damage::Truncated } },
        26 => Fault::Grow { partitions: rng.within(1..3) },
        27 => Fault::Idle,
        28 => Fault::Lateness { ms: [0, 200, 1000][rng.within(0..3) as usize], at },
        _ => Fault::RestartBroker { at: at / 3 },
    }
}

impl Fault {
    /// Its name, for counts.
    pub fn name(&self) -> String {
        let text = format!("{self:?}");
        let name = text.split([' ', '{']).next().unwrap_or_default().to_owned();
        match self {
            Fault::Abort { point, .. } => format!("{name} {point}"),
            Fault::Storage { fault, .. } => {
                format!("{name} {}", format!("{fault:?}").split('(').next().unwrap_or_default())
            }
            Fault::Write { error, .. } => format!("{name} {error}"),
            _ => name,
        }
    }

    /// Only the job that copies rows can say what must come out.
    fn needs_copy(&self) -> bool {
        matches!(self, Fault::Grow { .. } | Fault::Idle | Fault::Lateness { .. })
    }

    /// Whether what it does is over before the run goes on: the run may end well by itself.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Fault::RestartBroker { .. }
                | Fault::CutBroker { .. }
                | Fault::SlowBroker { .. }
                | Fault::LoseBrokerAnswers { .. }
                | Fault::Storage { .. }
                | Fault::Write { .. }
                | Fault::Delay { .. }
                | Fault::Clock { .. }
                | Fault::DamageManifest { .. }
        )
    }
}

/// The plan of a seed. The first fault's kind goes with the seed.
pub fn plan(seed: u64) -> Plan {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x7469_6465);
    let first = fault((seed % KINDS as u64) as usize, &mut rng);
    let copies = first.needs_copy();
    let mut faults = vec![first];
    // A point may lie behind the end of a short rest; so it comes first, others before or behind.
    for _ in 0..rng.within(0..3) {
        let more = loop {
            // The broker is restarted, alone, as a first fault only.
            let kind = rng.within(0..KINDS as u64 - 1) as usize;
            let more = fault(kind, &mut rng);
            if more.needs_copy() == copies || (copies && matches!(more, Fault::Kill { .. })) {
                break more;
            }
        };
        match first {
            // A damaged manifest and another lateness need a run before them.
            Fault::DamageManifest { .. } | Fault::Lateness { .. } => faults.insert(0, more),
            _ => faults.push(more),
        }
    }
    if faults.len() == 1 && matches!(first, Fault::DamageManifest { .. } | Fault::Lateness { .. }) {
        faults.insert(0, Fault::Kill { at: rng.within(300..700) });
    }
    let flow = match rng.within(0..2) {
        _ if copies => Flow::Copy,
        0 => Flow::Strict,
        _ => Flow::Patient,
    };
    let any = |of: fn(&Fault) -> bool| faults.iter().any(of);
    // A stopped process keeps its lock on a file, and no other can begin.
    let files = !any(|f| matches!(f, Fault::Pause { .. }));
    let s3 = flow != Flow::Copy && (any(|f| matches!(f, Fault::Storage { .. })) || rng.within(0..4) == 0);
    let steps = faults
        .into_iter()
        .map(|fault| {
            let processes = match fault {
                Fault::KillMember { .. } | Fault::KillLauncher { .. } => rng.within(2..4),
                Fault::Abort { .. } | Fault::Pause { .. } | Fault::Twice { .. } => 1,
                _ if rng.within(0..5) == 0 => 2,
                _ => 1,
            };
            let workers = rng.within(1..if processes > 1 { 2 } else { 4 });
            let kill = (fault.may_pass() && rng.within(0..2) == 0).then(|| rng.within(500..1500));
            Step { fault, workers, processes, kill }
        })
        .collect();
    Plan { seed, flow, files, s3, steps }
}

impl Plan {
    /// Whether the job's connections to the broker go through the proxy.
    pub fn proxies_broker(&self) -> bool {
        self.steps.iter().any(|step| {
            matches!(
                step.fault,
                Fault::CutBroker { .. } | Fault::SlowBroker { .. } | Fault::LoseBrokerAnswers { .. }
            )
        })
    }

    /// Whether nothing else may use the broker meanwhile.
    pub fn is_alone(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.fault, Fault::RestartBroker { .. }))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let storage = if self.s3 { "S3" } else { "local files" };
        write!(f, "plan {}: {:?}, checkpoints on {storage}", self.seed, self.flow)?;
        if !self.files {
            f.write_str(", no jsonl sinks")?;
        }
        for (i, step) in self.steps.iter().enumerate() {
            write!(
                f,
                "\n  {}. {:?}, {} processes of {} workers",
                i + 1,
                step.fault,
                step.processes,
                step.workers
            )?;
            if let Some(at) = step.kill {
                write!(f, ", killed at {at}")?;
            }
        }
        write!(f, "\n  {}. to the end", self.steps.len() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_another() {
        for seed in 0..500 {
            assert_eq!(plan(seed), plan(seed));
            assert_ne!(plan(seed).to_string(), plan(seed + 1).to_string());
        }
    }

    #[test]
    fn the_forty_plans_of_ci_have_every_kind_of_fault() {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        let plans: Vec<Plan> = (0..40).map(plan).collect();
        for step in plans.iter().flat_map(|plan| &plan.steps) {
            *kinds.entry(step.fault.name()).or_default() += 1;
        }
        let mut rng = Rng(1);
        for kind in 0..KINDS {
            let name = fault(kind, &mut rng).name();
            assert!(kinds.contains_key(&name), "{name} is missing in {kinds:?}");
        }
        assert!([1, 2, 3].iter().all(|n| plans.iter().any(|p| p.steps.iter().any(|s| s.processes == *n))));
        assert!([true, false].iter().all(|s3| plans.iter().any(|p| p.s3 == *s3)));
    }

    #[test]
    fn a_plan_is_one_that_can_be_carried_out() {
        for seed in 0..2000 {
            let plan = plan(seed);
            assert!((1..=3).contains(&plan.steps.len()), "{plan}");
            for step in &plan.steps {
                let copies = step.fault.needs_copy();
                assert!(!copies || plan.flow == Flow::Copy, "{plan}");
                assert!(!matches!(step.fault, Fault::Storage { .. }) || plan.s3, "{plan}");
                assert!(!matches!(step.fault, Fault::Pause { .. }) || !plan.files, "{plan}");
            }
        }
    }
}
