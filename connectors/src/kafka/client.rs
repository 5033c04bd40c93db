//! Connection settings, and the client context that turns librdkafka's words into traces.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tidemill_engine::component::Problems;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::problem::Problem;

use super::embedded;

/// What `brokers:` says where the in-process broker is meant.
pub const EMBEDDED: &str = "embedded";

/// Settings that decide what is read or written, or how surely: not the user's to change.
const OURS: [&str; 12] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "isolation.level",
    "transactional.id",
    "enable.idempotence",
    "partitioner",
    "delivery.report.only.error",
];

/// Settings of librdkafka's, by its own names: `{security.protocol: SASL_SSL, sasl.password: "${PASSWORD}"}`.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Options(pub Map<String, Value>);

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .0
            .iter()
            .map(|(name, value)| (name, if is_secret(name) { "***".into() } else { value.to_string() }));
        f.debug_map().entries(shown).finish()
    }
}

/// How to reach a cluster. Printing it shows no secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    brokers: String,
    options: Vec<(String, String)>,
}

impl Connection {
    /// Checks `brokers` and `options` without asking the brokers.
    pub fn new(brokers: &str, options: &Options) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        if brokers.trim().is_empty() {
            problems.push(
                Problem::new("brokers", "no broker is given")
                    .hint("write host:port, several with commas, or `embedded`"),
            );
        }
        let mut settings = Vec::new();
        for (name, value) in &options.0 {
            let at = format!("options.{name}");
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => {
                    problems.push(Problem::new(at, "expected text, a number or a boolean"));
                    continue;
                }
            };
            if OURS.contains(&name.as_str()) {
                problems.push(Problem::new(at, format!("`{name}` is set by Tidemill itself")));
                continue;
            }
            let mut alone = ClientConfig::new();
            alone.set(name, &value);
            match alone.create_native_config() {
                Ok(_) => settings.push((name.clone(), value)),
                Err(KafkaError::ClientConfig(_, reason, ..)) if !is_secret(name) => {
                    problems.push(Problem::new(at, format!("librdkafka refuses it: {}", reason.trim())));
                }
                Err(_) => problems.push(Problem::new(at, "librdkafka refuses it")),
            }
        }
        if problems.is_empty() {
            Ok(Self { brokers: brokers.to_owned(), options: settings })
        } else {
            Err(problems)
        }
    }

    /// A connection to `brokers` without further options, for tools and tests.
    pub fn plain(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned(), options: Vec::new() }
    }

    /// The brokers, as written.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Whether this is the in-process broker.
    pub fn is_embedded(&self) -> bool {
        self.brokers == EMBEDDED
    }

    /// A client configuration: `defaults`, then the user's options, then `fixed`.
    pub fn config(
        &self,
        defaults: &[(&str, &str)],
        fixed: &[(&str, &str)],
    ) -> Result<ClientConfig, ConnectorError> {
        let brokers = if self.is_embedded() { embedded::embedded_address()? } else { self.brokers.clone() };
        let mut config = ClientConfig::new();
        for (name, value) in SHARED.iter().chain(defaults) {
            config.set(*name, *value);
        }
        for (name, value) in &self.options {
            config.set(name, value);
        }
        for (name, value) in fixed {
            config.set(*name, *value);
        }
        config.set("bootstrap.servers", brokers);
        config.set_log_level(RDKafkaLogLevel::Info);
        Ok(config)
    }
}

/// Short waits between attempts, so that a restarted broker is found at once.
const SHARED: [(&str, &str); 5] = [
    ("client.id", "tidemill"),
    ("socket.nagle.disable", "true"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("allow.auto.create.topics", "false"),
];

/// Whether a setting's value must never be shown.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "key"].iter().any(|word| name.contains(word))
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.options.iter().map(|(name, value)| {
            let value = if is_secret(name) { "***" } else { value.as_str() };
            (name.as_str(), value.to_owned())
        });
        let shown: std::collections::BTreeMap<&str, String> = shown.collect();
        f.debug_struct("Connection").field("brokers", &self.brokers).field("options", &shown).finish()
    }
}

/// Makes a client, without showing a setting's value where it cannot.
pub fn create<C, T>(config: &ClientConfig, context: C) -> Result<T, ConnectorError>
where
    C: ClientContext,
    T: rdkafka::config::FromClientConfigAndContext<C>,
{
    config.create_with_context(context).map_err(|error| match error {
        KafkaError::ClientConfig(_, reason, name, _) => {
            ConnectorError::Fatal(format!("kafka option `{name}`: {}", reason.trim()))
        }
        other => ConnectorError::fatal("cannot make a kafka client", other),
    })
}

/// Hears a client's logs and errors. Clones share what they heard.
#[derive(Clone, Debug, Default)]
pub struct Ear {
    heard: Arc<Mutex<Heard>>,
    quiet: bool,
}

#[derive(Debug, Default)]
struct Heard {
    last: String,
    delivery: Option<(RDKafkaErrorCode, String)>,
    down: bool,
}

impl Ear {
    /// An ear that keeps ordinary lines to itself, for short-lived clients.
    pub fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Heard) -> T) -> T {
        f(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the client last complained of; for messages. Empty, or `: ` and the complaint.
    pub fn complaint(&self) -> String {
        self.with(|heard| if heard.last.is_empty() { String::new() } else { format!(": {}", heard.last) })
    }

    /// The first failed delivery since the last call.
    pub fn failed_delivery(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.with(|heard| heard.delivery.take())
    }

    /// Data came through: says so once after trouble.
    pub fn well(&self) {
        if self.with(|heard| std::mem::take(&mut heard.down)) {
            tracing::info!("kafka connection is back");
        }
    }
}

impl ClientContext for Ear {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            _ if self.quiet => tracing::debug!(facility, "{message}"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "{message}");
            }
            // Every broken connection is one of these; `error` below says what matters, once.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::debug!(facility, "{message}"),
            _ => tracing::trace!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            return;
        }
        let code = error.rdkafka_error_code();
        let connection = matches!(
            code,
            Some(
                RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::Resolve
            )
        );
        let news = self.with(|heard| {
            let news =
                if connection { !std::mem::replace(&mut heard.down, true) } else { heard.last != reason };
            // "all brokers are down" says less than the reason that came before it.
            if !reason.is_empty() && (code != Some(RDKafkaErrorCode::AllBrokersDown) || heard.last.is_empty())
            {
                heard.last = reason.to_owned();
            }
            news
        });
        match (news && !self.quiet, connection) {
            (true, true) => tracing::warn!("kafka connection lost, trying again: {reason}"),
            (true, false) => tracing::warn!("kafka: {error}: {reason}"),
            _ => tracing::debug!("kafka: {error}: {reason}"),
        }
    }
}

impl ConsumerContext for Ear {}

impl ProducerContext for Ear {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            self.with(|heard| {
                if heard.delivery.is_none() {
                    heard.delivery = Some((code, error.to_string()));
                }
            });
        }
    }
}

/// Runs a blocking librdkafka call off the async threads.
pub async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
) -> Result<T, ConnectorError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => Err(ConnectorError::transient("a kafka call did not finish", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn connect(options: Value) -> Result<Connection, Vec<String>> {
        let Value::Object(options) = options else { unreachable!() };
        Connection::new("a:1", &Options(options)).map_err(|p| p.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn secrets_never_print() {
        let c = connect(json!({"sasl.password": "hunter2", "ssl.key.pem": "hunter2", "sasl.username": "me", "ssl.key.password": "hunter2"})).unwrap();
        let shown = format!("{c:?}");
        assert!(shown.contains("me") && !shown.contains("hunter2"), "{shown}");
        let config = c.config(&[], &[]).unwrap();
        assert_eq!(config.get("sasl.password"), Some("hunter2"));
        let refused = connect(json!({"ssl.key.typo": "hunter2", "linger.mss": "hunter3"})).unwrap_err();
        assert!(!format!("{refused:?}").contains("hunter2"));
    }

    #[test]
    fn options_are_checked_without_a_broker() {
        assert_eq!(
            connect(json!({"no.such": 1, "acks": "x", "group.id": "mine", "ssl.ca.location": []}))
                .unwrap_err(),
            [
                "options.no.such: librdkafka refuses it: No such configuration property: \"no.such\"",
                "options.acks: librdkafka refuses it: Invalid value for configuration property \"request.required.acks\"",
                "options.group.id: `group.id` is set by Tidemill itself",
                "options.ssl.ca.location: expected text, a number or a boolean",
            ]
        );
        assert!(Connection::new(" ", &Options::default()).is_err());
    }
}
