//! A client of a Schema Registry: Confluent's REST API, which Karapace, Redpanda and Apicurio
//! (`/apis/ccompat/v7`) speak too.
//!
//! What may pass (no connection, a timeout, 408, 429, 5xx) is tried again with growing pauses, and is
//! a transient error after that: never a verdict on a message. What the registry says it does not
//! have is `None`; all else is fatal, in its words.
//!
//! Source: <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::component::Problems;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;
use tokio::sync::Mutex;
use url::Url;

/// A larger answer is refused.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How often a request is retried before the job gives up (and restarts).
const RETRIES_MAX: usize = 6;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// How long an id that the registry does not know is not looked up again.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// Ids that are remembered as missing.
const MISSING_MAX: usize = 4096;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// How to reach a Schema Registry.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryParams {
    /// Its address: `http://registry:8081`. Apicurio's is `http://host:8080/apis/ccompat/v7`.
    pub url: String,
    /// User name, or API key.
    #[serde(default)]
    pub username: Option<String>,
    /// Password, or API secret: `${ENV}` or `file:PATH`.
    #[serde(default)]
    pub password: Option<String>,
    /// Bearer token, in place of user name and password: `${ENV}` or `file:PATH`.
    #[serde(default)]
    pub token: Option<String>,
    /// How long one question may take.
    #[serde(default = "timeout_default")]
    pub timeout: Span,
}

fn timeout_default() -> Span {
    Span::from_ns(10_000_000_000)
}

impl fmt::Debug for RegistryParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "***");
        f.debug_struct("RegistryParams")
            .field("url", &self.url)
            .field("username", &self.username)
            .field("password", &hidden(&self.password))
            .field("token", &hidden(&self.token))
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// A Schema Registry. Clones share connections.
#[derive(Clone)]
pub struct Registry {
    client: reqwest::Client,
    params: RegistryParams,
    url: Url,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.params).finish()
    }
}

/// A schema as the registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The schema's text.
    pub schema: String,
    /// `AVRO`, `PROTOBUF` or `JSON`.
    pub kind: String,
    /// Whether it refers to schemas of other subjects.
    pub references: bool,
}

/// Why a question failed.
enum Failure {
    /// It may pass.
    Passing(String),
    /// It will not.
    Lasting(String),
}

/// A registry's answer.
enum Answer {
    Found(Value),
    /// It has no such subject, version or schema.
    Missing,
}

impl Registry {
    /// Checks the settings without asking the registry; problems are under `path`.
    pub fn new(params: &RegistryParams, path: &str) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let at = |field: &str| format!("{path}.{field}");
        let url = match Url::parse(&params.url) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() => {
                problems
                    .push(Problem::new(at("url"), "a registry's address begins with http:// or https://"));
                None
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                problems.push(
                    Problem::new(at("url"), "the address holds a user name or password")
                        .hint("write them as `username` and `password`, from ${ENV} or file:"),
                );
                None
            }
            Ok(url) => Some(url),
            Err(error) => {
                problems.push(
                    Problem::new(at("url"), format!("not an address: {error}"))
                        .hint("write it as http://registry:8081"),
                );
                None
            }
        };
        if params.token.is_some() && (params.username.is_some() || params.password.is_some()) {
            problems.push(Problem::new(at("token"), "a token takes the place of user name and password"));
        }
        if params.password.is_some() && params.username.is_none() {
            problems.push(Problem::new(at("username"), "there is a password and no user name"));
        }
        let client = reqwest::Client::builder()
            .timeout(params.timeout.std().max(Duration::from_millis(10)))
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| problems.push(Problem::new(path, format!("cannot make an HTTP client: {e}"))));
        match (client, url) {
            (Ok(client), Some(url)) if problems.is_empty() => {
                Ok(Self { client, params: params.clone(), url })
            }
            _ => Err(problems),
        }
    }

    /// The address, for messages.
    pub fn address(&self) -> &str {
        &self.params.url
    }

    /// The schema with this id; `None` where there is none.
    pub async fn schema(&self, id: u32) -> Result<Option<Registered>, ConnectorError> {
        let Answer::Found(answer) =
            self.request(Method::GET, &["schemas", "ids", &id.to_string()], None).await?
        else {
            return Ok(None);
        };
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let schema = text("schema").ok_or_else(|| self.strange("a schema"))?;
        Ok(Some(Registered {
            schema,
            // Registries older than 5.5 know Avro only and do not say so.
            kind: text("schemaType").unwrap_or_else(|| "AVRO".to_owned()),
            references: answer.get("references").and_then(Value::as_array).is_some_and(|r| !r.is_empty()),
        }))
    }

    /// The id of an Avro schema under `subject`, which is made where it is not there yet.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, ConnectorError> {
        match self.register_once(subject, schema).await {
            // Another has just made the subject, or a request did whose answer was lost: some registries call that a conflict.
            Err(refused @ ConnectorError::Fatal(_)) => match self.lookup(subject, schema).await {
                Ok(Some(id)) => Ok(id),
                Ok(None) => self.register_once(subject, schema).await,
                Err(_) => Err(refused),
            },
            done => done,
        }
    }

    async fn register_once(&self, subject: &str, schema: &str) -> Result<u32, ConnectorError> {
        let body = json!({ "schema": schema });
        match self.request(Method::POST, &["subjects", subject, "versions"], Some(body)).await? {
            Answer::Found(answer) => self.id(&answer),
            Answer::Missing => Err(self.strange("an id")),
        }
    }

    /// The id of an Avro schema under `subject`; `None` where it is not registered there.
    pub async fn lookup(&self, subject: &str, schema: &str) -> Result<Option<u32>, ConnectorError> {
        match self.request(Method::POST, &["subjects", subject], Some(json!({ "schema": schema }))).await? {
            Answer::Found(answer) => self.id(&answer).map(Some),
            Answer::Missing => Ok(None),
        }
    }

    fn id(&self, answer: &Value) -> Result<u32, ConnectorError> {
        let id = answer.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.strange("an id"))
    }

    fn strange(&self, what: &str) -> ConnectorError {
        ConnectorError::Fatal(format!(
            "the schema registry at {} did not answer with {what}: is it one?",
            self.address()
        ))
    }

    async fn request(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Value>,
    ) -> Result<Answer, ConnectorError> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let pauses = ExponentialBuilder::new()
            .with_min_delay(RETRY_FIRST)
            .with_max_delay(RETRY_LAST)
            .with_max_times(RETRIES_MAX)
            .with_jitter();
        let answer = (|| self.once(method.clone(), url.clone(), body.as_ref()))
            .retry(pauses)
            .when(|failure| matches!(failure, Failure::Passing(_)))
            .notify(|failure, pause| {
                if let Failure::Passing(reason) = failure {
                    tracing::warn!(
                        "schema registry at {}: {reason}; retrying in {} ms",
                        self.address(),
                        pause.as_millis()
                    );
                }
            });
        answer.await.map_err(|failure| match failure {
            Failure::Passing(reason) => {
                ConnectorError::Transient(format!("the schema registry at {} {reason}", self.address()))
            }
            Failure::Lasting(reason) => {
                ConnectorError::Fatal(format!("the schema registry at {} {reason}", self.address()))
            }
        })
    }

    async fn once(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Answer, Failure> {
        let path = url.path().to_owned();
        let mut request = self.client.request(method, url).header("accept", CONTENT_TYPE);
        if let Some(token) = &self.params.token {
            request = request.bearer_auth(token);
        } else if let Some(username) = &self.params.username {
            request = request.basic_auth(username, self.params.password.as_ref());
        }
        if let Some(body) = body {
            request = request.header("content-type", CONTENT_TYPE).body(body.to_string());
        }
        let gone = |e: reqwest::Error| Failure::Passing(describe(&e, self.params.timeout));
        let mut response = request.send().await.map_err(gone)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(gone)? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(Failure::Lasting(format!("answered with more than {ANSWER_BYTES_MAX} bytes")));
            }
        }
        judge(status, &path, &bytes)
    }
}

/// What a registry's answer means.
fn judge(status: StatusCode, path: &str, bytes: &[u8]) -> Result<Answer, Failure> {
    let answer: Option<Value> = serde_json::from_slice(bytes).ok();
    if status.is_success() {
        return answer
            .map(Answer::Found)
            .ok_or_else(|| Failure::Lasting(format!("did not answer with JSON to {path}: is it one?")));
    }
    let code = answer.as_ref().and_then(|a| a.get("error_code")?.as_u64());
    let detail = answer.as_ref().and_then(|a| a.get("message")?.as_str()).unwrap_or_default();
    let detail =
        if detail.is_empty() { String::new() } else { format!(": {}", detail.trim().trim_end_matches('.')) };
    Err(match status.as_u16() {
        // Subject, version, schema not found. Any other 404 is a wrong address.
        404 if matches!(code, Some(40401..=40403)) => return Ok(Answer::Missing),
        404 => Failure::Lasting(format!(
            "knows no {path} (404{detail}): correct the `url`; the API's root belongs in it, such as /apis/ccompat/v7"
        )),
        401 | 403 => Failure::Lasting(format!(
            "refused access ({}{detail}): correct `username` and `password`, or `token`",
            status.as_u16()
        )),
        409 => Failure::Lasting(format!(
            "refused the schema as incompatible with the subject's earlier ones (409{detail}): make the change \
             compatible, or write to another subject"
        )),
        422 => Failure::Lasting(format!("refused the schema (422{detail})")),
        408 | 429 | 500..=599 => Failure::Passing(format!("answered {}{detail}", status.as_u16())),
        other => Failure::Lasting(format!("answered {other} to {path}{detail}")),
    })
}

/// An HTTP client's error without the address, which the caller names.
fn describe(error: &reqwest::Error, timeout: Span) -> String {
    if error.is_timeout() {
        return format!("did not answer in {timeout}");
    }
    let mut reason = String::from("could not be reached");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        source = cause.source();
        if source.is_none() {
            reason = format!("{reason}: {cause}");
        }
    }
    reason
}

/// Writers' schemas by id, fetched once.
#[derive(Debug)]
pub struct Schemas {
    registry: Registry,
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    found: HashMap<u32, Arc<str>>,
    missing: HashMap<u32, (Stopwatch, String)>,
}

impl Schemas {
    /// Nothing is known yet.
    pub fn new(registry: Registry, clock: Clock) -> Self {
        Self { registry, clock, known: Mutex::default() }
    }

    /// These schemas and no others; no registry is contacted.
    #[cfg(test)]
    pub(super) fn fixed(schemas: std::collections::BTreeMap<u32, String>) -> Self {
        let params = RegistryParams {
            url: "http://127.0.0.1:1".into(),
            username: None,
            password: None,
            token: None,
            timeout: timeout_default(),
        };
        let clock = Clock::Manual(Arc::default());
        let missing = (0..100).filter(|id| !schemas.contains_key(id));
        let missing =
            missing.map(|id| (id, (clock.start(), format!("the schema registry has no schema {id}"))));
        let known = Known {
            missing: missing.collect(),
            found: schemas.into_iter().map(|(id, s)| (id, s.into())).collect(),
        };
        let registry = Registry::new(&params, "registry").expect("the settings are sound");
        Self { registry, clock, known: Mutex::new(known) }
    }

    /// The Avro schema with this id; or why messages that name it cannot be read.
    pub async fn get(&self, id: u32) -> Result<Result<Arc<str>, String>, ConnectorError> {
        // One request at a time: partitions that meet a new id together look it up once.
        let mut known = self.known.lock().await;
        if let Some(schema) = known.found.get(&id) {
            return Ok(Ok(schema.clone()));
        }
        if let Some((_, why)) = known.missing.get(&id).filter(|(since, _)| since.elapsed() < MISSING_FOR) {
            return Ok(Err(why.clone()));
        }
        let why = match self.registry.schema(id).await? {
            None => format!("the schema registry has no schema {id}"),
            Some(schema) if schema.kind != "AVRO" => {
                format!("schema {id} is of type {}, not AVRO", schema.kind)
            }
            Some(schema) if schema.references => {
                format!("schema {id} refers to schemas of other subjects, which is not supported")
            }
            Some(schema) => {
                let schema: Arc<str> = schema.schema.into();
                known.missing.remove(&id);
                known.found.insert(id, schema.clone());
                return Ok(Ok(schema));
            }
        };
        if known.missing.len() >= MISSING_MAX {
            known.missing.clear();
        }
        known.missing.insert(id, (self.clock.start(), why.clone()));
        Ok(Err(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(value: Value) -> RegistryParams {
        serde_json::from_value(value).unwrap()
    }

    fn verdict(status: u16, body: &str) -> String {
        match judge(StatusCode::from_u16(status).unwrap(), "/schemas/ids/1", body.as_bytes()) {
            Ok(Answer::Found(value)) => format!("found {value}"),
            Ok(Answer::Missing) => "missing".into(),
            Err(Failure::Passing(reason)) => format!("passing: {reason}"),
            Err(Failure::Lasting(reason)) => format!("lasting: {reason}"),
        }
    }

    #[test]
    fn an_answer_is_found_missing_passing_or_lasting() {
        assert_eq!(verdict(200, r#"{"id":1}"#), r#"found {"id":1}"#);
        assert_eq!(verdict(404, r#"{"error_code":40403,"message":"Schema not found"}"#), "missing");
        assert_eq!(
            verdict(404, "<html>nginx"),
            "lasting: knows no /schemas/ids/1 (404): correct the `url`; the API's root belongs in it, such as /apis/ccompat/v7"
        );
        assert_eq!(
            verdict(503, r#"{"error_code":50003,"message":"Leader is away."}"#),
            "passing: answered 503: Leader is away"
        );
        assert_eq!(verdict(429, ""), "passing: answered 429");
        assert!(verdict(401, "").starts_with("lasting: refused access (401): correct `username`"));
        assert!(verdict(409, r#"{"message":"no default"}"#).contains("incompatible"));
        assert!(verdict(200, "<html>").starts_with("lasting: did not answer with JSON"));
    }

    #[test]
    fn secrets_never_print_and_settings_are_checked() {
        let p = params(json!({"url": "http://h:1", "username": "me", "password": "hunter2"}));
        let shown = format!("{p:?} {:?}", Registry::new(&p, "registry").unwrap());
        assert!(shown.contains("me") && !shown.contains("hunter2"), "{shown}");
        let problems = |value| {
            let problems = Registry::new(&params(value), "registry").unwrap_err();
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let inside = problems(json!({"url": "http://me:hunter2@h:1"}));
        assert!(inside.starts_with("registry.url: ") && !inside.contains("hunter2"), "{inside}");
        assert!(problems(json!({"url": "h:1"})).starts_with("registry.url: "));
        assert!(problems(json!({"url": "http://h", "password": "x"})).starts_with("registry.username: "));
        assert!(
            problems(json!({"url": "http://h", "username": "x", "token": "y"}))
                .starts_with("registry.token: ")
        );
    }
}
