//! Serves a capture as its venue did: WebSocket and REST on one port, faults on request.
//!
//! A client that opens a recorded URL (path and query; hosts differ) gets the messages of the first connection that was
//! captured there, the next client those of the next one. Where a connection's capture shows that
//! the client spoke first, the client must speak first. A connection that is lost goes on where it stood when its client comes
//! back, as the venue's time would have; at its end it stays open and silent. A GET of a recorded URL gets the
//! recorded answers in order, the last one again and again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidemill_engine::clock::Clock;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::reader::Capture;
use super::session::{SessionReader, sessions};
use crate::venue::frame::{Frame, FrameKind};

mod faults;
mod http;
mod socket;

pub use faults::{Fault, Faults};

/// How a capture is served.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// How many times faster than it was recorded; `None`: as fast as it is read.
    pub speed: Option<f64>,
    /// What goes wrong.
    pub faults: Faults,
}

/// What was served so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Served {
    /// Clients that opened a WebSocket.
    pub opened: u64,
    /// Messages sent, those that were changed or repeated included.
    pub messages: u64,
    /// REST requests answered.
    pub requests: u64,
    /// Faults that have come, by the message's number.
    pub faults: Vec<(usize, Fault)>,
    /// Texts of clients.
    pub heard: Vec<String>,
    /// Openings that were sent to their end.
    pub ended: u64,
}

/// A captured connection from its opening to its loss.
#[derive(Clone, Debug)]
struct Opening {
    /// The client spoke first.
    waits: bool,
    /// Number among all received messages, time, message.
    messages: Vec<(usize, i64, Bytes)>,
}

/// Where the next client of a URL begins.
#[derive(Debug, Default)]
struct Route {
    openings: Vec<Opening>,
    begun: usize,
    /// Openings that lost their client: which, and its next message.
    left: Vec<(usize, usize)>,
}

#[derive(Debug, Default)]
struct Answers {
    all: Vec<(u16, Bytes)>,
    given: usize,
}

struct State {
    routes: Mutex<BTreeMap<String, Route>>,
    answers: Mutex<BTreeMap<String, Answers>>,
    served: Mutex<Served>,
    options: ServeOptions,
    clock: Clock,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path and query of a URL.
fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find(['/', '?']).map_or("/", |at| &rest[at..]);
    if path.starts_with('?') { format!("/{path}") } else { path.to_owned() }
}

/// A server of captured frames; it stops when it is dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Serves `frames` on `listener`.
    pub fn start(
        frames: impl IntoIterator<Item = Frame>,
        listener: TcpListener,
        options: ServeOptions,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (routes, answers) = arrange(frames);
        let state = Arc::new(State {
            routes: Mutex::new(routes),
            answers: Mutex::new(answers),
            served: Mutex::default(),
            options,
            clock: Clock::System,
            stop: CancellationToken::new(),
        });
        let task = tokio::spawn(accept(listener, state.clone()));
        Ok(Self { address, state, task })
    }

    /// What was served so far.
    pub fn served(&self) -> Served {
        lock(&self.state.served).clone()
    }

    /// Stops listening and cuts every connection.
    pub async fn stop(mut self) {
        self.state.stop.cancel();
        let _ = (&mut self.task).await;
    }

    /// Waits until it is stopped by other means.
    pub async fn wait(mut self) {
        let _ = (&mut self.task).await;
    }

    /// The URLs it knows, by path and query: WebSockets, then REST.
    pub fn urls(&self) -> (Vec<String>, Vec<String>) {
        (
            lock(&self.state.routes).keys().cloned().collect(),
            lock(&self.state.answers).keys().cloned().collect(),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stop.cancel();
    }
}

/// All frames of a capture, in memory.
pub async fn load(capture: &Capture) -> Result<Vec<Frame>, String> {
    let mut frames = Vec::new();
    for session in sessions(capture, 0..capture.files.len()).await {
        let mut reader = SessionReader::new(capture, &session);
        while let Some(more) = reader.next().await {
            frames.extend(more);
        }
        for reason in &reader.torn {
            tracing::warn!("{reason}: what is behind is lost");
        }
    }
    Ok(frames)
}

/// Sorts frames by URL and opening.
fn arrange(frames: impl IntoIterator<Item = Frame>) -> (BTreeMap<String, Route>, BTreeMap<String, Answers>) {
    let mut routes: BTreeMap<String, Route> = BTreeMap::new();
    let mut answers: BTreeMap<String, Answers> = BTreeMap::new();
    // Of each connection, the path and index of its present opening.
    let mut open: BTreeMap<u32, (String, usize)> = BTreeMap::new();
    let mut number = 0;
    for frame in frames {
        let opening =
            open.get(&frame.connection).and_then(|(path, i)| routes.get_mut(path)?.openings.get_mut(*i));
        match frame.kind {
            FrameKind::Opened => {
                let path = path_of(&String::from_utf8_lossy(&frame.data));
                let route = routes.entry(path.clone()).or_default();
                route.openings.push(Opening { waits: false, messages: Vec::new() });
                open.insert(frame.connection, (path, route.openings.len() - 1));
            }
            FrameKind::Closed => drop(open.remove(&frame.connection)),
            FrameKind::Sent => {
                if let Some(opening) = opening {
                    opening.waits = true;
                }
            }
            FrameKind::Received => {
                if let Some(opening) = opening {
                    opening.messages.push((number, frame.received_ns, frame.data));
                }
                number += 1;
            }
            FrameKind::Response { url, status } => {
                answers.entry(path_of(&url)).or_default().all.push((status, frame.data));
            }
        }
    }
    (routes, answers)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = state.stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    clients.spawn(http::client(stream, state.clone()));
                }
                Err(error) => {
                    tracing::warn!("cannot take a client: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}
