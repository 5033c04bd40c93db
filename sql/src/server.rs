//! The Postgres wire server: psql, Grafana and drivers ask the archive as they would a Postgres.
//!
//! Read-only. A client proves itself by SCRAM-SHA-256, so no password crosses the wire, or is trusted on
//! loopback. Each connection has its own settings; all share one engine, its tables and its memory
//! limit. What is running ends when the client cancels it, its time is up, the client is gone, or the server
//! stops; rows go out as they are computed, no faster than the client takes them.
//!
//! Protocol: <https://www.postgresql.org/docs/current/protocol.html>, by pgwire. The catalog that `\d` and
//! BI tools read (`pg_catalog`) and the encoding of rows are datafusion-postgres's.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_postgres::pgwire::api::RandomPidSecretKeyGenerator;
use datafusion_postgres::pgwire::tokio::{TlsAcceptor, process_socket};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{CATALOG, Engine};
use connection::{Cancels, Connection};
use session::Handlers;

mod command;
mod connection;
mod encode;
mod fault;
mod passwords;
mod planner;
mod session;
mod settings;
mod startup;
mod tls;
mod version;

pub use passwords::Passwords;
pub use tls::TlsFiles;

/// How long clients may take to go when the server stops.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long to wait when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at once, by default.
pub const CONNECTIONS_MAX: usize = 100;

/// Who may connect.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody; on loopback addresses only.
    Trust,
    /// Users with their passwords.
    Passwords(Passwords),
}

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may connect.
    pub access: Access,
    /// Certificate and key. With them, only loopback may connect in the clear.
    pub tls: Option<TlsFiles>,
    /// Connections at once.
    pub connections_max: usize,
    /// How long a statement may take, unless its client sets `statement_timeout`; `None`: for ever.
    pub statement_timeout: Option<Duration>,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// `--trust` beyond loopback.
    #[error(
        "without passwords the server listens on loopback only, and {0} is reachable from outside; use a password file"
    )]
    TrustOutside(SocketAddr),
    /// The address.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// Certificate or key.
    #[error("TLS: cannot use {}: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The password file.
    #[error("password file {}: {reason}", path.display())]
    Passwords {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tables that clients ask for tables.
    #[error("cannot make pg_catalog: {0}")]
    Catalog(String),
}

/// What connections share.
struct Shared {
    engine: Engine,
    /// Reads what clients ask of `pg_catalog`.
    compat: PostgresCompatibilityParser,
    access: Access,
    tls: Option<tls::Tls>,
    statement_timeout: Option<Duration>,
    connections_max: usize,
    slots: Arc<Semaphore>,
    cancels: Arc<Cancels>,
    pids: Arc<RandomPidSecretKeyGenerator>,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Begins to listen. The engine gets `pg_catalog` and belongs to the server from now on.
    pub async fn bind(engine: Engine, config: ServerConfig) -> Result<Self, ServerError> {
        if matches!(config.access, Access::Trust) && !config.listen.ip().is_loopback() {
            return Err(ServerError::TrustOutside(config.listen));
        }
        let tls = config.tls.as_ref().map(tls::load).transpose()?;
        setup_pg_catalog(engine.context(), CATALOG, EmptyContextProvider)
            .map_err(|e| ServerError::Catalog(e.to_string()))?;
        engine.context().register_udf(version::udf());
        let failed = |e| ServerError::Listen(config.listen, e);
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                "no certificate: passwords are safe by SCRAM, but queries and rows cross the network in the clear"
            );
        }
        let connections_max = config.connections_max.max(1);
        let shared = Shared {
            engine,
            compat: PostgresCompatibilityParser::new(),
            access: config.access,
            tls,
            statement_timeout: config.statement_timeout,
            connections_max,
            slots: Arc::new(Semaphore::new(connections_max)),
            cancels: Arc::default(),
            pids: Arc::default(),
        };
        Ok(Self { listener, address, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then ends what runs, and returns.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let all = stop.child_token();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    tasks.spawn(serve(self.shared.clone(), socket, peer, all.child_token()));
                }
                Err(error) => {
                    tracing::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        all.cancel();
        tasks.close();
        let _ = tokio::time::timeout(FAREWELL, tasks.wait()).await;
    }
}

/// One connection from beginning to end.
async fn serve(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr, gone: CancellationToken) {
    // The protocol's loop does not read while a query runs: a second handle on the socket sees the client go.
    let (socket, watch) = match connection::split(socket) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%peer, "connection is lost: {error}"),
    };
    let acceptor = shared.tls.as_ref().map(|tls| TlsAcceptor::clone(&tls.acceptor));
    let connection = Arc::new(Connection::new(gone.clone()));
    let handlers = Arc::new(Handlers::new(shared.clone(), connection.clone(), peer));
    tracing::debug!(%peer, "connected");
    let ended = tokio::select! {
        ended = process_socket(socket, acceptor, handlers) => ended,
        () = connection::watch(watch, gone.clone()) => Ok(()),
    };
    gone.cancel();
    shared.cancels.forget(&connection);
    match ended {
        Ok(()) => tracing::debug!(%peer, "disconnected"),
        Err(error) => tracing::debug!(%peer, "disconnected: {error}"),
    }
}
