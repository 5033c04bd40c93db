//! Orders to Alpaca, each once: see [`broker`](crate::broker).

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_connectors::alpaca::account::journal_folder;
use tidemill_connectors::alpaca::trading::{Access, Client, SINK_REQUESTS_PER_MINUTE};
use tidemill_connectors::broker::journal::Journal;
use tidemill_connectors::broker::place::Place;
use tidemill_engine::component::{PlanContext, Problems, SinkKind, SinkPlan, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;
use tidemill_engine::sink::{Delivery, FlushPolicy, Guarantee, Placement, Sink, SinkContext, SinkWriter};

use crate::broker::command::Columns;
use crate::broker::desk::{Desk, DeskOptions};
use crate::broker::writer::{DryWriter, OrderWriter};

pub mod venue;

pub use venue::AlpacaVenue;

/// Orders to an Alpaca account (paper, unless `live: true`).
///
/// Reads the rows of `execution` whose `event` is `order`, `modify` or `cancel`; all others are left out. Each order is written into
/// a journal before it is sent with its `order_id` as client order id, and its answer after. Where an answer does not come
/// (a timeout, a 5xx, a crash), the venue is asked for the order before anything is sent again, so that none is lost and none is doubled.
/// What the venue refuses, and what it does not have (`post_only`, good till a date), comes back through the `alpaca_account` source as
/// `rejected` or `change_rejected`. Reduce-only orders, which it does not have either, are checked against its position before they are sent.
///
/// Types: `market`, `limit`, `stop`, `stop_limit`, `trailing_stop` (`trail` or `trail_fraction`); `take_profit` is sent as a limit order at
/// its trigger. Time in force: `day`, `gtc`, `ioc`, `fok`; a `gtc` order for shares that are not whole is sent for the `day`, as the venue wants it.
///
/// ```yaml
/// sinks:
///   orders:
///     kind: alpaca
///     from: execution
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
    /// Another address than the venue's, `http://` or `https://`: a server for tests.
    #[serde(default)]
    pub url: Option<String>,
    /// Prints what would be sent, a line of JSON each, and sends nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Requests a minute that this sink makes at most. An account has 200, which the sink and the source share: 150 and 50 by default.
    #[serde(default = "requests_per_minute")]
    pub requests_per_minute: u32,
    /// Where the journal is: a folder of this machine, relative to the graph's, or a place in object storage (`s3://…`, `gs://…`, `az://…`),
    /// which outlives this machine, at the price of some requests for each order. Default: `.tidemill/JOB/alpaca`.
    #[serde(default)]
    pub journal: Option<String>,
    /// An order or a change whose row is older than this when it is about to be sent is refused: after an outage, or where a graph meant
    /// for history is run. Cancels are always sent. 0: never.
    #[serde(default = "max_age")]
    pub max_age: Span,
    /// Longest wait for an answer; then the venue is asked what came of it.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// A request of which the venue does not say for so long whether it was taken restarts the job.
    #[serde(default = "give_up_after")]
    pub give_up_after: Span,
    /// Requests of different symbols that are under way at once; those of one symbol go one after the other.
    #[serde(default = "parallel")]
    pub parallel: usize,
    /// What becomes of orders that may only make a position smaller (stops, the kill switch, `flat_at_close`), which Alpaca does not have.
    #[serde(default)]
    pub reduce_only: ReduceOnly,
    /// Lets limit orders for the day trade outside regular hours.
    #[serde(default)]
    pub extended_hours: bool,
}

/// What becomes of orders that may only make a position smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReduceOnly {
    /// The venue's position is asked for right before, and an order that would turn it, make it larger or open one is refused. Where the
    /// venue does not say, the order is sent: `execution` has limited it to what is held.
    #[default]
    Check,
    /// They are sent without being checked: a request less, but one may turn a position that somebody else has closed meanwhile.
    Plain,
    /// They are refused: nothing that `execution` must close is closed.
    Refuse,
}

fn requests_per_minute() -> u32 {
    SINK_REQUESTS_PER_MINUTE
}
fn max_age() -> Span {
    Span::from_ns(60_000_000_000)
}
fn timeout() -> Span {
    Span::from_ns(10_000_000_000)
}
fn give_up_after() -> Span {
    Span::from_ns(120_000_000_000)
}
fn parallel() -> usize {
    4
}

/// Requests that may be under way at once.
const PARALLEL_MAX: usize = 64;

/// The kind.
pub struct Alpaca;

impl SinkKind for Alpaca {
    const KIND: &'static str = "alpaca";
    type Params = Params;

    fn plan(params: Params, input: &StreamInfo, cx: &PlanContext) -> Result<SinkPlan, Problems> {
        let access = Access {
            key: params.key.clone(),
            secret: params.secret.clone(),
            live: params.live,
            url: params.url.clone(),
            requests_per_minute: params.requests_per_minute,
        };
        let mut problems = access.problems();
        let folder = journal_folder(params.journal.as_deref(), cx).map_err(|found| problems.push(found)).ok();
        if !(1..=PARALLEL_MAX).contains(&params.parallel) {
            problems.push(Problem::new("parallel", format!("must be from 1 to {PARALLEL_MAX}")));
        }
        for (at, span) in [("timeout", params.timeout), ("give_up_after", params.give_up_after)] {
            if span < Span::from_ns(1_000_000) {
                problems.push(Problem::new(at, "must be 1ms or more"));
            }
        }
        let columns = Columns::plan(input).map_err(|found| problems.extend(found)).ok();
        let (Some(columns), Some(folder), true) = (columns, folder, problems.is_empty()) else {
            return Err(problems);
        };
        Ok(SinkPlan {
            // An order goes at once. Which orders there are, and of one symbol in which order, replays decide the same.
            delivery: Delivery::Eager,
            placement: Placement::Shards { count: 1, by: Vec::new() },
            flush: FlushPolicy::default(),
            sink: Arc::new(AlpacaSink { access, folder, columns, params }),
        })
    }
}

struct AlpacaSink {
    access: Access,
    folder: Place,
    columns: Columns,
    params: Params,
}

#[async_trait]
impl Sink for AlpacaSink {
    /// An order is journaled under its name before it is sent, and sent once.
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn kept_here(&self) -> Option<String> {
        let folder = self.folder.local().filter(|_| !self.params.dry_run)?;
        Some(folder.display().to_string())
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        let client = Client::new(&self.access, self.params.timeout.std(), cx.clock.clone())
            .map_err(ConnectorError::Fatal)?;
        let venue = AlpacaVenue::new(client, self.params.reduce_only, self.params.extended_hours);
        if self.params.dry_run {
            return Ok(Box::new(DryWriter::new(venue, self.columns.clone(), Box::new(std::io::stdout()))));
        }
        let journal = Journal::open(&self.folder, cx.generation, cx.clock.now_ns()).await?;
        let options = DeskOptions {
            max_age: self.params.max_age.std(),
            timeout: self.params.timeout.std(),
            give_up_after: self.params.give_up_after.std(),
            parallel: self.params.parallel,
        };
        let desk = Desk::open(venue, journal, cx.clock.clone(), options).await?;
        Ok(Box::new(OrderWriter::new(desk, self.columns.clone(), &cx)))
    }
}
