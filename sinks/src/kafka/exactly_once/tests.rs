//! A model of brokers with two transactional ids: every step of a run fails, is lost, kills the process or meets a
//! newer start, and what a `read_committed` consumer sees is compared with the rows that went in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tidemill_engine::clock::Clock;

use super::*;

const ROWS: i64 = 24;
const PROGRESS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The call fails without effect.
    Refused,
    /// The call has its effect, and its answer is lost.
    Lost,
    /// The process dies before the call.
    Killed,
    /// A newer start fences the first id here, the second three calls later; the old process goes on.
    Taken,
    /// The same, the second id first.
    TakenSecondFirst,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Open,
    /// The commit is decided, markers are not written.
    Prepared,
    Committed,
    Aborted,
}

#[derive(Default)]
struct Log {
    /// Transaction, partition, value (a row's ts, or progress).
    records: Vec<(usize, usize, i64)>,
    /// Of each transaction, its producer and state.
    transactions: Vec<(usize, Option<State>)>,
    /// Sent and not yet in the log: producer, transaction, partition, value.
    queue: Vec<(usize, usize, usize, i64)>,
    epochs: [u64; 2],
    calls: usize,
    fault: Option<(usize, Fault)>,
    /// The progress when a newer start had fenced both ids.
    taken_at: Option<i64>,
    random: u64,
}

impl Log {
    fn random(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    fn fence(&mut self, producer: usize) {
        self.epochs[producer] += 1;
        self.queue.retain(|(p, ..)| *p != producer);
        for (of, state) in &mut self.transactions {
            if *of == producer {
                *state = match *state {
                    Some(State::Open) => Some(State::Aborted),
                    Some(State::Prepared) => Some(State::Committed),
                    other => other,
                };
            }
        }
    }

    fn append(&mut self, of: impl Fn(usize) -> bool, most: u64) {
        // What one producer has sent stays in order; two producers' records mix in any order.
        for producer in [0, 1].into_iter().filter(|p| of(*p)) {
            for _ in 0..most {
                let Some(at) = self.queue.iter().position(|(p, ..)| *p == producer) else { break };
                let (_, transaction, partition, value) = self.queue.remove(at);
                self.records.push((transaction, partition, value));
            }
        }
    }

    /// A call to the brokers by `producer`; what happens beside it happens first.
    fn call(&mut self, producer: usize, epoch: u64) -> Result<bool, ConnectorError> {
        let some = self.random(3);
        let which = self.random(3) as usize;
        self.append(|p| p != which, some);
        for i in 0..self.transactions.len() {
            if self.transactions[i].1 == Some(State::Prepared) && self.random(3) == 0 {
                self.transactions[i].1 = Some(State::Committed);
            }
        }
        self.calls += 1;
        let due = self.fault.map(|(at, fault)| (self.calls as i64 - at as i64, fault));
        let mut lost = false;
        match due {
            Some((0, Fault::Refused)) => return Err(ConnectorError::Transient("refused".into())),
            Some((0, Fault::Lost)) => lost = true,
            Some((0.., Fault::Killed)) => return Err(ConnectorError::Transient("killed".into())),
            Some((0, Fault::Taken)) | Some((3, Fault::TakenSecondFirst)) => self.fence(0),
            Some((3, Fault::Taken)) | Some((0, Fault::TakenSecondFirst)) => self.fence(1),
            _ => {}
        }
        if matches!(due, Some((3, Fault::Taken | Fault::TakenSecondFirst))) {
            self.taken_at = Some(self.progress());
        }
        self.check();
        if self.epochs[producer] != epoch {
            return Err(ConnectorError::Fenced("an old epoch".into()));
        }
        Ok(lost)
    }

    fn is_committed(&self, transaction: usize) -> bool {
        matches!(self.transactions[transaction].1, Some(State::Prepared | State::Committed))
    }

    /// What a `read_committed` consumer of a partition sees.
    fn visible(&self, partition: usize) -> Vec<i64> {
        let mut seen = Vec::new();
        for (transaction, of, value) in &self.records {
            match self.transactions[*transaction].1 {
                _ if *of != partition => {}
                Some(State::Committed) => seen.push(*value),
                Some(State::Open | State::Prepared) => break,
                _ => {}
            }
        }
        seen
    }

    fn progress(&self) -> i64 {
        let mut committed = self.records.iter().filter(|(t, p, _)| *p == PROGRESS && self.is_committed(*t));
        committed.next_back().map_or(0, |(.., value)| *value)
    }

    /// At any instant: what is committed is each row below the progress, once; readers see them in order.
    fn check(&self) {
        let mut rows: Vec<i64> = self
            .records
            .iter()
            .filter(|(t, p, _)| *p != PROGRESS && self.is_committed(*t))
            .map(|(.., value)| *value)
            .collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..self.progress()).collect::<Vec<_>>(), "{:?}", self.fault);
        for partition in 0..=PROGRESS {
            assert!(self.visible(partition).is_sorted(), "partition {partition} {:?}", self.fault);
        }
    }
}

#[derive(Clone, Default)]
struct Brokers(Arc<Mutex<Log>>);

impl Brokers {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Fake {
    brokers: Brokers,
    id: usize,
    epoch: u64,
    transaction: usize,
}

impl Fake {
    fn send(&self, partition: usize, value: i64) -> Result<(), ConnectorError> {
        let mut log = self.brokers.log();
        let lost = log.call(self.id, self.epoch)?;
        log.queue.push((self.id, self.transaction, partition, value));
        answer(lost)
    }
}

fn answer(lost: bool) -> Result<(), ConnectorError> {
    if lost { Err(ConnectorError::Transient("no answer".into())) } else { Ok(()) }
}

#[async_trait]
impl Transactional for Fake {
    fn begin(&mut self) -> Result<(), ConnectorError> {
        let mut log = self.brokers.log();
        // The brokers refuse a transaction of the same producer until the markers of the one before are written.
        for (of, state) in &mut log.transactions {
            if *of == self.id && *state == Some(State::Prepared) {
                *state = Some(State::Committed);
            }
            assert!(*of != self.id || *state != Some(State::Open), "two transactions of one producer");
        }
        self.transaction = log.transactions.len();
        log.transactions.push((self.id, Some(State::Open)));
        Ok(())
    }

    async fn write(&mut self, rows: &RecordBatch) -> Result<(), ConnectorError> {
        for ts in row::ts(rows) {
            self.send((*ts % 2) as usize, *ts)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn complete(&mut self, progress: &Progress) -> Result<(), ConnectorError> {
        self.send(PROGRESS, progress.watermark)?;
        tokio::task::yield_now().await;
        let mut log = self.brokers.log();
        let lost = log.call(self.id, self.epoch)?;
        log.append(|p| p == self.id, u64::MAX);
        answer(lost)
    }

    fn commit(&self) -> BoxFuture<'static, Result<(), ConnectorError>> {
        let (brokers, id, epoch, transaction) = (self.brokers.clone(), self.id, self.epoch, self.transaction);
        async move {
            let waits = brokers.log().random(12);
            for _ in 0..waits {
                tokio::task::yield_now().await;
            }
            let mut log = brokers.log();
            let lost = log.call(id, epoch)?;
            log.append(|p| p == id, u64::MAX);
            log.transactions[transaction].1 = Some(State::Prepared);
            log.check();
            answer(lost)
        }
        .boxed()
    }

    async fn abort(&self) -> Result<(), ConnectorError> {
        let mut log = self.brokers.log();
        let lost = log.call(self.id, self.epoch)?;
        log.queue.retain(|(p, ..)| *p != self.id);
        if let Some((_, state @ Some(State::Open))) = log.transactions.get_mut(self.transaction) {
            *state = Some(State::Aborted);
        }
        answer(lost)
    }
}

fn context() -> SinkContext {
    SinkContext {
        job: "job".into(),
        name: "sink".into(),
        shard: 0,
        shards: 1,
        generation: 10,
        run: 10,
        fresh: true,
        resumed: false,
        replayable: true,
        start_checkpoint: 0,
        schema: row::stream_schema([]),
        restored: Vec::new(),
        former: Vec::new(),
        base: ".".into(),
        clock: Clock::System,
    }
}

/// Fences both ids and reads the progress, as `open` does.
fn start(brokers: &Brokers) -> ExactlyOnce<Fake> {
    let mut log = brokers.log();
    log.fence(0);
    log.fence(1);
    let written = Some(log.progress());
    let fake =
        |id: usize| Fake { brokers: brokers.clone(), id, epoch: log.epochs[id], transaction: usize::MAX };
    let turns = Turns::new([fake(0), fake(1)], "out", Clock::System);
    ExactlyOnce::new(turns, "out", &context(), written, true)
}

fn rows(range: std::ops::Range<i64>) -> RecordBatch {
    let n = range.clone().count();
    let columns = vec![
        row::ts_array(range.collect()),
        row::u64_array(vec![7; n]),
        row::u64_array((0..n as u64).collect()),
    ];
    RecordBatch::try_new(row::stream_schema([]), columns).unwrap()
}

/// Writes all rows as the engine does, in random batches with random flushes.
async fn replay(writer: &mut ExactlyOnce<Fake>, brokers: &Brokers) -> Result<(), ConnectorError> {
    let mut at = 0;
    while at < ROWS {
        let n = 1 + brokers.log().random(4) as i64;
        let then = brokers.log().random(6);
        let to = ROWS.min(at + n);
        writer.write(rows(at..to)).await?;
        at = to;
        match then {
            0 => writer.flush(at).await?,
            1..=3 => writer.begin_flush(at).await?,
            4 => {
                writer.flush(at).await?;
                let checkpoint = writer.checkpoint(1).await?;
                // What a checkpoint remembers is committed.
                assert_eq!(checkpoint["watermark"], brokers.log().progress());
            }
            // The engine stops waiting for a commit whenever something comes.
            _ => {
                tokio::select! {
                    done = writer.flushed() => done?,
                    () = tokio::task::yield_now() => {}
                }
            }
        }
    }
    writer.flush(i64::MAX).await?;
    writer.close().await
}

async fn disturbed(seed: u64, fault: Option<(usize, Fault)>) -> usize {
    let brokers = Brokers::default();
    brokers.log().random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut writer = start(&brokers);
    brokers.log().fault = fault;
    let first = replay(&mut writer, &brokers).await;
    let calls = brokers.log().calls;
    let taken_at = brokers.log().taken_at;
    if let Some(at) = taken_at {
        // The old process cannot write behind what the newer start has read, and says why it ends.
        assert_eq!(brokers.log().progress(), at, "{fault:?}");
        if at < ROWS {
            assert!(matches!(first, Err(ConnectorError::Fenced(_))), "{first:?} {fault:?}");
        }
    }
    if first.is_err() {
        // A writer that has failed does nothing more, whatever is called.
        let before = brokers.log().progress();
        assert!(writer.write(rows(ROWS..ROWS + 1)).await.is_err());
        assert!(writer.flush(i64::MAX).await.is_err());
        assert!(writer.checkpoint(2).await.is_err());
        assert_eq!(brokers.log().progress(), before);
    }
    if first.is_err() || fault.is_some() {
        // Its last commit may still be under way while the next start begins.
        if seed.is_multiple_of(2) {
            drop(writer);
        }
        let mut again = start(&brokers);
        brokers.log().fault = None;
        replay(&mut again, &brokers).await.unwrap();
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let mut log = brokers.log();
    log.fence(0);
    log.fence(1);
    log.check();
    for partition in 0..PROGRESS {
        let expected: Vec<i64> = (0..ROWS).filter(|ts| *ts as usize % 2 == partition).collect();
        assert_eq!(log.visible(partition), expected, "seed {seed} {fault:?}");
    }
    calls
}

#[tokio::test]
async fn whatever_fails_at_any_step_each_row_is_read_once_and_in_order() {
    for seed in 1..=40 {
        let calls = disturbed(seed, None).await;
        for at in 1..=calls {
            for fault in [Fault::Refused, Fault::Lost, Fault::Killed, Fault::Taken, Fault::TakenSecondFirst] {
                disturbed(seed, Some((at, fault))).await;
            }
        }
    }
}

#[tokio::test]
async fn one_producer_is_filled_while_the_other_commits() {
    let brokers = Brokers::default();
    brokers.log().random = 3;
    let mut writer = start(&brokers);
    writer.write(rows(0..2)).await.unwrap();
    writer.begin_flush(2).await.unwrap();
    assert!(!writer.flushes_early(), "the commit is under way");
    writer.write(rows(2..4)).await.unwrap();
    let producers: Vec<usize> = brokers.log().transactions.iter().map(|(producer, _)| *producer).collect();
    assert_eq!(producers, [0, 1]);
    writer.flushed().await.unwrap();
    assert!(writer.flushes_early());
    writer.begin_flush(4).await.unwrap();
    writer.write(rows(4..5)).await.unwrap();
    writer.flush(5).await.unwrap();
    assert_eq!(brokers.log().progress(), 5);
}

fn progress(generation: u64, run: u64) -> Progress {
    Progress {
        job: "job".into(),
        sink: "sink".into(),
        shard: 0,
        shards: 1,
        topic: "out".into(),
        watermark: 50,
        generation,
        run,
    }
}

#[test]
fn a_clock_that_was_ahead_does_not_keep_a_new_run_from_beginning() {
    let far = || Some(progress(1000, 1000));
    assert_eq!(reconcile(far(), "out", "progress", &context()).unwrap(), None);
    // Within a run, a later start has taken over; and one that goes on with a run does not pass over a newer one.
    let resumed = SinkContext { resumed: true, ..context() };
    for (found, cx) in [(progress(11, 10), context()), (progress(1000, 1000), resumed)] {
        let error = reconcile(Some(found), "out", "progress", &cx).unwrap_err();
        assert!(matches!(error, ConnectorError::Fenced(_)), "{error:?}");
    }
}
