//! Several processes of one job: membership, authenticated links, and the control plane that carries failures.
//!
//! Each process listens on its own address. A data link to every other process carries timely's messages; a control
//! connection to process 0 carries heartbeats, failures, the opening barrier and the end. All of them begin with the
//! handshake of `handshake.rs`: bytes of a stranger never reach timely.

mod control_plane;
pub(super) mod frame;
pub(super) mod handshake;
mod link;
mod membership;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::runtime::control::{Shared, Start};
use crate::runtime::job::JobError;

pub use control_plane::ControlPlane;
pub use link::Link;

/// One process of several.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// This process.
    pub process: usize,
    /// `host:port` of every process.
    pub addresses: Vec<String>,
    /// The listener of this process where it is bound already; else `addresses[process]` is bound.
    pub listener: Option<Arc<TcpListener>>,
    /// What the processes of the job, and no others, know.
    pub secret: Secret,
    /// How the run begins, as whoever started the processes has found out.
    pub start: Start,
    /// Limits of time.
    pub timing: Timing,
}

/// Limits of time within a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// A process that sends nothing for so long is lost.
    pub silence: Duration,
    /// Time in which the cause of a lost connection may still arrive.
    pub grace: Duration,
    /// A handshake that takes longer is dropped.
    pub handshake: Duration,
    /// Time in which all processes must have met.
    pub start: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(10),
            grace: Duration::from_secs(1),
            handshake: Duration::from_secs(5),
            start: Duration::from_secs(60),
        }
    }
}

/// The secret of a job. It never prints.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A random one.
    pub fn random() -> Self {
        Self(rand::random::<[u8; 32]>().to_vec())
    }

    /// One given from outside.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Cluster {
    fn listen(&self) -> Result<TcpListener, JobError> {
        let bound = match (&self.listener, self.addresses.get(self.process)) {
            (Some(listener), Some(_)) => listener.try_clone(),
            (None, Some(address)) => TcpListener::bind(address),
            (_, None) => {
                return Err(JobError::Setup(format!(
                    "process {} has no address: {} are given",
                    self.process,
                    self.addresses.len()
                )));
            }
        };
        bound.map_err(|e| JobError::Setup(format!("process {} cannot listen: {e}", self.process)))
    }

    /// Meets the other processes: a link to each of them (`None` for this one), and the control plane.
    pub fn join(&self, shared: &Arc<Shared>) -> Result<(Vec<Option<Link>>, ControlPlane), JobError> {
        ControlPlane::start(self, self.listen()?, shared)
    }
}
