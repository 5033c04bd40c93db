//! Alpaca's REST API: one request, within the account's limit, tried once. What its answer means is said in
//! [`errors`](super::errors); whether to ask again, by who asks.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use tidemill_engine::clock::Clock;

use super::Access;
use super::errors::{Verdict, verdict};
use super::skew::Skew;
use super::symbols::position_symbol;
use super::wire::{Order, Position};
use crate::venue::live::fetch::chain;

/// Bytes an answer may have.
const BODY_MAX: usize = 64 << 20;
/// The longest wait that the venue may ask for.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// How long the venue wants us to wait (`Retry-After`, `X-Ratelimit-Reset`).
    pub wait: Option<Duration>,
    /// Body.
    pub body: Bytes,
}

/// There was no whole answer: the request may have been taken, or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// What is known of an order at the venue.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// It is there.
    Order(Box<Order>),
    /// There is none.
    Missing,
    /// The venue did not say.
    NotSaid(Verdict),
}

/// Asks the venue.
pub struct Client {
    http: reqwest::Client,
    base: String,
    limit: DefaultDirectRateLimiter,
    clock: Clock,
    skew: Skew,
}

impl Client {
    /// For an account; an answer may take `timeout`.
    pub fn new(access: &Access, timeout: Duration, clock: Clock) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in [("apca-api-key-id", &access.key), ("apca-api-secret-key", &access.secret)] {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("`{name}` has characters that no key has"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            .tcp_nodelay(true)
            .build()
            .map_err(|e| format!("cannot make an HTTP client: {e}"))?;
        // The venue counts by the minute: a burst and what is refilled in a minute stay within its limit together.
        let per_minute = access.requests_per_minute.max(1);
        let burst = NonZeroU32::new(per_minute / 4).unwrap_or(NonZeroU32::MIN);
        let steady = NonZeroU32::new(per_minute - per_minute / 4).unwrap_or(NonZeroU32::MIN);
        let limit = RateLimiter::direct(Quota::per_minute(steady).allow_burst(burst));
        Ok(Self { http, base: access.rest_url().to_owned(), limit, clock, skew: Skew::default() })
    }

    /// Asks once.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Result<Reply, Lost> {
        self.limit.until_ready().await;
        let method = Method::from_bytes(method.as_bytes()).map_err(|e| Lost(e.to_string()))?;
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_owned());
        }
        let sent = self.clock.now_ns();
        let mut response = request.send().await.map_err(|e| Lost(format!("no answer: {}", chain(&e))))?;
        if let Some(date) = response.headers().get(DATE).and_then(|date| date.to_str().ok()) {
            self.skew.observe(date, sent, self.clock.now_ns());
        }
        let (status, wait) = (response.status().as_u16(), self.wait(response.headers()));
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(part)) if body.len() + part.len() > BODY_MAX => {
                    return Err(Lost(format!("the answer is longer than {BODY_MAX} bytes")));
                }
                Ok(Some(part)) => body.extend_from_slice(&part),
                Ok(None) => return Ok(Reply { status, wait, body: body.into() }),
                Err(e) => return Err(Lost(format!("the answer was cut off: {}", chain(&e)))),
            }
        }
    }

    /// How far this machine's clock is from the venue's, as far as answers have told.
    pub fn skew(&self) -> &Skew {
        &self.skew
    }

    /// `Retry-After` in seconds, or `X-Ratelimit-Reset` in seconds of the epoch, which stands in every answer and counts where nothing
    /// remains.
    fn wait(&self, headers: &HeaderMap) -> Option<Duration> {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
        let after = number(RETRY_AFTER.as_str());
        let reset = || {
            let left = number("x-ratelimit-reset")? - self.clock.now_ns() as f64 / 1e9;
            Some(left.max(0.05))
        };
        let seconds = after.or_else(reset).filter(|s| s.is_finite() && *s >= 0.0)?;
        Some(Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64())))
    }

    /// Asks for an object; `Err` where there is none, or no answer.
    pub async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Verdict> {
        let reply = self.ask("GET", path, None).await.map_err(|Lost(reason)| Verdict::Unknown(reason))?;
        match verdict(&reply) {
            Verdict::Done => serde_json::from_slice(&reply.body).map_err(|e| {
                Verdict::Unknown(format!("GET {path}: the answer is not what the venue documents: {e}"))
            }),
            other => Err(other),
        }
    }

    async fn find(&self, path: &str) -> Found {
        match self.get::<Order>(path).await {
            Ok(order) => Found::Order(Box::new(order)),
            Err(Verdict::Missing) => Found::Missing,
            Err(verdict) => Found::NotSaid(verdict),
        }
    }

    /// The order of our id: <https://docs.alpaca.markets/reference/getorderbyclientorderid>.
    pub async fn order_by_client_id(&self, id: &str) -> Found {
        self.find(&format!("/v2/orders:by_client_order_id?client_order_id={id}")).await
    }

    /// The order of the venue's id.
    pub async fn order(&self, id: &str) -> Found {
        self.find(&format!("/v2/orders/{id}")).await
    }

    /// What is held of a symbol; nothing where there is no position: <https://docs.alpaca.markets/reference/getopenposition>.
    pub async fn position(&self, symbol: &str) -> Result<Option<Position>, Verdict> {
        let symbol = position_symbol(symbol);
        if !symbol.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(Verdict::Unknown(format!("`{symbol}` is no symbol that can be asked for")));
        }
        match self.get(&format!("/v2/positions/{symbol}")).await {
            Ok(position) => Ok(Some(position)),
            Err(Verdict::Missing) => Ok(None),
            Err(verdict) => Err(verdict),
        }
    }

    /// The order that stands for `order` now: the last of those that took its place.
    pub async fn latest(&self, order: Order) -> Found {
        let mut order = order;
        // An order that was changed more often than this is not followed to its end.
        for _ in 0..1000 {
            let Some(next) = order.replaced_by.clone() else { break };
            match self.order(&next).await {
                Found::Order(found) => order = *found,
                other => return other,
            }
        }
        Found::Order(Box::new(order))
    }
}
