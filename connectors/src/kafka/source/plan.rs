//! Planning the `kafka` source: all checks of its parameters that need no broker.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::problem::Problem;
use tidemill_engine::schema::SchemaSpec;

use super::params::{Format, Params, Start, Stop};
use super::{Begin, KafkaSource, Settings};
use crate::kafka::avro;
use crate::kafka::client::Connection;
use crate::kafka::format::{AheadGuard, raw_schema};
use crate::kafka::history::History;
use crate::kafka::registry::{Registry, Schemas};

/// The kind.
#[derive(Debug)]
pub struct Kafka;

#[async_trait]
impl SourceKind for Kafka {
    const KIND: &'static str = "kafka";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let mut problems = Problems::new();
        let connection =
            Connection::new(&params.brokers, &params.options).map_err(|p| problems.extend(p)).ok();
        if params.topic.is_empty() {
            problems.push(Problem::new("topic", "the topic has no name"));
        }
        let mut avro = None;
        let columns = match (params.format, &params.schema) {
            (Format::Raw, None) => Some(raw_schema()),
            (Format::Avro, _) => {
                avro = plan_avro(&params, cx).map_err(|p| problems.extend(p)).ok();
                avro.as_ref().map(|(_, target)| target.columns.clone())
            }
            (Format::Json, Some(spec)) => spec.resolve("schema").map_err(|p| problems.extend(p)).ok(),
            (Format::Raw, Some(_)) => {
                problems.push(Problem::new(
                    "schema",
                    "`format: raw` has the columns ts, key and value, and takes no schema",
                ));
                None
            }
            (Format::Json, None) => {
                problems.push(
                    Problem::new("schema", "`format: json` needs a schema")
                        .hint("name one (trade, quote, bar), or write columns and types"),
                );
                None
            }
        };
        if params.registry.is_some() && params.format != Format::Avro {
            problems.push(Problem::new("registry", "only `format: avro` has schemas in a registry").at_key());
        }
        for (i, name) in params.keyed_by.iter().flatten().enumerate() {
            if let Some(columns) = columns.as_ref().filter(|c| c.index_of(name).is_err()) {
                let names = columns.fields().iter().map(|f| f.name().as_str());
                problems.push(
                    Problem::new(format!("keyed_by[{i}]"), format!("the schema has no column `{name}`"))
                        .hint_names(name, names),
                );
            }
        }
        let start = match &params.start {
            Start::Earliest => Some(Begin::Earliest),
            Start::Latest => Some(Begin::Latest),
            Start::Timestamp(text) => match chrono::DateTime::parse_from_rfc3339(text) {
                Ok(time) => Some(Begin::At(time.timestamp_millis())),
                Err(error) => {
                    problems.push(
                        Problem::new("start.timestamp", format!("`{text}` is not a time: {error}"))
                            .hint("write it as 2024-01-01T00:00:00Z"),
                    );
                    None
                }
            },
        };
        let history = match (&params.history, &columns) {
            (Some(history), Some(columns)) => {
                if params.start != Start::Earliest {
                    problems.push(
                        Problem::new("start", "with `history` a partition begins with its archive")
                            .hint("leave `start` out"),
                    );
                }
                History::plan(history, columns, cx).await.map_err(|p| problems.extend(p)).ok()
            }
            _ => None,
        };
        let (Some(connection), Some(columns), Some(start), true) =
            (connection, columns, start, problems.is_empty())
        else {
            return Err(problems);
        };
        let settings = Settings {
            ahead: ahead_guard(&params, &columns),
            format: params.format,
            avro,
            unit: params.event_time_unit,
            columns: columns.clone(),
            connection,
            topic: params.topic,
            start,
            bounded: params.stop == Stop::End,
            keyed: params.keyed_by.is_some(),
            group: params.group.unwrap_or_else(|| format!("tidemill.{}", cx.job)),
            isolation: params.isolation,
            discover: params.discover.std().max(Duration::from_millis(100)),
            history,
        };
        Ok(SourcePlan {
            columns,
            partitions: Partitions::Many { keyed_by: params.keyed_by },
            bounded: settings.bounded,
            replayable: true,
            source: Arc::new(KafkaSource(Arc::new(settings))),
        })
    }
}

/// Where the schemas are, and what messages are read as.
fn plan_avro(params: &Params, cx: &PlanContext) -> Result<(Arc<Schemas>, avro::Target), Problems> {
    let mut problems = Problems::new();
    let registry = match &params.registry {
        Some(registry) => Registry::new(registry, "registry").map_err(|p| problems.extend(p)).ok(),
        None => {
            problems.push(
                Problem::new("registry", "`format: avro` needs the Schema Registry that has its schemas")
                    .hint("write registry: {url: \"http://localhost:8081\"}"),
            );
            None
        }
    };
    let target = match &params.schema {
        Some(SchemaSpec::Named(name)) if name.ends_with(".avsc") => {
            avro::Target::from_file(&cx.base.join(name), "schema")
        }
        Some(spec) => spec
            .resolve("schema")
            .map(|columns| avro::Target::columns(columns, params.event_time_unit.nanoseconds())),
        None => Err(vec![
            Problem::new("schema", "`format: avro` needs a schema to read with")
                .hint("write columns and types, or the path of an Avro schema: trade.avsc"),
        ]),
    };
    let target = target.map_err(|p| problems.extend(p)).ok();
    match (registry, target) {
        (Some(registry), Some(target)) => Ok((Arc::new(Schemas::new(registry, cx.clock.clone())), target)),
        _ => Err(problems),
    }
}

fn ahead_guard(params: &Params, columns: &SchemaRef) -> Option<AheadGuard> {
    let column = columns.index_of(&params.event_time).ok()?;
    let unit_ns = match columns.field(column).data_type() {
        DataType::Timestamp(..) => 1,
        DataType::Int64 | DataType::UInt64 => params.event_time_unit.nanoseconds(),
        _ => return None,
    };
    Some(AheadGuard { column, unit_ns, max_ns: params.ahead_max?.ns() })
}
