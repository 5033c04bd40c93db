//! A member's side: joins the job, runs its part, reports why it failed.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use tidemill_engine::plan::Plan;
use tidemill_engine::runtime::{Cluster, FailureClass, JobError, RunOptions, Timing};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{FromMember, ToMember};
use crate::commands::run::{HowArgs, ShowProgress, run_plan, runtime};
use crate::stop_requests::StopRequests;

/// Runs as one of several processes.
pub fn member(plan: Plan, mut options: RunOptions, how: &HowArgs) -> anyhow::Result<ExitCode> {
    let runtime = runtime(options.workers)?;
    let stop = CancellationToken::new();
    watch_signals(&runtime, stop.clone())?;
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("standard input is closed")?;
    let mut launcher = UnixStream::from(stdin);
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    let address = listener.local_addr()?.to_string();
    report(&mut launcher, &FromMember::Listening { address }).context("the launcher is gone")?;
    let mut lines = BufReader::new(launcher.try_clone()?).lines();
    let welcome = match lines.next().transpose().context("the launcher is gone")? {
        None => bail!("the launcher is gone"),
        Some(line) => match serde_json::from_str(&line).context("the launcher sent no welcome")? {
            ToMember::Welcome(welcome) => *welcome,
            ToMember::Stop => return Ok(ExitCode::SUCCESS),
        },
    };
    let stopping = stop.clone();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Ok(ToMember::Stop) = serde_json::from_str(&line) {
                stopping.cancel();
            }
        }
        // Without a launcher there is no one to restart the job.
        std::process::exit(FailureClass::Transient.exit_code().into());
    });
    let show = if welcome.process == 0 { how.progress } else { ShowProgress::Off };
    options.cluster = Some(Cluster {
        process: welcome.process,
        addresses: welcome.addresses,
        listener: Some(Arc::new(listener)),
        secret: welcome.secret,
        start: welcome.start,
        timing: Timing::default(),
    });
    let error = match run_plan(plan, &options, &runtime, stop, show) {
        // Threads of timely may still wait for processes that have ended.
        Ok(_) => std::process::exit(0),
        Err(error) => error,
    };
    let code = match error.chain().find_map(|e| e.downcast_ref::<JobError>()) {
        // The launcher prints it, once for all processes.
        Some(failure) => {
            let _ = report(&mut launcher, &FromMember::Failed { error: failure.clone() });
            failure.class().exit_code()
        }
        None => {
            eprintln!("error: {error:#}");
            FailureClass::Fatal.exit_code()
        }
    };
    std::process::exit(code.into());
}

fn report(launcher: &mut UnixStream, message: &FromMember) -> anyhow::Result<()> {
    writeln!(launcher, "{}", serde_json::to_string(message)?)?;
    Ok(())
}

/// SIGTERM stops the whole job in order, whichever process gets it, or all of them; the second ends this process at once.
/// Ctrl-C reaches every process of the terminal: the launcher passes it on.
fn watch_signals(runtime: &tokio::runtime::Runtime, stop: CancellationToken) -> anyhow::Result<()> {
    // Signals are to be caught before the launcher hears of this process.
    let _context = runtime.enter();
    let mut requests = StopRequests::watch_terminate().context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    runtime.spawn(async move { while interrupt.recv().await.is_some() {} });
    runtime.spawn(async move {
        requests.next().await;
        stop.cancel();
        requests.next().await;
        std::process::exit(130);
    });
    Ok(())
}
