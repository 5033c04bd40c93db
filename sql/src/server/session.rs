//! One connection's questions and answers.

use std::collections::HashSet;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters;
use datafusion_postgres::pgwire::api::auth::StartupHandler;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, PgWireServerHandlers};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use futures::{Sink, StreamExt};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::command::Command;
use super::connection::Connection;
use super::planner::{Planner, Prepared, What, arrays, parameters};
use super::settings::Settings;
use super::startup::Startup;
use super::{Shared, encode, fault};

/// What pgwire asks for the handlers of a connection.
pub(super) struct Handlers {
    startup: Arc<Startup>,
    session: Arc<Session>,
}

impl Handlers {
    pub(super) fn new(shared: Arc<Shared>, connection: Arc<Connection>, peer: SocketAddr) -> Self {
        let settings = Arc::new(Settings::new(shared.statement_timeout));
        let planner = Arc::new(Planner { shared: shared.clone(), settings: settings.clone() });
        Self {
            startup: Arc::new(Startup::new(shared, connection.clone(), settings.clone(), peer)),
            session: Arc::new(Session { planner, connection, settings }),
        }
    }
}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.session.clone()
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        self.session.clone()
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        self.startup.clone()
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        self.session.planner.shared.cancels.clone()
    }
}

/// Answers one connection.
pub(super) struct Session {
    planner: Arc<Planner>,
    connection: Arc<Connection>,
    settings: Arc<Settings>,
}

/// Ends a statement that was cancelled or whose time is up.
struct Watch {
    stop: CancellationToken,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    async fn over<T>(&mut self, work: impl Future<Output = T>) -> PgWireResult<T> {
        let timer = async {
            match &mut self.timer {
                Some(timer) => timer.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(fault::new("57014", "canceling statement due to user request")),
            () = timer => Err(fault::new("57014", "canceling statement due to statement timeout")),
            done = work => Ok(done),
        }
    }
}

impl Session {
    /// Watches over a statement that begins now; `stop` ends it.
    fn watch(&self, stop: CancellationToken) -> Watch {
        let timer = self.settings.timeout().map(|t| Box::pin(tokio::time::sleep(t)));
        Watch { stop, timer }
    }

    /// Nothing but the end of a failed transaction is taken within it.
    fn allowed(&self, what: &What, status: TransactionStatus) -> PgWireResult<()> {
        if !self.settings.begun() {
            return Err(fault::fatal("28000", "not authenticated"));
        }
        match what {
            What::Command(Command::Commit | Command::Rollback) => Ok(()),
            _ if status == TransactionStatus::Error => Err(fault::new(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            )),
            _ => Ok(()),
        }
    }

    fn command(&self, command: &Command, status: TransactionStatus) -> PgWireResult<Response> {
        let done = |tag: &str| Response::Execution(Tag::new(tag));
        Ok(match command {
            Command::Set(setting) => {
                if let Some((name, value)) = setting {
                    self.settings.set(name, value).map_err(|reason| fault::new("22023", reason))?;
                }
                done("SET")
            }
            Command::Reset(name) => {
                self.settings.reset(name.as_deref());
                done("RESET")
            }
            Command::Show(name) => {
                let value = self.settings.show(name).ok_or_else(|| {
                    fault::new("42704", format!("unrecognized configuration parameter \"{name}\""))
                })?;
                Response::Query(encode::show(name, &value)?)
            }
            Command::Begin if status == TransactionStatus::Idle => {
                Response::TransactionStart(Tag::new("BEGIN"))
            }
            Command::Begin => done("BEGIN"),
            Command::Commit if status == TransactionStatus::Error => {
                Response::TransactionEnd(Tag::new("ROLLBACK"))
            }
            Command::Commit => Response::TransactionEnd(Tag::new("COMMIT")),
            Command::Rollback => Response::TransactionEnd(Tag::new("ROLLBACK")),
            Command::Nothing(tag) => done(tag),
        })
    }

    /// Runs a plan; its rows come as they are computed.
    async fn answer(
        &self,
        plan: LogicalPlan,
        sql: Arc<str>,
        format: &Format,
        mut watch: Watch,
    ) -> PgWireResult<QueryResponse> {
        let fields = Arc::new(encode::fields(plan.schema().as_arrow(), format)?);
        let engine = self.planner.shared.engine.clone();
        let begin = async {
            let frame = engine.context().execute_logical_plan(plan).await?;
            frame.execute_stream().await
        };
        let stream = watch.over(begin).await?.map_err(|e| fault::of(&engine.error(&e, &sql), &sql))?;
        let running = Running { stream, watch, engine, sql, over: false };
        let told = fields.clone();
        let rows = futures::stream::unfold(running, |mut running| async move {
            let batch = running.next().await?;
            Some((batch, running))
        })
        .map(move |batch| {
            let rows: Box<dyn Iterator<Item = PgWireResult<_>> + Send> =
                match batch.and_then(|batch| encode::rows(batch, &told)) {
                    Ok(rows) => Box::new(rows),
                    Err(error) => Box::new(std::iter::once(Err(error))),
                };
            futures::stream::iter(rows)
        })
        .flatten();
        Ok(QueryResponse::new(fields, rows))
    }
}

/// The values of a portal's parameters, whose types the plan knows or not.
fn bound(
    portal: &Portal<Arc<Prepared>>,
    mut kinds: Vec<Option<DataType>>,
    arrays: &HashSet<String>,
) -> PgWireResult<ParamValues> {
    let count = portal.parameter_len();
    if count < kinds.len() {
        let message = format!(
            "bind message supplies {count} parameters, but prepared statement requires {}",
            kinds.len()
        );
        return Err(fault::new("08P01", message));
    }
    kinds.resize(count, None);
    // What neither client nor plan gives a type is text; `{A,B}` is an array only where one is asked for.
    for (i, kind) in kinds.iter_mut().enumerate() {
        if !arrays.contains(&format!("${}", i + 1))
            && portal.statement.parameter_types.get(i).is_none_or(Option::is_none)
            && kind.is_none()
        {
            *kind = Some(DataType::Utf8);
        }
    }
    let kinds: Vec<_> = kinds.iter().map(Option::as_ref).collect();
    let values = deserialize_parameters(portal, &kinds)?;
    // A null that is said to be of unknown type is left out there, and would move those behind it.
    match &values {
        ParamValues::List(list) if list.len() != count => {
            Err(fault::new("42P18", "a parameter is null and of unknown type: cast it, such as $1::text"))
        }
        _ => Ok(values),
    }
}

/// A query whose rows are being sent.
struct Running {
    stream: SendableRecordBatchStream,
    watch: Watch,
    engine: crate::engine::Engine,
    sql: Arc<str>,
    over: bool,
}

impl Running {
    async fn next(&mut self) -> Option<PgWireResult<RecordBatch>> {
        if self.over {
            return None;
        }
        let (engine, sql) = (&self.engine, &self.sql);
        let next = match self.watch.over(self.stream.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(batch))) => return Some(Ok(batch)),
            Ok(Some(Err(error))) => Err(fault::of(&engine.error(&error, sql), sql)),
            Err(ended) => Err(ended),
        };
        self.over = true;
        Some(next)
    }
}

#[async_trait]
impl SimpleQueryHandler for Session {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !self.settings.begun() {
            return Err(fault::fatal("28000", "not authenticated"));
        }
        let statements = self.planner.read(query)?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let sql: Arc<str> = query.into();
        let mut status = client.transaction_status();
        let mut answers = Vec::with_capacity(statements.len());
        // A cancel request means all of the text, whichever statement has come to its rows.
        let stop = self.connection.start();
        for statement in statements {
            let mut watch = self.watch(stop.clone());
            let prepared = watch.over(self.planner.prepare(statement, sql.clone())).await??;
            self.allowed(&prepared.what, status)?;
            let answer = match prepared.what {
                What::Command(command) => self.command(&command, status)?,
                What::Query(plan) => {
                    Response::Query(self.answer(*plan, sql.clone(), &Format::UnifiedText, watch).await?)
                }
            };
            match &answer {
                Response::TransactionStart(_) => status = status.to_in_transaction_state(),
                Response::TransactionEnd(_) => status = status.to_idle_state(),
                _ => {}
            }
            answers.push(answer);
        }
        Ok(answers)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Session {
    type Statement = Arc<Prepared>;
    type QueryParser = Planner;

    fn query_parser(&self) -> Arc<Self::QueryParser> {
        self.planner.clone()
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Self::Statement>,
        _: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        let status = client.transaction_status();
        self.allowed(&prepared.what, status)?;
        let told = match &prepared.what {
            What::Command(command) => return self.command(command, status),
            What::Query(plan) => plan,
        };
        let mut watch = self.watch(self.connection.start());
        let sql = &prepared.sql;
        let plan = watch.over(self.planner.plan(&prepared.statement, sql)).await??;
        if plan.schema().as_arrow() != told.schema().as_arrow() {
            return Err(fault::new("0A000", "the table's columns have changed: prepare the statement again"));
        }
        let values = bound(portal, parameters(&plan)?, &arrays(&plan))?;
        let plan = plan
            .replace_params_with_values(&values)
            .map_err(|e| fault::of(&self.planner.shared.engine.error(&e, sql), sql))?;
        Ok(Response::Query(self.answer(plan, sql.clone(), &portal.result_column_format, watch).await?))
    }
}
