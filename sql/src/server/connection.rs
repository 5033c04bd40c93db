//! What runs on a connection, and how it is ended: by a cancel request (which comes over another
//! connection, with the process id and the secret that this one was given), by the client's going, by the
//! server's end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::pgwire::messages::startup::SecretKey;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// How often a client that has more to say is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A connection's doings.
#[derive(Debug)]
pub(super) struct Connection {
    gone: CancellationToken,
    /// Cancelled by a cancel request; anew for each statement.
    running: Mutex<CancellationToken>,
}

impl Connection {
    /// `gone` is cancelled when the client has gone or the server ends.
    pub(super) fn new(gone: CancellationToken) -> Self {
        let running = Mutex::new(gone.child_token());
        Self { gone, running }
    }

    /// A statement begins: the token ends it.
    pub(super) fn start(&self) -> CancellationToken {
        let token = self.gone.child_token();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
        token
    }

    fn cancel(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }
}

/// What a cancel request names: process id and secret.
type Key = (i32, Vec<u8>);

/// Connections by what a cancel request knows of them.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    known: Mutex<HashMap<Key, Arc<Connection>>>,
}

impl Cancels {
    pub(super) fn remember(&self, pid: i32, secret: &SecretKey, connection: &Arc<Connection>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((pid, secret.to_bytes().to_vec()), connection.clone());
    }

    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, other| !Arc::ptr_eq(other, connection));
    }
}

#[async_trait]
impl CancelHandler for Cancels {
    async fn on_cancel_request(&self, request: CancelRequest) {
        let key = (request.pid, request.secret_key.to_bytes().to_vec());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(connection) = known {
            connection.cancel();
        }
    }
}

/// Two handles on one socket.
pub(super) fn split(socket: TcpStream) -> std::io::Result<(TcpStream, TcpStream)> {
    socket.set_nodelay(true)?;
    let socket = socket.into_std()?;
    let other = socket.try_clone()?;
    Ok((TcpStream::from_std(socket)?, TcpStream::from_std(other)?))
}

/// Returns when the client has gone. Reads nothing.
pub(super) async fn watch(socket: TcpStream, gone: CancellationToken) {
    let mut first = [0];
    loop {
        let looked = tokio::select! {
            () = gone.cancelled() => return,
            looked = socket.peek(&mut first) => looked,
        };
        match looked {
            Ok(0) | Err(_) => return,
            // Bytes that the protocol's loop has yet to read: the end is behind them.
            Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}
