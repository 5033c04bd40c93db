//! Several processes of one job, each on threads of its own here, over real sockets; and what strangers and lost processes do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::runtime::cluster::frame::{self, Message};
use crate::runtime::cluster::handshake::{Identity, Kind};
use crate::runtime::control::Shared;
use crate::sink::{Placement, Sink, SinkContext, SinkWriter};
use crate::source::{Source, SourceContext};

/// Nothing here takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(240);

fn start() -> Start {
    Start {
        generation: 7,
        run: 7,
        start: 7,
        follows: Vec::new(),
        fresh: true,
        resumed: false,
        checkpoint: 0,
        epoch: 1,
        manifest: None,
    }
}

/// `count` processes that know of each other; limits of time so long that none of them decides a test.
fn clusters(count: usize) -> Vec<Cluster> {
    let listeners: Vec<_> = (0..count).map(|_| Arc::new(TcpListener::bind("127.0.0.1:0").unwrap())).collect();
    let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
    let secret = Secret::random();
    let timing = Timing {
        silence: HANG,
        handshake: HANG,
        start: HANG,
        grace: Duration::from_millis(500),
        ..Timing::default()
    };
    let cluster = |(process, listener)| Cluster {
        process,
        addresses: addresses.clone(),
        listener: Some(listener),
        secret: secret.clone(),
        start: start(),
        timing,
    };
    listeners.into_iter().enumerate().map(cluster).collect()
}

/// Runs `work` and fails the test where it hangs.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, over) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    over.recv_timeout(HANG).expect("it hangs, or its thread panicked")
}

type Running = mpsc::Receiver<Result<(), JobError>>;

fn spawn(plan: Plan, cluster: Cluster) -> Running {
    let (done, over) = mpsc::channel();
    let options = RunOptions { cluster: Some(cluster), ..Default::default() };
    std::thread::spawn(move || done.send(execute(plan, &options, CancellationToken::new())));
    over
}

fn end(running: &Running) -> Result<(), JobError> {
    running.recv_timeout(HANG).expect("the process hangs")
}

fn rows_of_two() -> Vec<Vec<Row>> {
    (0..2).map(|p| (0..500).map(|i| (i, i % 7, 2 * i + p)).collect()).collect()
}

/// Given strangers on the port of a job that starts (one silent after its first word, garbage, a wrong secret, another start, a
/// false proof), when its processes meet, then no stranger is let in, and the rows are those of the oracle.
#[test]
fn strangers_neither_join_nor_hold_up_a_job() {
    let rows = rows_of_two();
    let mut processes = clusters(2);
    let address = processes[0].addresses[0].clone();
    let second = processes.pop().unwrap();
    let (plan, out) = graph(&rows, "0", false);
    let mut silent = TcpStream::connect(&address).unwrap();
    silent.write_all(b"tdmlink1").unwrap();
    let first = spawn(plan, processes.pop().unwrap());
    let mut garbage = TcpStream::connect(&address).unwrap();
    garbage.write_all(&[0xff; 4096]).unwrap();
    // Closed by the other side, with or without a reset, and not answered.
    assert_eq!(garbage.read(&mut [0; 16]).unwrap_or(0), 0);
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let me = |secret, start| Identity { process: 1, processes: 2, start, secret };
    for stranger in [me(Secret::random(), start().start), me(second.secret.clone(), 1)] {
        tokio.block_on(async {
            let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            assert!(stranger.connect(&mut stream, 0, Kind::Data).await.is_err());
        });
    }
    // It speaks the protocol and does not care who answers, but has no proof.
    let mut liar = TcpStream::connect(&address).unwrap();
    let numbers = [1u32.to_be_bytes(), 0u32.to_be_bytes()].concat();
    let hello = [b"tdmlink1\x01".as_slice(), &numbers, &start().start.to_be_bytes(), &[3; 32]].concat();
    liar.write_all(&hello).unwrap();
    liar.read_exact(&mut [0; 64]).unwrap();
    liar.write_all(&[3; 32]).unwrap();
    assert_eq!(liar.read(&mut [0; 16]).unwrap_or(0), 0);
    let (plan, _) = graph(&rows, "0", false);
    let second = spawn(plan, second);
    end(&first).unwrap();
    end(&second).unwrap();
    let (mut got, mut expected) = (taken(&out), oracle(&rows, 0));
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);
    drop(silent);
}

struct FailsInSecondProcess;

#[async_trait::async_trait]
impl Source for FailsInSecondProcess {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        if cx.instance == 1 {
            return Err(ConnectorError::Fatal("the password is wrong".into()));
        }
        cx.stop.cancelled().await;
        Ok(())
    }
}

/// Given three processes, when one fails for good, then every one of them ends, with that cause and class.
#[test]
fn a_failure_reaches_every_process_with_its_cause() {
    let running: Vec<Running> = clusters(3)
        .into_iter()
        .map(|cluster| {
            let (mut plan, _) = graph(&rows_of_two(), "0", true);
            if let Body::Source { plan, .. } = &mut plan.nodes[0].body {
                plan.source = Arc::new(FailsInSecondProcess);
            }
            spawn(plan, cluster)
        })
        .collect();
    for process in &running {
        let error = end(process).unwrap_err();
        assert_eq!(error.to_string(), "`rows`: the password is wrong");
        assert_eq!(error.class(), FailureClass::Fatal);
    }
}

/// Opens in the first process, and `refuses` in the second. Counts how often it was started.
struct CountsStarts {
    refuses: bool,
    started: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl Sink for CountsStarts {
    async fn open(&self, cx: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        if cx.shard == 1 && self.refuses {
            // Long after the other process could have written.
            tokio::time::sleep(Duration::from_millis(500)).await;
            return Err(ConnectorError::Fatal("it holds files of another run".into()));
        }
        Ok(Box::new(CountingWriter { started: self.started.clone(), begun: false }))
    }
}

struct CountingWriter {
    started: Arc<AtomicUsize>,
    begun: bool,
}

#[async_trait::async_trait]
impl SinkWriter for CountingWriter {
    async fn started(&mut self) -> Result<(), ConnectorError> {
        self.started.fetch_add(1, Ordering::SeqCst);
        self.begun = true;
        Ok(())
    }

    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        if self.begun {
            Ok(())
        } else {
            Err(ConnectorError::Fatal("written to before it was started".into()))
        }
    }

    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        Ok(())
    }
}

/// Two processes with a sink more; the ends of both, rows of the other sink, and how many shards of it were started.
fn with_another_sink(refuses: bool) -> (Vec<Result<(), JobError>>, usize, usize) {
    let (mut outputs, started) = (Vec::new(), Arc::new(AtomicUsize::new(0)));
    let running: Vec<Running> = clusters(2)
        .into_iter()
        .map(|cluster| {
            let (mut plan, out) = graph(&rows_of_two(), "0", false);
            let mut another = plan.nodes[2].clone();
            (another.id, another.name) = (3, "another".into());
            if let Body::Sink { plan } = &mut another.body {
                plan.sink = Arc::new(CountsStarts { refuses, started: started.clone() });
                plan.placement = Placement::Local;
            }
            plan.nodes.push(another);
            outputs.push(out);
            spawn(plan, cluster)
        })
        .collect();
    let ends = running.iter().map(end).collect();
    (ends, outputs.iter().map(|out| taken(out).len()).sum(), started.load(Ordering::SeqCst))
}

/// Given two processes, when a sink of the second refuses to open, then no sink of the first has written anything or removed what an
/// earlier run left; when all open, each is started once, before its first row.
#[test]
fn no_process_writes_before_the_sinks_of_all_are_open() {
    let (ends, rows, started) = with_another_sink(true);
    for end in ends {
        let error = end.unwrap_err();
        assert!(error.to_string().contains("another run"), "{error}");
    }
    assert_eq!((rows, started), (0, 0));
    let (ends, rows, started) = with_another_sink(false);
    ends.into_iter().for_each(|end| end.unwrap());
    assert!(rows > 0 && started == 2, "{rows} rows, started {started}");
}

/// Given two processes, when one cannot restore its state, then the other does not wait to meet it: both end with the cause.
#[test]
fn processes_meet_before_they_restore_their_state() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let options = |i: usize| RunOptions {
        checkpoints: Some(CheckpointOptions {
            url: "checkpoints".into(),
            base: folders[i].path().into(),
            keep: 2,
            from: StartFrom::Latest,
            changes: Default::default(),
        }),
        ..Default::default()
    };
    let (plan, _) = graph(&rows_of_two(), "0", true);
    run_until(plan.clone(), options(0), |m| m.read()[1].rows_in > 100);
    let location = crate::storage::open("checkpoints", folders[0].path()).unwrap();
    let store = crate::checkpoint::CheckpointStore::new(location, "law", 2);
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let start = begin(
        &plan,
        Some(&store),
        &StartFrom::Latest,
        Default::default(),
        None,
        &crate::clock::Clock::System,
    );
    let start = tokio.block_on(start).unwrap();
    let mut running = Vec::new();
    for (i, mut cluster) in clusters(2).into_iter().enumerate() {
        cluster.start = start.clone();
        // The second process finds none of the files.
        let options = RunOptions { cluster: Some(cluster), ..options(i) };
        let (done, over) = mpsc::channel();
        let plan = plan.clone();
        std::thread::spawn(move || done.send(execute(plan, &options, CancellationToken::new())));
        running.push(over);
    }
    for process in &running {
        let error = end(process).unwrap_err().to_string();
        assert!(error.contains("state file state/"), "{error}");
    }
}

/// Given two processes, one of which reads a source that never has a row and is let go as idle, when the other goes on, then its rows
/// come out.
#[test]
fn an_idle_source_goes_with_those_of_other_processes() {
    let (stop, mut running, mut outputs) = (CancellationToken::new(), Vec::new(), Vec::new());
    for cluster in clusters(2) {
        let rows = MemorySource::endless(columns(), vec![many_rows(500)]);
        let (mut plan, out) = two_sources(rows, MemorySource::endless(columns(), vec![many_rows(0)]));
        if let Body::Source { options, .. } = &mut plan.nodes[1].body {
            options.idle_timeout = Some("20ms".parse().unwrap());
        }
        let stall_after = Duration::from_millis(100);
        let options = RunOptions { cluster: Some(cluster), stall_after, ..Default::default() };
        let ((done, over), stop) = (mpsc::channel(), stop.clone());
        std::thread::spawn(move || done.send(execute(plan, &options, stop)));
        running.push(over);
        outputs.push(out);
    }
    // All but the newest.
    let written = move || {
        while taken(&outputs[0]).len() < 499 {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    in_time(written);
    stop.cancel();
    running.iter().for_each(|process| end(process).unwrap());
}

struct PanicsOnRows;

impl Operator for PanicsOnRows {
    fn process(&mut self, _: &[Option<RecordBatch>], _: &mut Output) -> Result<(), OperatorError> {
        panic!("seven is no prime here")
    }
}

/// Given two processes, when an operator panics in one, then both end with its message, and a restart may help.
#[test]
fn a_panic_keeps_its_message() {
    let running: Vec<Running> = clusters(2)
        .into_iter()
        .map(|cluster| {
            let (mut plan, _) = graph(&rows_of_two(), "0", true);
            if let Body::Operator { plan, .. } = &mut plan.nodes[1].body {
                plan.build = Arc::new(|| Box::new(PanicsOnRows));
            }
            spawn(plan, cluster)
        })
        .collect();
    for process in &running {
        let error = end(process).unwrap_err();
        assert!(error.to_string().contains("seven is no prime"), "{error}");
        assert_eq!(error.class(), FailureClass::Transient);
    }
}

/// A process that has met the other, without a dataflow.
fn joined(
    cluster: Cluster,
) -> mpsc::Receiver<(Arc<Shared>, cluster::ControlPlane, Vec<Option<cluster::Link>>)> {
    let (done, over) = mpsc::channel();
    std::thread::spawn(move || {
        let (plan, _) = graph(&rows_of_two(), "0", false);
        let metrics = Metrics::new(&plan);
        let options = RunOptions { cluster: Some(cluster.clone()), ..Default::default() };
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared::new(
            Arc::new(plan),
            options,
            metrics,
            tokio.handle().clone(),
            stop,
            None,
            start(),
        ));
        let (links, plane) = cluster.join(&shared).unwrap();
        done.send((shared, plane, links)).unwrap();
        tokio.shutdown_background();
    });
    over
}

/// Given two processes, when the sinks of one are open, then none is released; when those of both are, both are, and know
/// the larger horizon. And the end comes when both are done.
#[test]
fn the_barrier_carries_the_largest_horizon() {
    let mut processes = clusters(2);
    let second = joined(processes.pop().unwrap());
    let first = joined(processes.pop().unwrap());
    let (first, first_plane, _links) = first.recv_timeout(HANG).unwrap();
    let (second, second_plane, _links) = second.recv_timeout(HANG).unwrap();
    second.opening.done(Some(5));
    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(async {
        let early = tokio::time::timeout(Duration::from_millis(300), second.opening.all()).await;
        assert!(early.is_err(), "released while the other process is not open");
        first.opening.done(Some(3));
        assert!(first.opening.all().await && second.opening.all().await);
    });
    assert_eq!((first.opening.horizon(), second.opening.horizon()), (Some(5), Some(5)));
    let (one, other) = (first.clone(), second.clone());
    let ending = std::thread::spawn(move || second_plane.finish(&other));
    in_time(move || first_plane.finish(&one));
    ending.join().unwrap();
    assert!(first.failure().is_none() && second.failure().is_none());
}

/// What a process 1 that is no real one does to process 0, and how process 0 then ends.
fn misbehaving(
    timing: impl FnOnce(&mut Timing),
    act: impl AsyncFnOnce(tokio::net::TcpStream, tokio::net::TcpStream) + Send + 'static,
) -> JobError {
    let mut processes = clusters(2);
    let second = processes.pop().unwrap();
    timing(&mut processes[0].timing);
    let first = joined(processes.pop().unwrap());
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let me = Identity { process: 1, processes: 2, start: start().start, secret: second.secret.clone() };
    let connect = async |kind| {
        let mut stream = tokio::net::TcpStream::connect(&second.addresses[0]).await.unwrap();
        me.connect(&mut stream, 0, kind).await.unwrap();
        stream
    };
    let (data, control) = tokio.block_on(async { (connect(Kind::Data).await, connect(Kind::Control).await) });
    let (shared, plane, mut links) = first.recv_timeout(HANG).unwrap();
    // Timely's receiving thread.
    let mut link = links.remove(1).unwrap();
    std::thread::spawn(move || link.read(&mut [0; 64]));
    tokio.block_on(act(data, control));
    let seen = shared.clone();
    in_time(move || {
        let tokio = tokio::runtime::Runtime::new().unwrap();
        tokio.block_on(seen.failing.cancelled());
        plane.finish(&seen);
    });
    shared.failure().unwrap()
}

/// Given a process whose links break, when its cause arrives a little later, then the cause is the failure.
#[test]
fn a_lost_connection_does_not_hide_its_cause() {
    let error = misbehaving(
        |timing| timing.grace = HANG,
        async |data, mut control| {
            drop(data);
            // The loss is seen first; even if not, the outcome is the same.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let error = JobError::Fenced("a newer run".into());
            frame::write(&mut control, &Message::Failed { error }).await.unwrap();
        },
    );
    assert!(matches!(&error, JobError::Fenced(reason) if reason == "a newer run"), "{error}");
}

/// Given a process that vanishes without a word, then it is named, and a restart may help.
#[test]
fn a_process_that_vanishes_is_named() {
    let error = misbehaving(|_| {}, async |data, control| drop((data, control)));
    assert!(matches!(error, JobError::Lost { process: 1, .. }), "{error}");
    assert_eq!(error.class(), FailureClass::Transient);
}

/// Given a process that is stopped, with its connections open, then it is lost after its time of silence.
#[test]
fn a_silent_process_is_lost() {
    let error = misbehaving(
        |timing| timing.silence = Duration::from_millis(300),
        async |data, control| std::mem::forget((data, control)),
    );
    assert!(error.to_string().starts_with("process 1 is lost: it has sent nothing for"), "{error}");
}

/// Given a message that claims four gigabytes, then it is not read, and the connection is given up.
#[test]
fn an_oversized_message_is_not_read() {
    let error = misbehaving(
        |_| {},
        async |data, mut control| {
            use tokio::io::AsyncWriteExt;
            control.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
            std::mem::forget((data, control));
        },
    );
    assert!(error.to_string().contains("a message of 4294967295 bytes"), "{error}");
}

/// Given a live job with rare checkpoints, when its control asks for one, then it is committed; when it asks for a stop, the
/// job ends in order with a last one.
#[test]
fn a_control_takes_a_checkpoint_and_stops_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, _) = graph(&rows_of_two(), "0", true);
    let control = Control::default();
    let options = RunOptions {
        checkpoints: Some(CheckpointOptions {
            url: "checkpoints".into(),
            base: folder.path().into(),
            keep: 2,
            from: StartFrom::Latest,
            changes: Default::default(),
        }),
        checkpoint_every: HANG * 10,
        control: control.clone(),
        ..Default::default()
    };
    assert_eq!(control.status().phase, Phase::Waiting);
    let (done, over) = mpsc::channel();
    std::thread::spawn(move || done.send(execute(plan, &options, CancellationToken::new())));
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reaches = |what: &dyn Fn(&Status) -> bool| {
        let mut status = control.watch();
        let waiting = async { status.wait_for(|s| what(s)).await.unwrap().clone() };
        tokio.block_on(async { tokio::time::timeout(HANG, waiting).await.expect("it hangs") })
    };
    // The start's manifest is 1; two checkpoints come before the first row.
    reaches(&|s| s.checkpoint == Some(3));
    control.checkpoint_now();
    reaches(&|s| s.checkpoint == Some(4));
    control.stop();
    over.recv_timeout(HANG).expect("it hangs").unwrap();
    let end = control.status();
    assert_eq!((end.phase, end.checkpoint, end.restarts), (Phase::Ended, Some(5), 0));
}

struct FailsToClose;

#[async_trait::async_trait]
impl Sink for FailsToClose {
    async fn open(&self, _: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(Self))
    }
}

#[async_trait::async_trait]
impl SinkWriter for FailsToClose {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        Ok(())
    }
    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        Ok(())
    }
    async fn close(&mut self) -> Result<(), ConnectorError> {
        Err(ConnectorError::Fatal("the disk is full".into()))
    }
}

/// Given several workers, when a sink fails while it closes, then the run ends with that, whichever workers know of the end.
#[test]
fn a_sink_that_fails_to_close_ends_the_run() {
    for _ in 0..40 {
        let error = in_time(|| {
            let (mut plan, _) = graph(&rows_of_two(), "0", false);
            if let Body::Sink { plan } = &mut plan.nodes[2].body {
                plan.sink = Arc::new(FailsToClose);
                plan.placement = Placement::Local;
            }
            let options = RunOptions { workers: 3, ..Default::default() };
            execute(plan, &options, CancellationToken::new()).unwrap_err()
        });
        assert_eq!(error.to_string(), "`out`: the disk is full");
    }
}

/// Given one process, when sinks have opened, then the largest horizon is known, and none where no sink remembers.
#[test]
fn the_horizon_is_the_largest_of_all_sinks() {
    let opening = super::super::opening::Opening::new(2, false);
    opening.done(None);
    assert_eq!(opening.horizon(), None);
    opening.add(1);
    opening.done(Some(-9));
    opening.done(Some(-12));
    assert!(tokio::runtime::Runtime::new().unwrap().block_on(opening.all()));
    assert_eq!(opening.horizon(), Some(-9));
}
