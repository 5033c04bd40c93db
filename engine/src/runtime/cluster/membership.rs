//! How the processes of a job meet: each connects to those before it and accepts those after it.
//!
//! Every accepted connection does its handshake in a task of its own, within a limit of time, so that a stranger who says
//! nothing, or garbage, holds up nobody.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::handshake::{Identity, Kind};
use super::{Cluster, Timing};
use crate::runtime::job::JobError;

/// Handshakes at a time; connections beyond that wait in the kernel.
const HANDSHAKES_MAX: usize = 256;
/// Pause before the next attempt to connect.
const RETRY: Duration = Duration::from_millis(50);

/// Connections by process, all authenticated.
#[derive(Debug, Default)]
pub struct Connections {
    /// For timely's messages.
    pub data: BTreeMap<usize, TcpStream>,
    /// For the control plane: at process 0 those of all others, elsewhere that to process 0.
    pub control: BTreeMap<usize, TcpStream>,
}

impl Connections {
    fn insert(&mut self, process: usize, kind: Kind, stream: TcpStream) {
        match kind {
            Kind::Data => self.data.insert(process, stream),
            Kind::Control => self.control.insert(process, stream),
        };
    }

    fn missing(&self, me: &Identity) -> Option<usize> {
        let others = (0..me.processes).filter(|p| *p != me.process);
        let complete = |p: usize| {
            let controlled = (me.process != 0 && p != 0) || self.control.contains_key(&p);
            self.data.contains_key(&p) && controlled
        };
        others.into_iter().find(|p| !complete(*p))
    }
}

/// Meets all other processes.
pub async fn meet(cluster: &Cluster, listener: TcpListener, me: Identity) -> Result<Connections, JobError> {
    let timing = cluster.timing;
    let me = Arc::new(me);
    let (found, mut arrivals) = mpsc::unbounded_channel();
    // Dropping the set ends the tasks: the port is closed when all have met.
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, me.clone(), timing, found.clone()));
    for target in 0..me.process {
        let address = cluster.addresses[target].clone();
        tasks.spawn(connect(address, target, Kind::Data, me.clone(), timing, found.clone()));
    }
    if me.process != 0 {
        let address = cluster.addresses[0].clone();
        tasks.spawn(connect(address, 0, Kind::Control, me.clone(), timing, found.clone()));
    }
    let mut connections = Connections::default();
    let meeting = async {
        while connections.missing(&me).is_some() {
            match arrivals.recv().await {
                Some((process, kind, stream)) => connections.insert(process, kind, stream),
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(timing.start, meeting).await;
    match connections.missing(&me) {
        None => Ok(connections),
        Some(process) => {
            Err(JobError::Lost { process, reason: format!("no connection to it within {:?}", timing.start) })
        }
    }
}

type Found = mpsc::UnboundedSender<(usize, Kind, TcpStream)>;

async fn accept(listener: TcpListener, me: Arc<Identity>, timing: Timing, found: Found) {
    let limit = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(permit) = limit.clone().acquire_owned().await else { return };
        let (mut stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, or a connection that was gone again at once.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let (me, found) = (me.clone(), found.clone());
        handshakes.spawn(async move {
            let _permit = permit;
            let _ = stream.set_nodelay(true);
            let outcome = limited(timing.handshake, me.accept(&mut stream)).await;
            match outcome {
                Ok((process, kind)) => drop(found.send((process, kind, stream))),
                Err(error) => tracing::warn!(%from, %error, "a connection was dropped in its handshake"),
            }
        });
    }
}

async fn connect(
    address: String,
    target: usize,
    kind: Kind,
    me: Arc<Identity>,
    timing: Timing,
    found: Found,
) {
    let mut warned = false;
    loop {
        let attempt = async {
            let mut stream = TcpStream::connect(&address).await?;
            let _ = stream.set_nodelay(true);
            me.connect(&mut stream, target, kind).await?;
            Ok(stream)
        };
        match limited(timing.handshake, attempt).await {
            Ok(stream) => {
                let _ = found.send((target, kind, stream));
                return;
            }
            // The other process may not listen yet.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if !warned => {
                warned = true;
                tracing::warn!(process = target, address, %error, "no connection yet; it is tried again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn limited<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("it took longer than {limit:?}"))),
    }
}
