//! Carries a plan out: starts the job again and again, disturbs it, and holds what its readers see against the oracle.

use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tidemill_tests::broker_proxy::BrokerProxy;
use tidemill_tests::patience::hang_guard;
use tidemill_tests::storage_proxy::{StorageFault, StorageProxy};
use tidemill_tests::{Rng, skipped};

use crate::copied;
use crate::input;
use crate::job::{Job, difference};
use crate::plan::{Damage, Fault, Flow, Plan, Step, Storage};
use crate::running::{Running, aborted};
use crate::world::World;

/// Exit codes by the class of a failure: it may pass, and another run has taken over.
const TRANSIENT: i32 = 75;
const FENCED: i32 = 76;

/// One plan while it is carried out.
pub struct Performance<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The disturbed job.
    pub job: Job,
    /// The topic that it reads.
    pub topic: String,
    world: &'a World,
    broker: Option<BrokerProxy>,
    storage: Option<StorageProxy>,
    rng: Rng,
    /// How long the job runs undisturbed.
    whole: Duration,
    lateness_ms: u64,
    /// Partitions of the topic and rows in it; of a job that copies.
    pub partitions: i32,
    /// Time of its newest row, milliseconds from the start.
    until_ms: u64,
    /// Ids of its rows, below this.
    pub rows: u64,
    /// Partitions that rows go to, group of ids by group.
    pub written: Vec<(std::ops::Range<u64>, Vec<i32>)>,
    /// What has happened.
    pub story: Vec<String>,
}

/// Whether the plan's runs go on.
enum Next {
    Step,
    /// The job has ended.
    Ended,
}

impl<'a> Performance<'a> {
    /// Prepares a plan.
    pub fn new(plan: &'a Plan, world: &'a World) -> Self {
        let folder = world.folder.join(format!("plan{}", plan.seed));
        let broker = plan.proxies_broker().then(|| world.broker_proxy());
        let storage = plan.s3.then(|| world.storage_proxy());
        let brokers = broker.as_ref().map_or_else(|| world.brokers.clone(), |b| b.address.to_string());
        let place = plan.s3.then(|| world.bucket.as_ref().map(|b| format!("s3://{}/faults", b.1))).flatten();
        let topic = match plan.flow {
            Flow::Copy => tidemill_tests::unique("copied"),
            _ => world.topic.clone(),
        };
        let mut job = Job::new(plan, folder, &topic, &world.brokers, &brokers, place);
        if let Some(proxy) = &storage {
            job.env.push(("AWS_ENDPOINT_URL".into(), format!("http://{}", proxy.address)));
        }
        let mut performance = Self {
            plan,
            job,
            topic,
            world,
            broker,
            storage,
            rng: Rng(plan.seed ^ 0x7065_7266),
            whole: world.whole(plan.flow),
            lateness_ms: 0,
            partitions: 3,
            until_ms: 0,
            rows: 0,
            written: Vec::new(),
            story: Vec::new(),
        };
        if plan.flow == Flow::Copy {
            let idle = plan.steps.iter().any(|step| matches!(step.fault, Fault::Idle));
            input::create(&world.brokers, &performance.topic, 3);
            // Of an idle plan the last partition has no rows.
            performance.write(input::COPIED, if idle { vec![0, 1] } else { vec![0, 1, 2] });
        }
        performance
    }

    /// Writes rows whose time goes from the start to twice what there is: those of the first half are older than what
    /// the job may have written already, and those of the second let time pass it.
    fn write(&mut self, count: u64, partitions: Vec<i32>) {
        self.until_ms = if self.until_ms == 0 { count * 20 } else { self.until_ms * 2 };
        let ids = self.rows..self.rows + count;
        let rows = input::numbered(ids.clone(), &partitions, self.until_ms / count);
        input::produce(&self.world.brokers, &self.topic, rows);
        self.rows = ids.end;
        self.written.push((ids, partitions));
    }

    /// Waits until the topic that the job writes to has `rows` rows whose ids are `from` or more, or until it ends.
    fn copied(&self, running: &mut Running, from: u64, rows: usize) -> Result<Option<ExitStatus>, String> {
        let guard = hang_guard();
        loop {
            let status = running.status();
            let found = copied::ids(&self.job.signals()).into_iter().filter(|id| *id >= from).count();
            if status.is_some() || found >= rows {
                return Ok(status);
            }
            if guard.is_over() {
                return Err(format!("hung: {found} of {rows} rows with ids from {from} are written"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Carries it out and compares; what is wrong, if anything is.
    pub fn run(&mut self) -> Result<(), String> {
        let mut ended = false;
        for step in &self.plan.steps.clone() {
            if let Next::Ended = self.step(step)? {
                ended = true;
                break;
            }
        }
        self.calm();
        if self.plan.flow == Flow::Copy {
            self.finish_copy()?;
        } else if !ended {
            let mut running = self.start(self.last(), None);
            match running.end() {
                Some(status) if status.success() => {}
                Some(status) => return Err(format!("the undisturbed run at the end failed: {status}")),
                None => return Err("hung: the undisturbed run at the end does not end".into()),
            }
        }
        self.judge()
    }

    fn judge(&self) -> Result<(), String> {
        let seen = self.job.seen();
        let wrong = match self.plan.flow {
            Flow::Copy => copied::difference(self, &seen),
            flow => difference(self.world.expected(flow, self.plan.files), &seen),
        };
        let panics = self.job.log().lines().filter(|line| line.contains("panicked at")).count();
        match (wrong, panics) {
            (Some(wrong), _) => Err(wrong),
            (None, 0) => Ok(()),
            (None, n) => Err(format!("{n} panics in the log")),
        }
    }

    /// The undisturbed run that follows the others.
    fn last(&self) -> &'a Step {
        const LAST: Step = Step { fault: Fault::Kill { at: 0 }, workers: 2, processes: 1, kill: None };
        &LAST
    }

    fn start(&self, step: &Step, fault: Option<&str>) -> Running {
        let more = match self.plan.flow {
            Flow::Copy => vec!["--set".to_owned(), format!("lateness={}ms", self.lateness_ms)],
            _ => Vec::new(),
        };
        self.job.start(step.workers, step.processes, &more, fault)
    }

    fn at(&self, thousandth: u64) -> Duration {
        self.whole.mul_f64(thousandth as f64 / 1000.0)
    }

    /// Nothing is disturbed any more.
    fn calm(&self) {
        if let Some(broker) = &self.broker {
            broker.delay(Duration::ZERO);
            broker.lose_answers(0);
        }
        if let Some(storage) = &self.storage {
            storage.set(StorageFault::None, 0, 0);
        }
    }

    fn step(&mut self, step: &Step) -> Result<Next, String> {
        self.calm();
        match step.fault {
            Fault::DamageManifest { how } => self.damage(how),
            Fault::Storage { fault, skip, count } => {
                let fault = match fault {
                    Storage::Unavailable => StorageFault::Unavailable,
                    Storage::Slow(ms) => StorageFault::Slow(Duration::from_millis(ms)),
                    Storage::LostAnswer => StorageFault::LostAnswer,
                };
                if let Some(storage) = &self.storage {
                    storage.set(fault, skip, count);
                }
            }
            Fault::SlowBroker { ms } => {
                if let Some(broker) = &self.broker {
                    broker.delay(Duration::from_millis(ms));
                }
            }
            Fault::Lateness { ms, .. } => self.lateness_ms = ms,
            _ => {}
        }
        let fault = match step.fault {
            Fault::Abort { point, nth } => Some(format!("{point}:{nth}")),
            Fault::Write { point, first, count, error } => Some(format!("{point}:{first}x{count}:{error}")),
            Fault::Delay { point, first, count, ms } => Some(format!("{point}:{first}x{count}:delay={ms}")),
            _ => None,
        };
        let mut running = self.start(step, fault.as_deref());
        let ended = self.disturb(step, &mut running)?;
        let end = match ended {
            Some(status) => format!("{status}"),
            None => "killed".to_owned(),
        };
        self.story.push(format!(
            "{} after {} ms: {end}",
            step.fault.name(),
            running.since.elapsed().as_millis()
        ));
        let next = match ended {
            None => {
                running.kill();
                if self.job.has_ended() { Next::Ended } else { Next::Step }
            }
            Some(status) => self.accept(step, status)?,
        };
        Ok(next)
    }

    /// Whether a run may have ended so.
    fn accept(&self, step: &Step, status: ExitStatus) -> Result<Next, String> {
        if status.success() {
            return Ok(Next::Ended);
        }
        let abort = matches!(step.fault, Fault::Abort { .. });
        // What a launcher says of a member that a fault point ended.
        let member = step.processes > 1 && (abort || matches!(step.fault, Fault::KillMember { .. }));
        let may = match status.code() {
            None => abort && aborted(status),
            Some(TRANSIENT) => step.fault.may_pass() || member,
            Some(FENCED) => matches!(step.fault, Fault::Twice { .. } | Fault::Pause { .. }),
            Some(_) => false,
        };
        match may {
            true if self.job.has_ended() => Ok(Next::Ended),
            true => Ok(Next::Step),
            false => Err(format!("a run failed by itself under {:?}: {status}", step.fault)),
        }
    }

    /// Does to a run what the step says; its status, or `None` where it is to be killed.
    fn disturb(&mut self, step: &Step, running: &mut Running) -> Result<Option<ExitStatus>, String> {
        let ended = match step.fault {
            Fault::Kill { at } | Fault::Lateness { at, .. } => return Ok(running.until(self.at(at))),
            Fault::Idle => {
                // The partition without rows is let go, and comes back.
                let before = self.rows;
                let status = self.copied(running, 0, 1000)?;
                self.write(300, vec![0, 1, 2]);
                return Ok(status.or(self.copied(running, before, 1)?));
            }
            Fault::KillEarly { after_ms } => return Ok(running.until(Duration::from_millis(after_ms))),
            Fault::Abort { .. } if self.plan.flow == Flow::Copy => {
                // It has no end, and a point that it does not pass would be waited for in vain.
                return Ok(running.until(3 * self.whole));
            }
            Fault::Abort { .. } => None,
            Fault::KillMember { at, then_ms } => match running.until(self.at(at)) {
                None if running.kill_member(&mut self.rng) => {
                    let then = running.since.elapsed() + Duration::from_millis(then_ms);
                    return Ok(running.until(then));
                }
                status => return Ok(status),
            },
            Fault::KillLauncher { at } => {
                let status = running.until(self.at(at));
                if status.is_none() {
                    running.kill_launcher();
                }
                return Ok(status);
            }
            Fault::RestartBroker { at } => {
                let status = running.until(self.at(at));
                if status.is_none() && !restart_broker() {
                    skipped("the broker is not ours to restart");
                }
                status
            }
            Fault::CutBroker { at, times } => {
                let mut status = None;
                for i in 0..times {
                    status = running.until(self.at(at) + Duration::from_millis(150 * i));
                    if let Some(broker) = &self.broker {
                        broker.cut();
                    }
                }
                status
            }
            Fault::LoseBrokerAnswers { at, n } => {
                let status = running.until(self.at(at));
                if let Some(broker) = &self.broker {
                    broker.lose_answers(n);
                }
                status
            }
            Fault::SlowBroker { .. }
            | Fault::Storage { .. }
            | Fault::Write { .. }
            | Fault::Delay { .. }
            | Fault::DamageManifest { .. } => None,
            Fault::Clock { at, ms } => {
                let status = running.until(self.at(at));
                std::fs::write(self.job.folder.join("clock"), (ms * 1_000_000).to_string()).unwrap();
                status
            }
            Fault::Grow { partitions } => {
                let before = self.rows;
                let status = self.copied(running, 0, 1000)?;
                self.partitions += partitions as i32;
                input::grow(&self.world.brokers, &self.topic, self.partitions as usize);
                self.write(900, (0..self.partitions).collect());
                return Ok(status.or(self.copied(running, before, 100)?));
            }
            Fault::Pause { at, for_ms } => return self.pause(step, running, at, for_ms),
            Fault::Twice { at } => return self.twice(step, running, at),
        };
        if ended.is_some() {
            return Ok(ended);
        }
        match step.kill {
            Some(at) => Ok(running.until(self.at(at).max(running.since.elapsed()))),
            None if self.plan.flow == Flow::Copy => Ok(running.until(self.at(1000))),
            None => match running.end() {
                Some(status) => Ok(Some(status)),
                None => Err(format!("hung: the run does not end under {:?}", step.fault)),
            },
        }
    }

    /// A stopped process wakes up while its successor runs: it has to leave, and to do no harm before that.
    fn pause(
        &mut self,
        step: &Step,
        first: &mut Running,
        at: u64,
        for_ms: u64,
    ) -> Result<Option<ExitStatus>, String> {
        if let Some(status) = first.until(self.at(at)) {
            return Ok(Some(status));
        }
        first.signal("STOP");
        let mut second = self.start(step, None);
        let _ = second.until(Duration::from_millis(for_ms));
        first.signal("CONT");
        self.leave(&mut second, first)
    }

    fn twice(&mut self, step: &Step, first: &mut Running, at: u64) -> Result<Option<ExitStatus>, String> {
        let mut second = self.start(step, None);
        if first.until(self.at(at)).is_none() {
            // Both run for a while; whichever lost leaves by itself.
            self.leave(&mut second, first)
        } else {
            self.leave(first, &mut second)
        }
    }

    /// Waits until both have ended, one of them well; the other is fenced, or has found nothing to do.
    fn leave(&mut self, one: &mut Running, other: &mut Running) -> Result<Option<ExitStatus>, String> {
        let guard = hang_guard();
        let endless = self.plan.flow == Flow::Copy;
        loop {
            match (one.status(), other.status()) {
                (Some(a), Some(b)) => {
                    self.story.push(format!("two instances: {a}, {b}"));
                    let codes = [a.code(), b.code()];
                    // One of them has to go on: two that fence each other leave nobody.
                    let sane = codes.iter().all(|c| matches!(c, Some(0 | TRANSIENT | FENCED)))
                        && codes != [Some(FENCED); 2];
                    return match sane {
                        true => Ok(Some(if b.success() { b } else { a })),
                        false => Err(format!("of two instances one failed by itself: {a}, {b}")),
                    };
                }
                (Some(a), None) | (None, Some(a)) if endless && !a.success() => {
                    self.story.push(format!("two instances: one ended with {a}"));
                    one.kill();
                    other.kill();
                    return match a.code() {
                        Some(TRANSIENT | FENCED) => Ok(None),
                        _ => Err(format!("of two instances one failed by itself: {a}")),
                    };
                }
                _ if guard.is_over() => {
                    return Err(format!(
                        "hung: of two instances not both end: {:?}, {:?}",
                        one.status(),
                        other.status()
                    ));
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Damages the newest manifest, as a machine does that loses its power: where there is one before it.
    fn damage(&mut self, how: Damage) {
        let manifests = self.job.manifests();
        let [.., before, (newest, text)] = manifests.as_slice() else { return };
        if text.contains("\"reason\": \"closed\"") || before.1.contains("\"reason\": \"closed\"") {
            return;
        }
        let left = match how {
            Damage::Empty => 0,
            Damage::Truncated => text.len() / 2,
        };
        self.job.overwrite(newest, &text.as_bytes()[..left]);
        self.story.push(format!("manifest {newest} cut to {left} bytes"));
    }

    /// Ends a job that copies: rows far behind all others let time pass, and when all rows are there it is stopped.
    fn finish_copy(&mut self) -> Result<(), String> {
        input::produce(&self.world.brokers, &self.topic, input::ends(self.partitions));
        let mut running = self.start(self.last(), None);
        let guard = hang_guard();
        let mut passed = false;
        loop {
            if let Some(status) = running.status() {
                return Err(format!("the undisturbed run at the end failed: {status}"));
            }
            std::thread::sleep(Duration::from_millis(150));
            let seen = self.job.seen();
            if copied::missing(self, &seen) == 0 {
                break;
            }
            // The rows at the end come behind all others: what is not there when they were is lost.
            let wrong = || copied::difference(self, &seen).unwrap_or_else(|| "rows are missing".to_owned());
            if passed {
                return Err(wrong());
            }
            if guard.is_over() {
                return Err(format!("hung: {}", wrong()));
            }
            passed = copied::has_ends(&seen);
        }
        running.signal("TERM");
        match running.end() {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("stopped in order, the run ended with {status}")),
            None => Err("hung: the run does not stop".into()),
        }
    }
}

/// Restarts the broker, with its data; false where it is not ours to restart.
fn restart_broker() -> bool {
    let Some(services) = std::env::var_os("TIDEMILL_SERVICES") else { return false };
    let mut command = Command::new(services);
    command.args(["restart", "kafka"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}
