//! REST requests of a feed: within the venue's weights, patient with its refusals.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::StatusCode;
use reqwest::header::{DATE, RETRY_AFTER};
use tidemill_engine::clock::Clock;

use super::backoff::Backoff;
use crate::venue::feed::FeedParams;
use crate::venue::shown;

/// Tries of one request.
const TRIES_MAX: u32 = 6;
/// Longest `Retry-After` that is kept to: a ban lasts up to three days (Binance).
const PAUSE_MAX: Duration = Duration::from_secs(3 * 86_400);
/// Bytes an answer may have.
const BODY_MAX: usize = 64 << 20;

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The HTTP status, 0 where there is no answer.
    pub status: u16,
    /// The answer, or why there is none.
    pub body: Bytes,
    /// Refusals (418, 429) and failures on the way.
    pub refused: u64,
    pub failed: u64,
    /// The venue's clock less ours, milliseconds, where it told its time.
    pub skew_ms: Option<i64>,
}

/// Fetches for one feed.
pub(crate) struct Fetcher {
    client: reqwest::Client,
    weights: DefaultDirectRateLimiter,
    weight_max: u32,
    /// Held while the venue wants to be left alone: nobody asks it then.
    gate: tokio::sync::Mutex<()>,
    clock: Clock,
    node: String,
    backoff: (Duration, Duration),
}

impl Fetcher {
    pub fn new(
        params: &FeedParams,
        weight_per_minute: u32,
        clock: Clock,
        node: &str,
    ) -> Result<Arc<Self>, String> {
        let client = reqwest::Client::builder()
            .timeout(params.timeout.std())
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| format!("cannot make an HTTP client: {e}"))?;
        let weight_max = weight_per_minute.max(1);
        let quota =
            Quota::per_minute(std::num::NonZeroU32::new(weight_max).unwrap_or(std::num::NonZeroU32::MIN));
        Ok(Arc::new(Self {
            client,
            weights: RateLimiter::direct(quota),
            weight_max,
            gate: Default::default(),
            clock,
            node: node.to_owned(),
            backoff: (params.backoff_min.std(), params.backoff_max.std()),
        }))
    }

    /// GETs `url`; tries again where that may help.
    pub async fn get(&self, url: &str, weight: u32, seed: u64) -> Fetched {
        let mut backoff = Backoff::new(self.backoff.0, self.backoff.1, seed);
        let mut end = Fetched { status: 0, body: Bytes::new(), refused: 0, failed: 0, skew_ms: None };
        let shown = shown::url(url);
        for attempt in 1..=TRIES_MAX {
            drop(self.gate.lock().await);
            let weight =
                std::num::NonZeroU32::new(weight.min(self.weight_max)).unwrap_or(std::num::NonZeroU32::MIN);
            // Never more than the bucket holds, so it is never refused.
            let _ = self.weights.until_n_ready(weight).await;
            let last = attempt == TRIES_MAX;
            let (status, pause, body, skew_ms) = match self.once(url).await {
                Ok(answer) => answer,
                Err(reason) => {
                    end.failed += 1;
                    end.body = Bytes::from(reason.clone());
                    end.status = 0;
                    tracing::warn!(source = self.node, url = shown, attempt, "no answer: {reason}");
                    if !last {
                        tokio::time::sleep(backoff.next()).await;
                    }
                    continue;
                }
            };
            end.status = status.as_u16();
            end.body = body;
            end.skew_ms = skew_ms.or(end.skew_ms);
            match status {
                StatusCode::TOO_MANY_REQUESTS | StatusCode::IM_A_TEAPOT => {
                    end.refused += 1;
                    let pause = pause.unwrap_or_else(|| backoff.next().max(self.backoff.0)).min(PAUSE_MAX);
                    tracing::warn!(
                        source = self.node,
                        url = shown,
                        attempt,
                        "the venue answers {status}: nothing is asked for {pause:?}"
                    );
                    let _alone = self.gate.lock().await;
                    tokio::time::sleep(pause).await;
                }
                status if status.is_server_error() => {
                    end.failed += 1;
                    tracing::warn!(source = self.node, url = shown, attempt, "the venue answers {status}");
                    if !last {
                        tokio::time::sleep(backoff.next()).await;
                    }
                }
                status => {
                    if !status.is_success() {
                        tracing::warn!(source = self.node, url = shown, "the venue answers {status}");
                    }
                    return end;
                }
            }
        }
        end
    }

    async fn once(&self, url: &str) -> Result<(StatusCode, Option<Duration>, Bytes, Option<i64>), String> {
        let text = |e: reqwest::Error| chain(&e.without_url());
        let mut answer = self.client.get(url).send().await.map_err(text)?;
        let status = answer.status();
        let header = |name| answer.headers().get(name).and_then(|v| v.to_str().ok());
        let pause = header(RETRY_AFTER).and_then(|s| s.trim().parse().ok()).map(Duration::from_secs);
        let skew_ms = header(DATE).and_then(|date| skew_ms(date, self.clock.now_ns()));
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(text)? {
            if body.len() + part.len() > BODY_MAX {
                return Err(format!("the answer is longer than {BODY_MAX} bytes"));
            }
            body.extend_from_slice(&part);
        }
        Ok((status, pause, body.into(), skew_ms))
    }
}

/// The time of a `Date` header less ours, milliseconds; it has whole seconds, so up to one counts as none.
pub(crate) fn skew_ms(date: &str, now_ns: i64) -> Option<i64> {
    let theirs_ms = chrono::DateTime::parse_from_rfc2822(date).ok()?.timestamp_millis();
    let behind = theirs_ms - now_ns / 1_000_000;
    // The header says the second that has begun: their clock is at `theirs` to `theirs + 1 s`.
    Some(if behind > 0 { behind } else { (behind + 1000).min(0) })
}

/// An error with what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_header_tells_the_venues_clock_to_the_second() {
        let date = "Tue, 15 Nov 1994 08:12:31 GMT";
        let at = 784_887_151_000i64;
        let skew = |ours_ms: i64| skew_ms(date, ours_ms * 1_000_000);
        assert_eq!(
            (skew(at), skew(at + 999), skew(at + 3000), skew(at - 3000)),
            (Some(0), Some(0), Some(-2000), Some(3000))
        );
        assert_eq!(skew_ms("yesterday", 0), None);
    }
}
