//! Messages of the control plane: JSON behind a length, limited in size.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::runtime::job::JobError;

/// Largest message.
pub const BYTES_MAX: usize = 1 << 20;

/// What processes say to each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The sender is alive.
    Heartbeat,
    /// The run has failed.
    Failed { error: JobError },
    /// To process 0: the sinks of the sender are open.
    Opened { horizon: Option<i64> },
    /// From process 0: the sinks of all are open.
    AllOpened { horizon: Option<i64> },
    /// To process 0: the sender has nothing left to do.
    Done,
    /// From process 0: the run has ended everywhere.
    AllDone,
}

/// Writes a message.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), message: &Message) -> io::Result<()> {
    let json = serde_json::to_vec(message).map_err(io::Error::other)?;
    if json.len() > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {} bytes", json.len())));
    }
    let mut frame = Vec::with_capacity(4 + json.len());
    frame.extend_from_slice(&(json.len() as u32).to_be_bytes());
    frame.extend_from_slice(&json);
    to.write_all(&frame).await?;
    to.flush().await
}

/// Reads a message.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let length = from.read_u32().await? as usize;
    if length > BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes, more than {BYTES_MAX}"),
        ));
    }
    let mut json = vec![0; length];
    from.read_exact(&mut json).await?;
    serde_json::from_slice(&json).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
