//! Kafka topics on the command line.

use anyhow::anyhow;
use tidemill_connectors::backfill::kafka::{TopicHistory, Wanted};
use tidemill_connectors::backfill::mapping;
use tidemill_connectors::backfill::ranges::{Span, parse_time};
use tidemill_connectors::backfill::text::Unit;
use tidemill_connectors::kafka::Connection;
use tidemill_connectors::kafka::client::Options;
use tidemill_engine::clock::Clock;
use tidemill_engine::spec::TimeUnitName;
use tokio_util::sync::CancellationToken;

use super::{Chosen, Into};

#[derive(Debug, clap::Args)]
pub struct Kafka {
    /// host:port, several with commas
    #[arg(long)]
    brokers: String,
    /// The topic
    #[arg(long)]
    topic: String,
    /// The columns of its messages: trade, quote, bar, or 'ts: timestamp, price: f64?'
    #[arg(long)]
    schema: String,
    /// By the messages' timestamps, from this time on; default: from the oldest message
    #[arg(long, value_parser = parse_time)]
    from: Option<i64>,
    /// Up to this time, exclusive; default: now
    #[arg(long, value_parser = parse_time)]
    to: Option<i64>,
    /// The name of the graph's source that reads the topic live, so that _src is the same; default: the topic
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Unit of times that are numbers: s, ms, us, ns
    #[arg(long, default_value = "ns")]
    time_unit: Unit,
    /// Further librdkafka settings, such as security.protocol=SASL_SSL; $NAME takes a value from the environment
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    #[command(flatten)]
    into: Into,
}

impl Kafka {
    pub fn chosen(self, stop: &CancellationToken) -> anyhow::Result<Chosen> {
        let mut options = Options::default();
        for pair in &self.options {
            let (name, value) = pair.split_once('=').ok_or_else(|| anyhow!("--option: write NAME=VALUE"))?;
            // A secret on a command line is seen by everybody who lists processes.
            let value = match value.strip_prefix('$') {
                Some(variable) => std::env::var(variable)
                    .map_err(|_| anyhow!("--option {name}: the environment has no {variable}"))?,
                None => value.to_owned(),
            };
            options.0.insert(name.to_owned(), value.into());
        }
        let connection = Connection::new(&self.brokers, &options).map_err(|problems| {
            anyhow!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        let columns = mapping::schema(&self.schema).map_err(|e| anyhow!("--schema: {e}"))?;
        let columns = columns.resolve("schema").map_err(|problems| {
            anyhow!(problems.iter().map(|p| format!("--{p}")).collect::<Vec<_>>().join("; "))
        })?;
        let unit = match self.time_unit {
            Unit::Of(1_000_000_000) => TimeUnitName::S,
            Unit::Of(1_000_000) => TimeUnitName::Ms,
            Unit::Of(1000) => TimeUnitName::Us,
            Unit::Of(_) => TimeUnitName::Ns,
            Unit::Auto => {
                return Err(anyhow!("--time-unit: the kafka source has no `auto`: s, ms, us or ns"));
            }
        };
        let wanted = Wanted {
            connection,
            source: self.source.unwrap_or_else(|| self.topic.clone()),
            columns,
            unit,
            span: Span::new(self.from.unwrap_or(0), self.to.unwrap_or_else(|| Clock::System.now_ns())),
            topic: self.topic.clone(),
        };
        if wanted.span.is_empty() {
            return Err(anyhow!("--to must be later than --from"));
        }
        let history = TopicHistory::new(wanted).map_err(|e| anyhow!("--schema: {e}"))?;
        Ok(Chosen { history: Box::new(history), into: self.into, dataset: self.topic, stop: stop.clone() })
    }
}
