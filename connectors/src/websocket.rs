//! Any feed of JSON messages over a WebSocket, its paths mapped to columns.
//!
//! Connections, capture and replay are those of every venue's feed ([`venue`](crate::venue)).

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidemill_engine::component::{PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;
use tidemill_engine::schema::SchemaSpec;
use tidemill_engine::spec::TimeUnitName;

use crate::venue::feed::{FeedParams, plan_feed};

mod path;
mod protocol;

use path::Path;
use protocol::{Json, Mapping};

/// Any feed of JSON messages over a WebSocket, its paths mapped to columns.
///
/// `columns` gives each column its type and the path of its value: names and list positions joined by
/// dots (`data.0.price`), from the row's own object; from the message's with `$.` before it; `$(received)` is
/// the time of receipt. A type alone (`price: f64`) takes the field of the column's name. Numbers may be quoted; types are those
/// of every schema, and a `?` after one lets the value be null or missing. What cannot become a row is refused
/// with its bytes and the reason; messages without `rows`, or that `where` does not want, are passed over
/// and counted.
///
/// ```yaml
/// sources:
///   trades:
///     kind: websocket
///     with:
///       url: wss://feed.example.com/v1
///       send: [ { op: subscribe, channel: trades, symbols: [BTC-USD] } ]
///       where: { $.channel: trades }
///       rows: data
///       columns:
///         ts: { path: time, type: timestamp }
///         symbol: { path: $.symbol, type: symbol }
///         price: f64
///         size: { path: qty, type: f64 }
///         received_at: { path: $(received), type: timestamp }
///       time_unit: ms
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The WebSocket's URL: `wss://` or `ws://`.
    pub url: String,
    /// Messages to send once it is open, in order; text is sent as it is, anything else as JSON. Values of fields whose name has
    /// `key`, `secret`, `token`, `password` or `sign` in it are sent, but shown and captured as `***`.
    #[serde(default)]
    pub send: Vec<Value>,
    /// Least time between two messages sent.
    #[serde(default)]
    pub send_gap: Span,
    /// A message to send when nothing was received for half of `stale_after`, for venues that want a ping of their own.
    #[serde(default)]
    pub ping: Option<Value>,
    /// Path of the row or the list of rows in a message; left out, the message itself is the row (or the list).
    #[serde(default)]
    pub rows: Option<String>,
    /// Only rows whose values at these paths are these.
    #[serde(default, rename = "where")]
    pub only: BTreeMap<String, Value>,
    /// Columns: `name: type`, or `name: {path: …, type: …}`.
    pub columns: Map<String, Value>,
    /// Unit of times that are plain integers.
    #[serde(default)]
    pub time_unit: TimeUnitName,
    /// What tells rows that come over two connections apart; needed where `connection.redundant` is 2.
    #[serde(default)]
    pub once: Option<OnceParams>,
    /// How it connects, and whether it is captured or replayed.
    #[serde(default)]
    pub connection: FeedParams,
}

/// What tells rows that come over two connections apart.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnceParams {
    /// Path of a whole number that grows from row to row.
    pub sequence: String,
    /// Path of what has a sequence of its own, such as the symbol; left out, all rows share one.
    #[serde(default)]
    pub by: Option<String>,
}

/// The kind.
pub struct Websocket;

#[async_trait]
impl SourceKind for Websocket {
    const KIND: &'static str = "websocket";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let mut problems = Problems::new();
        let url = url::Url::parse(&params.url);
        if !url.is_ok_and(|url| matches!(url.scheme(), "ws" | "wss") && url.has_host()) {
            problems.push(Problem::new("url", "is no URL of a WebSocket").hint("write wss://HOST/PATH"));
        }
        if params.connection.connections > 1 {
            let problem = Problem::new("connection.connections", "one feed has one connection");
            problems.push(problem.hint("make a source for each part of the symbols"));
        }
        if params.connection.redundant > 1 && params.once.is_none() {
            let problem = Problem::new("once", "is needed where connection.redundant is 2");
            problems.push(problem.hint("name the path of a sequence: `once: {sequence: seq, by: symbol}`"));
        }
        let mapping = mapping(&params, &mut problems);
        problems.extend(params.connection.problems());
        match mapping {
            Some(mapping) if problems.is_empty() => {
                let connection = params.connection.clone();
                plan_feed(move || Box::new(Json::new(&params, mapping.clone())), connection, cx)
            }
            _ => Err(problems),
        }
    }
}

fn mapping(params: &Params, problems: &mut Problems) -> Option<Mapping> {
    let mut parse = |at: String, text: &str| {
        Path::parse(text).map_err(|reason| problems.push(Problem::new(at, reason))).ok()
    };
    let rows = params.rows.as_ref().map(|text| parse("rows".into(), text));
    let only: Vec<_> = params
        .only
        .iter()
        .map(|(text, value)| Some((parse(format!("where.{text}"), text)?, value.clone())))
        .collect();
    let once = params.once.as_ref().map(|once| {
        let sequence = parse("once.sequence".into(), &once.sequence)?;
        let by = once.by.as_ref().map(|by| parse("once.by".into(), by));
        Some((sequence, by.map_or(Some(None), |by| by.map(Some))?))
    });
    let mut types = Map::new();
    let mut paths = Vec::new();
    for (name, column) in &params.columns {
        let (path, kind) = match column {
            Value::String(kind) => (name.clone(), Some(kind.clone())),
            Value::Object(fields) => {
                let text = |field: &str| fields.get(field).and_then(Value::as_str).map(str::to_owned);
                let stranger = fields.keys().find(|k| !matches!(k.as_str(), "path" | "type"));
                if let Some(stranger) = stranger {
                    let at = format!("columns.{name}.{stranger}");
                    let problem = Problem::new(at, format!("unknown field `{stranger}`"));
                    problems.push(problem.at_key().hint("one of: path, type"));
                }
                (text("path").unwrap_or_else(|| name.clone()), text("type"))
            }
            _ => (name.clone(), None),
        };
        let Some(kind) = kind else {
            let problem = Problem::new(format!("columns.{name}"), "has no type");
            problems.push(problem.hint("write `price: f64` or `price: {path: data.p, type: f64}`"));
            continue;
        };
        types.insert(name.clone(), kind.into());
        match Path::parse(&path) {
            Ok(path) => paths.push(path),
            Err(reason) => problems.push(Problem::new(format!("columns.{name}.path"), reason)),
        }
    }
    if types.is_empty() && !problems.is_empty() {
        return None;
    }
    let columns: Option<SchemaRef> =
        SchemaSpec::Columns(types).resolve("columns").map_err(|found| problems.extend(found)).ok();
    Some(Mapping {
        rows: rows.map_or(Some(None), |rows| rows.map(Some))?,
        only: only.into_iter().collect::<Option<_>>()?,
        once: once.map_or(Some(None), |once| once.map(Some))?,
        paths,
        columns: columns?,
        unit: params.time_unit,
    })
}
