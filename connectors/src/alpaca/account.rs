//! Reports of an Alpaca account as a source: what the venue says of orders and of the account.
//!
//! One partition. What the venue says is put into a log before it is emitted ([`report_log`](crate::broker::report_log)); so the
//! source is a log that a restart reads again, though the venue says things once. `_seq` is the report's number in the log, `ts` the time
//! at which it was put there, never going back; `at` is the venue's own time.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;
use tidemill_engine::source::{Source, SourceContext};

use super::trading::Access;
use crate::broker::place::Place;
use crate::broker::reports;

mod bookings;
mod catch_up;
mod known;
mod run;

/// Reports of an Alpaca account: what `execution` reads as `reports`.
///
/// On start and after each reconnect it listens to the venue's stream of trade updates first, and then asks for what it may have missed:
/// executions, orders that have ended, bookings; and tells the account as a whole (`snapshot_begin` to `snapshot_end`), read
/// while nothing moved. What comes twice is told once. Executions cost nothing at Alpaca; fees of regulators are booked
/// later, and told as `cash`. Splits are told as `split`; other bookings of units (mergers, spin-offs, …) as `alert`, and by the snapshot that follows.
///
/// Refusals that the venue answered to the `alpaca` sink, and orders that the sink did not send, are in no stream of the venue's: they are
/// read from the sink's journal, so both must have the same `journal`: a folder of the machine that both run on, or a place in object storage.
///
/// The rows' columns and events are in the manual under *Brokers*. While nothing is said, a `heartbeat` row lets time pass: operators
/// that read this stream beside market data wait for it at most that long.
///
/// ```yaml
/// sources:
///   reports:
///     kind: alpaca_account
///     with:
///       key: "${APCA_API_KEY_ID:-none}"
///       secret: "${APCA_API_SECRET_KEY:-none}"
/// ```
// Without Debug: it holds secrets.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// API key id: `${ENV}` or `file:PATH`. A paper account has its own.
    pub key: String,
    /// API secret key: `${ENV}` or `file:PATH`.
    pub secret: String,
    /// `true`: the live account, with real money. Default: the paper account.
    #[serde(default)]
    pub live: bool,
    /// Another address than the venue's, `http://` or `https://`: a server for tests. The stream is at `/stream` of it.
    #[serde(default)]
    pub url: Option<String>,
    /// Requests a minute that this source makes at most. An account has 200, which the source and the sink share: 50 and 150 by default.
    #[serde(default = "requests_per_minute")]
    pub requests_per_minute: u32,
    /// Where the sink's journal and this source's log are: a folder, relative to the graph's, or a place in object storage (`s3://…`, `gs://…`,
    /// `az://…`), which outlives this machine. Default: `.tidemill/JOB/alpaca`.
    #[serde(default)]
    pub journal: Option<String>,
    /// While nothing is said, a row says so this often.
    #[serde(default = "heartbeat")]
    pub heartbeat: Span,
    /// How often bookings are asked for and the account is compared, beside start and reconnects.
    #[serde(default = "snapshot_every")]
    pub snapshot_every: Span,
    /// Longest wait for an answer.
    #[serde(default = "timeout")]
    pub timeout: Span,
}

fn requests_per_minute() -> u32 {
    super::trading::SOURCE_REQUESTS_PER_MINUTE
}
fn heartbeat() -> Span {
    Span::from_ns(10_000_000)
}
fn snapshot_every() -> Span {
    Span::from_ns(600_000_000_000)
}
fn timeout() -> Span {
    Span::from_ns(10_000_000_000)
}

/// The folder of the journal and the log.
pub fn journal_folder(journal: Option<&str>, cx: &PlanContext) -> Result<Place, Problem> {
    match journal {
        Some(url) => Place::parse(url, &cx.base, "journal"),
        None => Ok(Place::Local(cx.base.join(".tidemill").join(&cx.job).join("alpaca"))),
    }
}

/// The kind.
pub struct AlpacaAccount;

#[async_trait]
impl SourceKind for AlpacaAccount {
    const KIND: &'static str = "alpaca_account";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let access = Access {
            key: params.key.clone(),
            secret: params.secret.clone(),
            live: params.live,
            url: params.url.clone(),
            requests_per_minute: params.requests_per_minute,
        };
        let mut problems = access.problems();
        let folder = journal_folder(params.journal.as_deref(), cx).map_err(|found| problems.push(found)).ok();
        let milli = Span::from_ns(1_000_000);
        for (at, span) in [
            ("heartbeat", params.heartbeat),
            ("snapshot_every", params.snapshot_every),
            ("timeout", params.timeout),
        ] {
            if span < milli {
                problems.push(Problem::new(at, "must be 1ms or more"));
            }
        }
        let Some(folder) = folder.filter(|_| problems.is_empty()) else { return Err(problems) };
        Ok(SourcePlan {
            columns: reports::columns(),
            partitions: Partitions::Single,
            bounded: false,
            replayable: true,
            source: Arc::new(AccountSource { access, folder, node: cx.node.clone(), params }),
        })
    }
}

struct AccountSource {
    access: Access,
    folder: Place,
    node: String,
    params: Params,
}

#[async_trait]
impl Source for AccountSource {
    fn kept_here(&self) -> Option<String> {
        self.folder.local().map(|folder| folder.display().to_string())
    }

    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        run::run(self, cx).await
    }
}
