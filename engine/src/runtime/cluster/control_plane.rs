//! The control plane: heartbeats, failures, the opening barrier and the end of a run, between process 0 and all others.
//!
//! It runs on a thread of its own, so that a connector that blocks the async runtime does not look like a lost process.
//! The first failure wins. A lost connection becomes a failure only after a grace, in which its cause may still arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use super::frame::{self, Message};
use super::handshake::Identity;
use super::membership::{Connections, meet};
use super::{Cluster, Link, Timing};
use crate::runtime::control::Shared;
use crate::runtime::job::JobError;

/// Longest time for the last messages to reach the other processes.
const LEAVE: Duration = Duration::from_secs(3);

/// What comes from another process.
#[derive(Debug)]
pub enum Event {
    /// A message.
    Got(Message),
    /// Its connection is gone, or it is silent.
    Gone(String),
}

type Events = UnboundedSender<(usize, Event)>;

/// The running control plane of this process.
#[derive(Debug)]
pub struct ControlPlane {
    thread: std::thread::JoinHandle<()>,
    done: UnboundedSender<()>,
}

impl ControlPlane {
    /// Meets the other processes, then runs beside the dataflow.
    pub fn start(
        cluster: &Cluster,
        listener: TcpListener,
        shared: &Arc<Shared>,
    ) -> Result<(Vec<Option<Link>>, Self), JobError> {
        let setup = |what: &str, e: std::io::Error| JobError::Setup(format!("{what}: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| setup("the control plane's runtime cannot start", e))?;
        let (done, done_seen) = mpsc::unbounded_channel();
        let (links_found, links) = blocking::channel();
        let (cluster, shared) = (cluster.clone(), shared.clone());
        let thread = std::thread::Builder::new()
            .name("tidemill-control".into())
            .spawn(move || {
                runtime.block_on(async move {
                    let (sender, events) = mpsc::unbounded_channel();
                    let met = join(&cluster, listener, &sender).await;
                    let (control, met) = match met {
                        Ok((links, control)) => (Some(control), Ok(links)),
                        Err(error) => (None, Err(error)),
                    };
                    let _ = links_found.send(met);
                    if let Some(control) = control {
                        Plane::new(&cluster, shared, control, sender).run(events, done_seen).await;
                    }
                });
            })
            .map_err(|e| setup("the control plane's thread cannot start", e))?;
        let links = links.recv().map_err(|_| JobError::Panic("the control plane".into()))??;
        Ok((links, Self { thread, done }))
    }

    /// This process has nothing left to do: waits until no process has, or the run has failed and the others know.
    pub fn finish(self, shared: &Shared) {
        let _ = self.done.send(());
        if self.thread.join().is_err() {
            shared.fail(JobError::Panic("the control plane".into()));
        }
    }
}

async fn join(
    cluster: &Cluster,
    listener: TcpListener,
    events: &Events,
) -> Result<(Vec<Option<Link>>, BTreeMap<usize, TcpStream>), JobError> {
    let failed = |e: std::io::Error| JobError::Setup(format!("a connection cannot be set up: {e}"));
    let me = Identity {
        process: cluster.process,
        processes: cluster.addresses.len(),
        start: cluster.start.start,
        secret: cluster.secret.clone(),
    };
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let Connections { mut data, control } = meet(cluster, listener, me).await?;
    let mut links = Vec::new();
    for process in 0..cluster.addresses.len() {
        let link = match data.remove(&process) {
            None => None,
            Some(stream) => {
                let stream = stream.into_std().map_err(failed)?;
                stream.set_nonblocking(false).map_err(failed)?;
                Some(Link::new(stream, process, events.clone()))
            }
        };
        links.push(link);
    }
    Ok((links, control))
}

struct Plane {
    hub: bool,
    processes: usize,
    timing: Timing,
    shared: Arc<Shared>,
    peers: BTreeMap<usize, UnboundedSender<Message>>,
    readers: JoinSet<()>,
    writers: JoinSet<()>,
    opened: BTreeMap<usize, Option<i64>>,
    done: BTreeSet<usize>,
    gone: BTreeSet<usize>,
    over: bool,
    /// The failure came over the control plane: the others know it.
    known: bool,
    /// Keeps the channel open where all connections are gone.
    _events: Events,
}

impl Plane {
    fn new(
        cluster: &Cluster,
        shared: Arc<Shared>,
        control: BTreeMap<usize, TcpStream>,
        events: Events,
    ) -> Self {
        let timing = cluster.timing;
        let (mut readers, mut writers, mut peers) = (JoinSet::new(), JoinSet::new(), BTreeMap::new());
        for (process, stream) in control {
            let (read, write) = stream.into_split();
            let (to, outbox) = mpsc::unbounded_channel();
            readers.spawn(receive(process, read, events.clone(), timing.silence));
            writers.spawn(send(write, outbox, timing.heartbeat));
            peers.insert(process, to);
        }
        Self {
            hub: cluster.process == 0,
            processes: cluster.addresses.len(),
            timing,
            shared,
            peers,
            readers,
            writers,
            opened: BTreeMap::new(),
            done: BTreeSet::new(),
            gone: BTreeSet::new(),
            over: false,
            known: false,
            _events: events,
        }
    }

    async fn run(mut self, mut events: UnboundedReceiver<(usize, Event)>, mut done: UnboundedReceiver<()>) {
        let shared = self.shared.clone();
        let (mut opening, mut finished) = (false, false);
        let mut lost: Option<(tokio::time::Instant, JobError)> = None;
        while !self.over {
            let grace = async {
                match &lost {
                    Some((at, _)) => tokio::time::sleep_until(*at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shared.failing.cancelled() => break,
                event = events.recv() => match event {
                    Some((process, Event::Got(message))) => self.take(process, message),
                    Some((process, Event::Gone(reason))) => {
                        tracing::debug!(process, reason, "a process is lost");
                        self.gone.insert(process);
                        let until = tokio::time::Instant::now() + self.timing.grace;
                        lost.get_or_insert((until, JobError::Lost { process, reason }));
                    }
                    None => break,
                },
                () = shared.opening.local(), if !opening => {
                    opening = true;
                    let horizon = shared.opening.horizon();
                    if self.hub {
                        self.opened(0, horizon);
                    } else {
                        self.say(&Message::Opened { horizon });
                    }
                }
                // A sender that was dropped has given up: its failure says so.
                Some(()) = done.recv(), if !finished => {
                    finished = true;
                    if self.hub {
                        self.ended(0);
                    } else {
                        self.say(&Message::Done);
                    }
                }
                () = grace => {
                    if let Some((_, error)) = lost.take() {
                        shared.fail(error);
                    }
                }
            }
        }
        if let Some(error) = shared.failure()
            && !self.known
        {
            self.say(&Message::Failed { error });
            let _ = tokio::time::timeout(LEAVE, self.heard(&mut events)).await;
        }
        // Without senders, the writers end after their last message.
        self.peers.clear();
        let writers = &mut self.writers;
        let _ = tokio::time::timeout(LEAVE, async { while writers.join_next().await.is_some() {} }).await;
        self.readers.abort_all();
    }

    /// The others have got the failure: process 0 answers with its own, the rest leave.
    async fn heard(&mut self, events: &mut UnboundedReceiver<(usize, Event)>) {
        while self.peers.keys().any(|p| !self.gone.contains(p)) {
            match events.recv().await {
                Some((process, Event::Gone(_))) => drop(self.gone.insert(process)),
                Some((_, Event::Got(Message::Failed { .. }))) if !self.hub => return,
                Some(_) => {}
                None => return,
            }
        }
    }

    fn say(&self, message: &Message) {
        for peer in self.peers.values() {
            let _ = peer.send(message.clone());
        }
    }

    fn take(&mut self, process: usize, message: Message) {
        match message {
            Message::Heartbeat => {}
            Message::Failed { error } => {
                // Process 0 passes it on to all; whoever gets it from there has no one to tell.
                self.known = !self.hub;
                self.shared.fail(error);
            }
            Message::Opened { horizon } if self.hub => self.opened(process, horizon),
            Message::AllOpened { horizon } if !self.hub => self.shared.opening.release(horizon),
            Message::Done if self.hub => self.ended(process),
            Message::AllDone if !self.hub => self.over = true,
            other => tracing::warn!(process, ?other, "an unexpected message of the control plane"),
        }
    }

    fn opened(&mut self, process: usize, horizon: Option<i64>) {
        self.opened.insert(process, horizon);
        if self.opened.len() == self.processes {
            let horizon = self.opened.values().flatten().max().copied();
            self.say(&Message::AllOpened { horizon });
            self.shared.opening.release(horizon);
        }
    }

    fn ended(&mut self, process: usize) {
        self.done.insert(process);
        if self.done.len() == self.processes {
            self.say(&Message::AllDone);
            self.over = true;
        }
    }
}

async fn receive(process: usize, mut from: OwnedReadHalf, events: Events, silence: Duration) {
    loop {
        let event = match tokio::time::timeout(silence, frame::read(&mut from)).await {
            Ok(Ok(Message::Heartbeat)) => continue,
            Ok(Ok(message)) => Event::Got(message),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                Event::Gone("its control connection was closed".into())
            }
            Ok(Err(e)) => Event::Gone(format!("its control connection broke: {e}")),
            Err(_) => Event::Gone(format!("it has sent nothing for {silence:?}")),
        };
        let over = matches!(event, Event::Gone(_));
        if events.send((process, event)).is_err() || over {
            return;
        }
    }
}

async fn send(mut to: OwnedWriteHalf, mut outbox: UnboundedReceiver<Message>, heartbeat: Duration) {
    loop {
        let message = match tokio::time::timeout(heartbeat, outbox.recv()).await {
            Ok(None) => return,
            Ok(Some(message)) => message,
            Err(_) => Message::Heartbeat,
        };
        // A connection that is gone is reported by its reader.
        if frame::write(&mut to, &message).await.is_err() {
            return;
        }
    }
}
