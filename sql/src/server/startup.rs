//! How a connection begins: is there room, is it encrypted where it must be, who is it.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::sasl::SASLAuthStartupHandler;
use datafusion_postgres::pgwire::api::auth::sasl::scram::ScramAuth;
use datafusion_postgres::pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::{
    ClientInfo, METADATA_USER, PgWireConnectionState, PidSecretKeyGenerator,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::Sink;
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::connection::Connection;
use super::settings::Settings;
use super::version::SERVER_VERSION;
use super::{Access, Passwords, Shared, fault};

type Scram = SASLAuthStartupHandler<DefaultServerParameterProvider>;

/// Begins one connection.
pub(super) struct Startup {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    settings: Arc<Settings>,
    peer: SocketAddr,
    /// Made at the first message: what it offers depends on whether the connection is encrypted.
    scram: Mutex<Option<Arc<Scram>>>,
    /// Held as long as the connection.
    slot: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Startup {
    pub(super) fn new(
        shared: Arc<Shared>,
        connection: Arc<Connection>,
        settings: Arc<Settings>,
        peer: SocketAddr,
    ) -> Self {
        Self { shared, connection, settings, peer, scram: Mutex::default(), slot: Mutex::default() }
    }

    async fn admit(&self, secure: bool) -> PgWireResult<()> {
        if self.shared.tls.is_some() && !secure && !self.peer.ip().is_loopback() {
            return Err(fault::fatal(
                "28000",
                "this server takes encrypted connections only: use sslmode=require",
            ));
        }
        let mut slot = self.slot.lock().await;
        if slot.is_none() {
            let free = self.shared.slots.clone().try_acquire_owned();
            *slot = Some(free.map_err(|_| {
                let max = self.shared.connections_max;
                fault::fatal("53300", format!("sorry, too many clients already: {max} are connected"))
            })?);
        }
        Ok(())
    }

    async fn scram(&self, passwords: &Passwords, secure: bool) -> PgWireResult<Arc<Scram>> {
        let mut made = self.scram.lock().await;
        if let Some(scram) = made.as_ref() {
            return Ok(scram.clone());
        }
        let mut auth = ScramAuth::new(Arc::new(passwords.clone()));
        // A client that is offered channel binding in the clear takes it for an attack.
        if let Some(tls) = self.shared.tls.as_ref().filter(|_| secure)
            && let Err(error) = auth.configure_certificate(&tls.pem)
        {
            tracing::debug!("no channel binding with this certificate: {error}");
        }
        let handler = SASLAuthStartupHandler::new(Arc::new(parameters()))
            .with_scram(auth)
            .with_pid_secret_key_generator(self.shared.pids.clone());
        let scram = Arc::new(handler);
        *made = Some(scram.clone());
        Ok(scram)
    }
}

/// What the server tells of itself.
fn parameters() -> DefaultServerParameterProvider {
    let mut parameters = DefaultServerParameterProvider::default();
    parameters.server_version = SERVER_VERSION.to_owned();
    parameters.is_superuser = false;
    parameters.default_transaction_read_only = true;
    parameters.time_zone = "UTC".to_owned();
    parameters
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.admit(client.is_secure()).await?;
        match &self.shared.access {
            Access::Trust => {
                let PgWireFrontendMessage::Startup(ref startup) = message else { return Ok(()) };
                protocol_negotiation(client, startup).await?;
                save_startup_parameters_to_metadata(client, startup);
                let (pid, secret) = self.shared.pids.generate(client);
                client.set_pid_and_secret_key(pid, secret);
                finish_authentication(client, &parameters()).await?;
            }
            Access::Passwords(passwords) => {
                let scram = self.scram(passwords, client.is_secure()).await?;
                let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
                scram.on_startup(client, message).await.map_err(|error| match error {
                    // By SCRAM the client names itself a second time, and libpq leaves that empty.
                    PgWireError::InvalidPassword(_) => {
                        tracing::warn!(peer = %self.peer, user, "password authentication failed");
                        fault::fatal("28P01", format!("password authentication failed for user \"{user}\""))
                    }
                    other => other,
                })?;
            }
        }
        if matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            let (pid, secret) = client.pid_and_secret_key();
            self.shared.cancels.remember(pid, &secret, &self.connection);
            self.settings.begin(client.metadata());
        }
        Ok(())
    }
}
