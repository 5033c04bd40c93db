//! A venue's REST history: a pager says what to ask next and reads the answer; this asks, within the venue's
//! limits, and tries again what may yet work.
//!
//! | answer | what follows |
//! |---|---|
//! | 200 | the pager reads it; a body that is cut off is asked for again |
//! | 429, or what the pager calls busy | waits as `Retry-After` says, else longer each time |
//! | 418 (Binance: banned) | everything stops: asking on prolongs a ban |
//! | 403, 451 | everything stops: the venue does not serve this address |
//! | other 4xx | the range fails with the venue's words |
//! | 5xx, no answer, no connection | again, with backoff and jitter, [`TRIES_MAX`] times |

use std::num::NonZeroU32;
use std::time::Duration;

use arrow::array::RecordBatch;
use backon::BackoffBuilder;
use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tidemill_engine::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::{Failure, Rows};

/// How often one request is tried.
pub const TRIES_MAX: usize = 8;
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that is waited out.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// Bytes an answer may have.
const BODY_MAX: usize = 64 << 20;
/// Rows that are handed on together.
const BATCH_ROWS: usize = 32_768;
/// Of a minute's weight, what may be used before the next minute is waited for; percent.
const WEIGHT_PERCENT_MAX: u64 = 90;

/// What a pager asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Path and query, from the first `/` on.
    pub path: String,
    /// Its cost in the venue's units.
    pub weight: u32,
}

/// Why a page was not taken. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageError {
    /// It is not what the venue documents, cut off perhaps: asked for again.
    Garbled(String),
    /// The venue wants us to wait, and says so in its body.
    Busy(String),
    /// The venue says no.
    Refused(String),
}

/// Walks one range of a history: no IO, no clock.
pub trait Pager: Send {
    /// What to ask next; `None` at the end of the range.
    fn next(&mut self) -> Option<Request>;
    /// Takes the answer to the last request whole, or refuses it and stays as it was.
    fn page(&mut self, body: &[u8]) -> Result<(), PageError>;
    /// How many rows it holds.
    fn rows(&self) -> usize;
    /// Takes the rows.
    fn finish(&mut self) -> RecordBatch;
    /// The time it has come to, for the progress shown.
    fn reached_ns(&self) -> i64;
}

/// A venue's limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Weight a minute may use.
    pub weight_per_minute: Option<u32>,
    /// The header in which the venue says what was used of it.
    pub used_header: Option<&'static str>,
    /// Requests a second.
    pub per_second: Option<f64>,
}

/// Asks a venue.
pub struct Rest {
    base: String,
    client: reqwest::Client,
    limits: Limits,
    weight: Option<DefaultDirectRateLimiter>,
    requests: Option<DefaultDirectRateLimiter>,
    clock: Clock,
    stop: CancellationToken,
}

impl Rest {
    /// A client of the venue at `base`; `headers` go with every request and are never shown.
    pub fn new(
        base: &str,
        headers: HeaderMap,
        limits: Limits,
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .connect_timeout(Duration::from_secs(10))
            .default_headers(headers)
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| format!("cannot make an HTTP client: {e}"))?;
        // A tenth of a minute's weight may go at once: the rest is spread.
        let weight = limits.weight_per_minute.and_then(NonZeroU32::new).map(|n| {
            let burst = NonZeroU32::new(n.get() / 10).unwrap_or(n);
            RateLimiter::direct(Quota::per_minute(n).allow_burst(burst))
        });
        let requests = match limits.per_second {
            Some(rate) if rate.is_finite() && rate > 0.0 => {
                Quota::with_period(Duration::from_secs_f64(1.0 / rate.clamp(1e-4, 1e6)))
                    .map(RateLimiter::direct)
            }
            _ => None,
        };
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            client,
            limits,
            weight,
            requests,
            clock,
            stop,
        })
    }

    /// Walks a range to its end.
    pub async fn walk(&self, pager: &mut dyn Pager, out: &mut Rows) -> Result<(), Failure> {
        while let Some(request) = pager.next() {
            self.page(&request, pager).await?;
            out.at_time(pager.reached_ns());
            if pager.rows() >= BATCH_ROWS {
                out.send(pager.finish()).await?;
            }
        }
        if pager.rows() > 0 {
            out.send(pager.finish()).await?;
        }
        Ok(())
    }

    /// Asks until a page is taken.
    async fn page(&self, request: &Request, pager: &mut dyn Pager) -> Result<(), Failure> {
        let mut waits = backon::ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(30))
            .with_max_times(TRIES_MAX - 1)
            .with_jitter()
            .build();
        loop {
            let error = match self.ask(request).await? {
                Ok(body) => match pager.page(&body) {
                    Ok(()) => return Ok(()),
                    Err(PageError::Refused(reason)) => return Err(self.failed(request, &reason)),
                    Err(PageError::Garbled(reason)) => Again { reason, after: None },
                    // Such venues count requests: a second is the least that helps.
                    Err(PageError::Busy(reason)) => Again { reason, after: Some(Duration::from_secs(1)) },
                },
                Err(again) => again,
            };
            let Some(wait) = waits.next() else {
                return Err(
                    self.failed(request, &format!("{}; gave up after {TRIES_MAX} tries", error.reason))
                );
            };
            let wait = error.after.map_or(wait, |after| after.max(wait));
            if wait > WAIT_MAX {
                let reason = format!("{}; it asks for a wait of {} s", error.reason, wait.as_secs());
                return Err(Failure::Stop(format!("GET {}{}: {reason}", self.base, request.path)));
            }
            tracing::warn!(
                url = format!("{}{}", self.base, request.path),
                "{}: trying again in {wait:.1?}",
                error.reason
            );
            self.wait(wait).await?;
        }
    }

    fn failed(&self, request: &Request, reason: &str) -> Failure {
        Failure::Range(format!("GET {}{}: {reason}", self.base, request.path))
    }

    async fn wait(&self, wait: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.stop.cancelled() => Err(Failure::Stopped),
        }
    }

    /// One request within the limits.
    async fn ask(&self, request: &Request) -> Result<Result<Bytes, Again>, Failure> {
        // Not broken off when the user wants to stop: the range at hand is brought to its end.
        if let Some(limiter) = &self.requests {
            limiter.until_ready().await;
        }
        if let Some(limiter) = &self.weight {
            // A weight above the whole burst cannot be had at once; then it waits for the burst.
            let burst = self.limits.weight_per_minute.unwrap_or(1) / 10;
            if let Some(n) = NonZeroU32::new(request.weight.min(burst.max(1))) {
                let _ = limiter.until_n_ready(n).await;
            }
        }
        let again = |reason: String| Ok(Err(Again { reason, after: None }));
        let mut response = match self.client.get(format!("{}{}", self.base, request.path)).send().await {
            Ok(response) => response,
            Err(error) => return again(format!("no answer: {}", chain(&error))),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(part)) if body.len() + part.len() > BODY_MAX => {
                    return Err(self.failed(request, &format!("the answer is longer than {BODY_MAX} bytes")));
                }
                Ok(Some(part)) => body.extend_from_slice(&part),
                Ok(None) => break,
                Err(error) => return again(format!("the answer was cut off: {}", chain(&error))),
            }
        }
        let said = words(&body);
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok())
            .map(Duration::from_secs);
        match status {
            StatusCode::OK => {
                self.heed_used_weight(&headers).await?;
                Ok(Ok(body.into()))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let reason = format!("HTTP 429, too many requests{said}");
                Ok(Err(Again { reason, after: Some(retry_after.unwrap_or(Duration::from_secs(1))) }))
            }
            StatusCode::IM_A_TEAPOT => {
                let seconds = retry_after.map_or("some time".into(), |d| format!("{} s", d.as_secs()));
                Err(Failure::Stop(format!(
                    "{} has banned this address for {seconds} (HTTP 418){said}; wait it out and run again with a lower --rate",
                    self.base
                )))
            }
            StatusCode::FORBIDDEN | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => Err(Failure::Stop(format!(
                "{} does not serve this address (HTTP {}){said}",
                self.base,
                status.as_u16()
            ))),
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                Ok(Err(Again { reason: format!("HTTP {}{said}", status.as_u16()), after: retry_after }))
            }
            status => Err(self.failed(request, &format!("HTTP {}{said}", status.as_u16()))),
        }
    }

    /// Waits for the next minute where this one's weight is nearly used: others may ask from this address.
    async fn heed_used_weight(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let (Some(name), Some(limit)) = (self.limits.used_header, self.limits.weight_per_minute) else {
            return Ok(());
        };
        let used = headers.get(name).and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok());
        match used {
            Some(used) if used * 100 >= u64::from(limit) * WEIGHT_PERCENT_MAX => {
                let minute_ns = 60_000_000_000;
                let left = minute_ns - self.clock.now_ns().rem_euclid(minute_ns);
                let wait = Duration::from_nanos(left as u64) + Duration::from_millis(200);
                tracing::info!(
                    "{used} of {limit} request weight used: waiting {wait:.1?} for the next minute"
                );
                self.wait(wait).await
            }
            _ => Ok(()),
        }
    }
}

/// What may work when it is tried again.
struct Again {
    reason: String,
    /// How long to wait at least.
    after: Option<Duration>,
}

/// What a venue says in the body of an error, shortened; empty or `: …`.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let short: String = text.chars().take(200).filter(|c| !c.is_control()).collect();
    if short.is_empty() { short } else { format!(": {short}") }
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(e) = cause {
        let part = e.to_string();
        if !text.ends_with(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        cause = e.source();
    }
    text
}
