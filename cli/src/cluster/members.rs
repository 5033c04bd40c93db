//! The launcher's side: the member processes, what they report, and how they end.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::Context;
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::runtime::{JobError, Secret, Start};
use tokio_util::sync::CancellationToken;

use super::{End, FromMember, ToMember, Welcome, exited, lost};

/// Time for the others to report and end, once one has failed.
const GRACE: Duration = Duration::from_secs(5);
/// Pause between looks at the members.
const POLL: Duration = Duration::from_millis(20);

/// The member processes of one start; those still alive are killed when it is dropped.
pub struct Members {
    children: Vec<Child>,
    sockets: Vec<UnixStream>,
    reports: Receiver<(usize, FromMember)>,
    addresses: Vec<Option<String>>,
    failures: Vec<JobError>,
    clock: Clock,
}

impl Members {
    /// Starts `count` processes of this program.
    pub fn start(count: usize, clock: Clock) -> anyhow::Result<Self> {
        let me = std::env::current_exe().context("cannot find this program's file")?;
        let (report, reports) = channel();
        let mut members = Self {
            children: Vec::new(),
            sockets: Vec::new(),
            reports,
            addresses: vec![None; count],
            failures: Vec::new(),
            clock,
        };
        for process in 0..count {
            let (mine, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
            let child = Command::new(&me)
                .args(std::env::args_os().skip(1))
                .arg("--member")
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .spawn()
                .with_context(|| format!("cannot start process {process}"))?;
            members.children.push(child);
            let (lines, report) = (mine.try_clone()?, report.clone());
            std::thread::spawn(move || read(process, lines, &report));
            members.sockets.push(mine);
        }
        Ok(members)
    }

    /// Gives all of them the start once they listen, and waits for their end.
    pub fn run(mut self, start: Start, stop: &CancellationToken) -> anyhow::Result<End> {
        while self.addresses.iter().any(Option::is_none) {
            if stop.is_cancelled() {
                return Ok(End::NotBegun);
            }
            self.collect(POLL);
            for process in 0..self.children.len() {
                if let Some(status) = self.children[process].try_wait()? {
                    return Ok(exited(process, status));
                }
            }
        }
        let addresses: Vec<String> = self.addresses.iter().flatten().cloned().collect();
        let secret = Secret::random();
        for process in 0..self.children.len() {
            let (addresses, secret, start) = (addresses.clone(), secret.clone(), start.clone());
            let welcome = Welcome { process, addresses, secret, start };
            self.send(process, &ToMember::Welcome(Box::new(welcome)))?;
        }
        self.wait(stop)
    }

    fn wait(&mut self, stop: &CancellationToken) -> anyhow::Result<End> {
        let mut statuses: Vec<Option<ExitStatus>> = vec![None; self.children.len()];
        let mut failing: Option<Stopwatch> = None;
        let mut stopped = false;
        loop {
            self.collect(POLL);
            for (child, status) in self.children.iter_mut().zip(&mut statuses) {
                *status = child.try_wait()?;
            }
            let failed = !self.failures.is_empty() || statuses.iter().flatten().any(|s| !s.success());
            if failed {
                failing.get_or_insert_with(|| self.clock.start());
            }
            if statuses.iter().all(Option::is_some) || failing.as_ref().is_some_and(|w| w.elapsed() > GRACE) {
                break;
            }
            if stop.is_cancelled() && !stopped {
                stopped = true;
                for process in 0..self.children.len() {
                    // One that has ended needs no message.
                    let _ = self.send(process, &ToMember::Stop);
                }
            }
        }
        self.kill();
        // What they wrote before their end may still be on its way.
        while self.collect(Duration::from_secs(2)) {}
        Ok(self.end(&statuses))
    }

    /// The cause, where one was reported; else what is known of the process that was lost.
    fn end(&mut self, statuses: &[Option<ExitStatus>]) -> End {
        let failed = |status: &Option<ExitStatus>| status.filter(|s| !s.success());
        let lost_one = |error: &JobError| matches!(error, JobError::Lost { .. });
        let cause = self.failures.iter().find(|e| !lost_one(e)).or(self.failures.first()).cloned();
        match cause {
            Some(JobError::Lost { process, reason }) => {
                // A process killed from outside says nothing; its exit status does.
                let killed = |s: &ExitStatus| s.code().is_none();
                let status = statuses.get(process).and_then(failed).filter(killed);
                End::Failed(status.map_or(JobError::Lost { process, reason }, |s| lost(process, s)))
            }
            Some(error) => End::Failed(error),
            None => match statuses.iter().enumerate().find_map(|(p, s)| failed(s).map(|s| (p, s))) {
                Some((process, status)) => exited(process, status),
                None => End::Done,
            },
        }
    }

    /// Takes the reports that come within `patience`; false when all members have closed their sockets, or nothing came.
    fn collect(&mut self, patience: Duration) -> bool {
        let first = self.reports.recv_timeout(patience);
        let disconnected = matches!(first, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
        if disconnected {
            std::thread::sleep(POLL);
        }
        let came = first.is_ok();
        for (process, report) in first.into_iter().chain(self.reports.try_iter()) {
            match report {
                FromMember::Listening { address } => self.addresses[process] = Some(address),
                FromMember::Failed { error } => self.failures.push(error),
            }
        }
        came
    }

    fn send(&mut self, process: usize, message: &ToMember) -> anyhow::Result<()> {
        let line = serde_json::to_string(message)?;
        match writeln!(self.sockets[process], "{line}") {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(e).with_context(|| format!("process {process} cannot be reached"))
            }
            // Its exit status says more.
            _ => Ok(()),
        }
    }

    fn kill(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(process: usize, lines: UnixStream, report: &Sender<(usize, FromMember)>) {
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(message) => drop(report.send((process, message))),
            Err(error) => tracing::warn!(process, %error, "a report of a process cannot be read"),
        }
    }
}
