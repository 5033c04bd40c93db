//! Several processes of one job on this machine: one starts, watches and restarts the others.
//!
//! The launcher finds where the run begins (so that all members agree) and hands it to each on its
//! standard input, which stays open: when it closes, the launcher is gone and the member ends at
//! once. If any member fails, all are ended and start again together from the last checkpoint.

use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tidemill_engine::checkpoint::{CheckpointStore, StartFrom};
use tidemill_engine::plan::Plan;
use tidemill_engine::runtime::{Cluster, RunOptions, Start, begin, close};
use tokio_util::sync::CancellationToken;

use crate::commands::run::{Args, HowArgs, ShowProgress, run_plan, runtime, stop_on_signal};

/// What a member is told on its standard input, in one line.
#[derive(Serialize, Deserialize)]
struct Welcome {
    process: usize,
    addresses: Vec<String>,
    start: Start,
}

/// Exit code of a member whose failure may pass.
const MAY_PASS: u8 = 75;
/// Restarts of all members in a row.
const RESTARTS_MAX: u32 = 10;

/// Starts the members of a job and waits for them.
pub fn launch(args: &Args, plan: Plan, options: RunOptions) -> anyhow::Result<ExitCode> {
    let runtime = runtime(1)?;
    let stop = CancellationToken::new();
    runtime.spawn(stop_on_signal(stop.clone()));
    let store = match &options.checkpoints {
        None => None,
        Some(c) => {
            let location = tidemill_engine::storage::open(&c.url, &c.base)?;
            Some(CheckpointStore::new(location, &plan.job, c.keep))
        }
    };
    let mut from = args.how.from;
    let (mut attempt, mut begun_at) = (0, None);
    loop {
        let start = runtime.block_on(begin(&plan, store.as_ref(), from, &options.clock))?;
        let generation = start.generation;
        // Failures count while nothing is committed between them.
        if begun_at.replace(start.checkpoint) != Some(start.checkpoint) {
            attempt = 0;
        }
        let mut members = Members::start(args, start)?;
        let end = members.wait(&stop)?;
        drop(members);
        match end {
            End::Done => {
                if let Some(store) = &store {
                    runtime.block_on(close(store, generation, &options.clock))?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            End::Failed => return Ok(ExitCode::FAILURE),
            End::MayPass(what) if store.is_none() || stop.is_cancelled() => bail!("{what}"),
            End::MayPass(what) if attempt == RESTARTS_MAX => {
                bail!("job `{}` failed {attempt} times in a row, the last time because {what}", plan.job)
            }
            End::MayPass(what) => {
                let wait = Duration::from_millis(200 << attempt.min(6));
                attempt += 1;
                tracing::warn!(what, attempt, "all processes restart from the last checkpoint");
                std::thread::sleep(wait);
            }
        }
        from = StartFrom::Latest;
    }
}

enum End {
    Done,
    Failed,
    MayPass(String),
}

struct Members(Vec<Child>);

impl Members {
    fn start(args: &Args, start: Start) -> anyhow::Result<Self> {
        let addresses = free_addresses(args.how.processes.into())?;
        let me = std::env::current_exe().context("cannot find this program's file")?;
        let mut members = Self(Vec::new());
        for process in 0..addresses.len() {
            let mut child = Command::new(&me)
                .args(std::env::args_os().skip(1))
                .arg("--member")
                .stdin(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start process {process}"))?;
            let welcome = Welcome { process, addresses: addresses.clone(), start: start.clone() };
            if let Some(stdin) = &mut child.stdin {
                writeln!(stdin, "{}", serde_json::to_string(&welcome)?)?;
            }
            members.0.push(child);
        }
        Ok(members)
    }

    fn wait(&mut self, stop: &CancellationToken) -> anyhow::Result<End> {
        let mut told = false;
        loop {
            let mut done = 0;
            for (process, child) in self.0.iter_mut().enumerate() {
                match child.try_wait()? {
                    None => {}
                    Some(status) if status.success() => done += 1,
                    Some(status) if status.code().is_some_and(|c| c != i32::from(MAY_PASS) && c != 101) => {
                        return Ok(End::Failed);
                    }
                    Some(status) => {
                        return Ok(End::MayPass(format!("process {process} ended: {status}")));
                    }
                }
            }
            if done == self.0.len() {
                return Ok(End::Done);
            }
            if stop.is_cancelled() && !told {
                told = true;
                for stdin in self.0.iter_mut().filter_map(|c| c.stdin.as_mut()) {
                    let _ = writeln!(stdin, "stop");
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_addresses(count: usize) -> anyhow::Result<Vec<String>> {
    // All are held until all are known, so that no two are the same.
    let listeners: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let listeners = listeners.context("cannot find free ports")?;
    Ok(listeners.iter().map(|l| l.local_addr().map(|a| a.to_string())).collect::<Result<_, _>>()?)
}

/// Runs as one of several processes.
pub fn member(plan: Plan, mut options: RunOptions, how: &HowArgs) -> anyhow::Result<ExitCode> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("the launcher is gone")?;
    let welcome: Welcome = serde_json::from_str(&line).context("the launcher sent no welcome")?;
    // A lost peer shows as a panic of timely's network threads: the launcher restarts everybody.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name().is_some_and(|n| n.starts_with("timely:")) {
            tracing::debug!(%info, "a peer is gone");
        } else {
            report(info);
        }
        std::process::exit(MAY_PASS.into());
    }));
    let first = welcome.process == 0;
    options.cluster =
        Some(Cluster { process: welcome.process, addresses: welcome.addresses, start: welcome.start });
    let runtime = runtime(options.workers)?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            match line {
                Ok(word) if word == "stop" => told.cancel(),
                _ => break,
            }
        }
        std::process::exit(MAY_PASS.into());
    });
    // Ctrl-C reaches every process of the terminal; the launcher passes it on.
    runtime.spawn(async {
        loop {
            let _ = tokio::signal::ctrl_c().await;
        }
    });
    let show = if first { how.progress } else { ShowProgress::Off };
    match run_plan(plan, &options, &runtime, stop, show) {
        Ok(code) => Ok(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            let passes =
                error.downcast_ref::<tidemill_engine::runtime::JobError>().is_some_and(|e| e.may_pass());
            std::process::exit(if passes { MAY_PASS.into() } else { 1 });
        }
    }
}
