//! What all plans share: the services, the topic of trades, and what undisturbed runs give.

use std::path::PathBuf;
use std::time::Duration;

use tidemill_tests::broker_proxy::BrokerProxy;
use tidemill_tests::storage_proxy::StorageProxy;
use tidemill_tests::{kafka, s3, unique};

use crate::input;
use crate::job::{Job, Seen};
use crate::plan::{Flow, Plan};

/// The surroundings of all plans.
pub struct World {
    /// The broker.
    pub brokers: String,
    /// The S3 server and its bucket.
    pub bucket: Option<(String, String)>,
    /// The topic of trades.
    pub topic: String,
    /// Where jobs have their folders.
    pub folder: PathBuf,
    runtime: tokio::runtime::Runtime,
    /// What undisturbed runs give, and how long they take: strict, patient, and both without files.
    undisturbed: Vec<(Seen, Duration)>,
}

impl World {
    /// Makes the topic and runs the undisturbed jobs; `None` where there is no broker.
    pub fn new(folder: PathBuf) -> Option<Self> {
        let (brokers, bucket) = (kafka()?, s3());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let topic = unique("trades");
        input::create(&brokers, &topic, 3);
        input::produce(&brokers, &topic, input::trades());
        let mut world = Self { brokers, bucket, topic, folder, runtime, undisturbed: Vec::new() };
        // One after the other: how long they take is what instants of faults are measured by.
        let runs =
            [(Flow::Strict, true), (Flow::Patient, true), (Flow::Strict, false), (Flow::Patient, false)];
        world.undisturbed = runs.iter().map(|(flow, files)| world.run_undisturbed(*flow, *files)).collect();
        Some(world)
    }

    fn run_undisturbed(&self, flow: Flow, files: bool) -> (Seen, Duration) {
        let plan = Plan { seed: 0, flow, files, s3: false, steps: Vec::new() };
        let folder = self.folder.join(format!("{flow:?}{files}"));
        let job = Job::new(&plan, folder, &self.topic, &self.brokers, &self.brokers, None);
        let mut running = job.start(1, 1, &[], None);
        let status = running.end();
        assert!(status.is_some_and(|s| s.success()), "undisturbed: {status:?}\n{}", job.log_tail());
        let (took, seen) = (running.since.elapsed(), job.seen());
        eprintln!(
            "undisturbed {flow:?} in {} ms: {} signals, {} archived bars, {} studies, {} dead letters",
            took.as_millis(),
            seen.signals.len(),
            seen.archive.len(),
            seen.studies.len(),
            seen.dead_letters.len()
        );
        assert!(seen.signals.len() > 100 && seen.archive.len() > 1000, "too little to lose");
        assert!(!files || (!seen.studies.is_empty() && !seen.dead_letters.is_empty()), "files are empty");
        (seen, took)
    }

    /// What a job gives undisturbed.
    pub fn expected(&self, flow: Flow, files: bool) -> &Seen {
        &self.undisturbed[usize::from(flow == Flow::Patient) + 2 * usize::from(!files)].0
    }

    /// How long it runs undisturbed.
    pub fn whole(&self, flow: Flow) -> Duration {
        match flow {
            Flow::Copy => Duration::from_millis(2500),
            flow => self.undisturbed[usize::from(flow == Flow::Patient)].1,
        }
    }

    /// A proxy of the broker.
    pub fn broker_proxy(&self) -> BrokerProxy {
        self.runtime.block_on(BrokerProxy::start(&self.brokers)).unwrap()
    }

    /// A proxy of the S3 server.
    pub fn storage_proxy(&self) -> StorageProxy {
        let server = self.bucket.as_ref().map(|(server, _)| server.clone()).unwrap_or_default();
        self.runtime.block_on(StorageProxy::start(server)).unwrap()
    }
}
