//! A venue's feed as a source: live over the network, or replayed from a capture.
//!
//! One partition: all frames of all connections, in the order in which this process took them. A row's
//! `_seq` counts rows and refused input. Live, a checkpoint holds what the protocol must know to go
//! on; what the venue sent meanwhile is filled by protocols that can request it. With a capture on a local disk, a
//! restart first reads what was received behind the checkpoint (`live/recover.rs`): the feed can be read again. A
//! replay reads its capture from the beginning again and leaves out the rows that were there before.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourcePlan};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;
use tidemill_engine::source::{Source, SourceContext};
use tidemill_engine::storage;

use super::protocol::{Endpoint, Protocol};
use super::{live, replay};

/// How a feed connects, and whether it is captured or replayed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct FeedParams {
    /// Over how many connections the symbols are spread. More are made where the venue's limits ask for it.
    pub connections: u32,
    /// 2 makes every connection twice: what comes on both is taken once, by its sequence, so the loss of
    /// one loses nothing.
    pub redundant: u32,
    /// A connection from which nothing at all came for so long is cut and made again.
    pub stale_after: Span,
    /// Longest wait for a connection or an answer.
    pub timeout: Span,
    /// Wait before the first try to connect again; it doubles from try to try, and is drawn at random between 0
    /// and that ("full jitter").
    pub backoff_min: Span,
    /// Longest such wait.
    pub backoff_max: Span,
    /// A warning is given once when this machine's clock and the venue's are further apart.
    pub clock_skew_max: Span,
    /// Every frame is written here before anything looks into it: a path, or an `s3://`, `gs://` or `az://` URL. Below it
    /// each source has a folder of its own. In a folder (on this machine's disk, or a mounted one that outlives it) the
    /// capture is the feed's log: after a crash it is read to its end, and the job goes on exactly once. An object store,
    /// which may lose the last ten seconds, makes a record only.
    pub capture: Option<String>,
    /// The feed is read from this capture in place of the network, and ends with it.
    pub replay: Option<String>,
}

impl Default for FeedParams {
    fn default() -> Self {
        let seconds = |s: i64| Span::from_ns(s * 1_000_000_000);
        Self {
            connections: 1,
            redundant: 1,
            stale_after: seconds(30),
            timeout: seconds(10),
            backoff_min: Span::from_ns(250_000_000),
            backoff_max: seconds(60),
            clock_skew_max: seconds(2),
            capture: None,
            replay: None,
        }
    }
}

/// Connections a feed may have.
const CONNECTIONS_MAX: u32 = 256;

impl FeedParams {
    /// What is wrong with them; paths begin with `connection.`.
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::new();
        let mut check = |ok: bool, field: &str, reason: &str| {
            if !ok {
                problems.push(Problem::new(format!("connection.{field}"), reason));
            }
        };
        check(
            (1..=CONNECTIONS_MAX).contains(&self.connections),
            "connections",
            "there are 1 to 256 connections",
        );
        check(
            (1..=2).contains(&self.redundant),
            "redundant",
            "every connection is made once or twice: 1 or 2",
        );
        check(self.stale_after.ns() > 0, "stale_after", "is not above 0");
        check(self.timeout.ns() > 0, "timeout", "is not above 0");
        check(self.backoff_min.ns() > 0, "backoff_min", "is not above 0");
        check(self.backoff_max >= self.backoff_min, "backoff_max", "is below backoff_min");
        let both = self.capture.is_some() && self.replay.is_some();
        check(!both, "capture", "a replay is not captured again: leave out `capture` or `replay`");
        problems
    }

    /// The endpoints for `symbols`: spread evenly over the connections asked for (more, where a
    /// connection takes at most `symbols_max`), each made once or twice. `make` gets the symbols of one.
    pub fn endpoints(
        &self,
        symbols: &[String],
        symbols_max: usize,
        mut make: impl FnMut(&[String]) -> Endpoint,
    ) -> Vec<Endpoint> {
        let needed = symbols.len().div_ceil(symbols_max.max(1));
        let shards = (self.connections as usize).max(needed).min(symbols.len()).max(1);
        let mut endpoints = Vec::new();
        for group in 0..shards {
            // Cut so that sizes differ by one at most.
            let cut = |i: usize| symbols.len() * i / shards;
            let mut endpoint = make(&symbols[cut(group)..cut(group + 1)]);
            endpoint.group = group as u32;
            endpoints.extend(std::iter::repeat_n(endpoint, self.redundant.max(1) as usize));
        }
        endpoints
    }
}

/// Plans a feed: `make` gives a new protocol whenever the feed starts.
pub fn plan_feed(
    make: impl Fn() -> Box<dyn Protocol> + Send + Sync + 'static,
    params: FeedParams,
    cx: &PlanContext,
) -> Result<SourcePlan, Problems> {
    let problems = params.problems();
    if !problems.is_empty() {
        return Err(problems);
    }
    let columns = make().schema();
    let bounded = params.replay.is_some();
    let logged = params.capture.as_ref().is_some_and(|url| storage::local_path(url, &cx.base).is_some());
    let feed = Feed {
        make: Arc::new(make),
        session: live::SESSION,
        params,
        job: cx.job.clone(),
        node: cx.node.clone(),
        base: cx.base.clone(),
    };
    Ok(SourcePlan {
        columns,
        partitions: Partitions::Single,
        bounded,
        replayable: bounded || logged,
        source: Arc::new(feed),
    })
}

/// A planned feed.
pub(crate) struct Feed {
    pub make: Arc<dyn Fn() -> Box<dyn Protocol> + Send + Sync>,
    pub params: FeedParams,
    /// When another session of its log begins.
    pub session: live::SessionLimits,
    pub job: String,
    pub node: String,
    pub base: std::path::PathBuf,
}

#[async_trait]
impl Source for Feed {
    fn kept_here(&self) -> Option<String> {
        let capture = self.params.capture.as_ref().filter(|_| self.params.replay.is_none())?;
        storage::local_path(capture, &self.base).map(|path| path.display().to_string())
    }

    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        match &self.params.replay {
            Some(url) => replay::run(self, url, cx).await,
            None => live::run(self, cx).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_spread_evenly_and_within_the_venues_limit() {
        let symbols: Vec<String> = (0..10).map(|i| format!("S{i}")).collect();
        let spread = |connections, redundant, max| {
            let params = FeedParams { connections, redundant, ..FeedParams::default() };
            let mut sizes = Vec::new();
            let endpoints = params.endpoints(&symbols, max, |symbols| {
                sizes.push(symbols.len());
                Endpoint {
                    url: symbols.join("/"),
                    hello: Vec::new(),
                    send_gap_ns: 0,
                    ping: None,
                    stale_ns: 1,
                    group: 0,
                }
            });
            (sizes, endpoints.iter().map(|e| e.group).collect::<Vec<_>>())
        };
        assert_eq!(spread(1, 1, 100), (vec![10], vec![0]));
        assert_eq!(spread(3, 2, 100), (vec![3, 3, 4], vec![0, 0, 1, 1, 2, 2]));
        assert_eq!(spread(1, 1, 4).0, [3, 3, 4]);
        assert_eq!(spread(99, 1, 4).0, [1; 10]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        let params = FeedParams {
            redundant: 3,
            capture: Some("a".into()),
            replay: Some("b".into()),
            ..FeedParams::default()
        };
        let paths: Vec<String> = params.problems().into_iter().map(|p| p.path).collect();
        assert_eq!(paths, ["connection.redundant", "connection.capture"]);
    }
}
