//! A durable log of a broker's reports: what is read from the venue is written here before any operator sees it.
//!
//! A venue tells a thing once; a restart needs it again, in the same order and at the same event time. So each report gets its number and
//! its `ts` when it is put into the log, and a run that goes on from a checkpoint reads from the log what it had read, before it listens
//! to the venue again. Reports before the last committed checkpoint are dropped, once that is worth it.

use serde::{Deserialize, Serialize};
use tidemill_engine::connector::ConnectorError;

use super::lines::Lines;
use super::place::Place;
use super::reports::Report;

/// Bytes from which on the log is cut back at a commit.
const PRUNE_BYTES: u64 = 1 << 20;

/// A report, and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// Its number, from 1.
    pub n: u64,
    /// The entry of the sink's journal that it was made of.
    #[serde(default)]
    pub journal: Option<u64>,
    /// It is only noted, not told: a snapshot that follows has it.
    #[serde(default)]
    pub hidden: bool,
    /// The report.
    pub report: Report,
}

/// A line of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<S> {
    /// What all reports up to number `n` have come to; the first line of a log that was cut back.
    State { n: u64, ts: i64, state: S },
    /// A report.
    Report(Box<Logged>),
    /// A checkpoint that knew the log up to number `n` was committed.
    Committed { n: u64 },
}

/// The log, open for more. `S` is what its owner makes of the reports.
#[derive(Debug)]
pub struct ReportLog<S> {
    lines: Lines,
    state: S,
    /// Reports that no committed checkpoint knows, or that were not dropped yet.
    reports: Vec<Logged>,
    next: u64,
    ts: i64,
    committed: u64,
}

/// What reports come to.
pub trait State: Default + Clone + Serialize + for<'a> Deserialize<'a> {
    /// Takes a report in.
    fn apply(&mut self, logged: &Logged);
}

impl<S: State> ReportLog<S> {
    /// Opens or makes the log. The state is that of all reports in it.
    pub async fn open(place: &Place) -> Result<Self, ConnectorError> {
        let (mut lines, found) = Lines::open_at::<Line<S>>(place).await?;
        lines.claim().await?;
        let mut log =
            Self { lines, state: S::default(), reports: Vec::new(), next: 1, ts: i64::MIN, committed: 0 };
        for line in found {
            match line {
                Line::State { n, ts, state } => {
                    (log.next, log.ts, log.state) = (n + 1, ts, state);
                    log.committed = log.committed.max(n);
                }
                Line::Report(logged) => {
                    log.next = logged.n + 1;
                    log.ts = log.ts.max(logged.report.ts);
                    log.state.apply(&logged);
                    log.reports.push(*logged);
                }
                Line::Committed { n } => log.committed = log.committed.max(n),
            }
        }
        Ok(log)
    }

    /// What all reports have come to.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// The `ts` of the last report.
    pub fn ts(&self) -> i64 {
        self.ts
    }

    /// The number of the last report.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// The last report that a committed checkpoint knew.
    pub fn committed_to(&self) -> u64 {
        self.committed
    }

    /// Reports behind number `n`, oldest first.
    pub fn after(&self, n: u64) -> Vec<Logged> {
        self.reports.iter().filter(|logged| logged.n > n).cloned().collect()
    }

    /// Whether all reports behind number `n` are still there.
    pub fn reaches(&self, n: u64) -> bool {
        n >= self.last() || self.reports.first().is_some_and(|first| first.n <= n + 1)
    }

    /// Whether report `n` may be one of `ts`: false where it is there and has another.
    pub fn may_hold(&self, n: u64, ts: Option<i64>) -> bool {
        let there = self.reports.iter().find(|logged| logged.n == n).map(|logged| logged.report.ts);
        there.zip(ts).is_none_or(|(there, ts)| there == ts)
    }

    /// Puts reports into the log, at `now` or the time of the report before; durable when this returns.
    pub async fn append(
        &mut self,
        now: i64,
        hidden: bool,
        reports: Vec<(Report, Option<u64>)>,
    ) -> Result<Vec<Logged>, ConnectorError> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        self.ts = self.ts.max(now);
        let logged: Vec<Logged> = reports
            .into_iter()
            .zip(self.next..)
            .map(|((report, journal), n)| Logged {
                n,
                journal,
                hidden,
                report: Report { ts: self.ts, ..report },
            })
            .collect();
        let lines: Vec<Line<S>> = logged.iter().map(|one| Line::Report(Box::new(one.clone()))).collect();
        self.lines.append(&lines)?;
        self.lines.sync().await?;
        self.next += logged.len() as u64;
        for one in &logged {
            self.state.apply(one);
        }
        self.reports.extend_from_slice(&logged);
        Ok(logged)
    }

    /// Reports that were sent at `ts` without being logged: what is logged from now on is not older.
    pub fn passed(&mut self, ts: i64) {
        self.ts = self.ts.max(ts);
    }

    /// A checkpoint that knew the log up to number `n` is committed.
    pub async fn commit(&mut self, n: u64) -> Result<(), ConnectorError> {
        if n <= self.committed {
            return Ok(());
        }
        self.committed = n;
        if self.lines.is_long(PRUNE_BYTES) {
            return self.prune().await;
        }
        self.lines.append(&[Line::<S>::Committed { n }])?;
        self.lines.publish().await
    }

    /// Drops reports up to the last committed one. The state is that of all reports, those that stay included: taking them in again
    /// must change nothing.
    async fn prune(&mut self) -> Result<(), ConnectorError> {
        self.reports.retain(|logged| logged.n > self.committed);
        let n = self.reports.first().map_or(self.next - 1, |first| first.n - 1);
        let state = Line::State { n, ts: self.ts, state: self.state.clone() };
        let reports = self.reports.iter().map(|one| Line::Report(Box::new(one.clone())));
        self.lines.rewrite(&std::iter::once(state).chain(reports).collect::<Vec<_>>()).await
    }

    /// Begins anew behind what is there: another run, which knows nothing of it. What the reports came to is kept, as `change`
    /// leaves it.
    pub async fn forget(&mut self, change: impl FnOnce(&mut S)) -> Result<(), ConnectorError> {
        self.committed = self.last();
        change(&mut self.state);
        self.prune().await
    }
}

#[cfg(test)]
mod tests {
    use super::super::reports::Event;
    use super::super::segments::tests::places;
    use super::*;

    #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
    struct Newest(u64);

    impl State for Newest {
        fn apply(&mut self, logged: &Logged) {
            self.0 = self.0.max(logged.n);
        }
    }

    fn report() -> (Report, Option<u64>) {
        (Report::new(Event::Alert, None), None)
    }

    #[tokio::test]
    async fn a_restart_reads_what_had_been_read() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder, "reports.log") {
            reads_again(&place).await;
        }
    }

    async fn reads_again(path: &Place) {
        let mut log = ReportLog::<Newest>::open(path).await.unwrap();
        let first = log.append(10, false, vec![report(), report()]).await.unwrap();
        log.passed(30);
        // The clock went back: event time does not.
        let second = log.append(20, false, vec![report()]).await.unwrap();
        assert_eq!((first[1].n, first[1].report.ts, second[0].n, second[0].report.ts), (2, 10, 3, 30));
        // A position knows the report it stands at; an early one does not.
        assert!(log.may_hold(3, Some(30)) && log.may_hold(3, None) && log.may_hold(9, Some(1)));
        assert!(!log.may_hold(3, Some(31)));
        log.commit(1).await.unwrap();
        let mut log = ReportLog::<Newest>::open(path).await.unwrap();
        assert_eq!((log.after(1), log.ts(), log.committed_to()), ([&first[1..], &second].concat(), 30, 1));
        log.prune().await.unwrap();
        let mut log = ReportLog::<Newest>::open(path).await.unwrap();
        assert_eq!((log.after(1), log.last(), log.state()), ([&first[1..], &second].concat(), 3, &Newest(3)));
        assert!(log.reaches(1) && !log.reaches(0));
        log.forget(|state| state.0 += 1).await.unwrap();
        let mut log = ReportLog::<Newest>::open(path).await.unwrap();
        assert_eq!((log.after(0), log.last(), log.ts()), (Vec::new(), 3, 30));
        assert_eq!(log.append(31, false, vec![report()]).await.unwrap()[0].n, 4);
    }
}
