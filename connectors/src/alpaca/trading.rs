//! Alpaca's Trading API: wire types, REST and the stream of trade updates; for the `alpaca_account` source and the `alpaca` sink.
//!
//! Sources: [orders](https://docs.alpaca.markets/docs/orders-at-alpaca),
//! [REST reference](https://docs.alpaca.markets/reference/postorder),
//! [trade updates](https://docs.alpaca.markets/docs/websocket-streaming),
//! [account activities](https://docs.alpaca.markets/docs/account-activities).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::Problems;
use tidemill_engine::problem::Problem;

pub mod client;
pub mod errors;
pub mod skew;
pub mod stream;
pub mod symbols;
pub mod wire;

pub use client::{Client, Lost, Reply};
pub use errors::{Verdict, verdict};

const PAPER: &str = "https://paper-api.alpaca.markets";
const LIVE: &str = "https://api.alpaca.markets";
/// Requests a minute that a standard account has: <https://alpaca.markets/support/usage-limit-api-calls>.
pub const REQUESTS_PER_MINUTE: u32 = 200;
/// How many of them the source of reports makes at most, where the graph does not say.
pub const SOURCE_REQUESTS_PER_MINUTE: u32 = 50;
/// How many of them the sink of orders makes at most, where the graph does not say: what the source leaves.
pub const SINK_REQUESTS_PER_MINUTE: u32 = REQUESTS_PER_MINUTE - SOURCE_REQUESTS_PER_MINUTE;

/// Which account, and how it is reached.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// API key id: `${ENV}` or `file:PATH`. A paper account has its own.
    pub key: String,
    /// API secret key: `${ENV}` or `file:PATH`.
    pub secret: String,
    /// `true`: the live account, with real money. Default: the paper account.
    #[serde(default)]
    pub live: bool,
    /// Another address than the venue's, `http://` or `https://`: a server for tests. The stream is at `/stream` of it.
    #[serde(default)]
    pub url: Option<String>,
    /// Requests a minute that this node makes at most. The account's limit holds for all that use it together.
    pub requests_per_minute: u32,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key: _, secret: _, live, url, requests_per_minute } = self;
        let mut shown = f.debug_struct("Access");
        shown.field("key", &"***").field("secret", &"***").field("live", live).field("url", url);
        shown.field("requests_per_minute", requests_per_minute).finish()
    }
}

impl Access {
    /// Where the REST API is.
    pub fn rest_url(&self) -> &str {
        let own = if self.live { LIVE } else { PAPER };
        self.url.as_deref().unwrap_or(own).trim_end_matches('/')
    }

    /// Where the stream of trade updates is.
    pub fn stream_url(&self) -> String {
        let rest = self.rest_url();
        let rest = rest.strip_prefix("http").map_or_else(|| rest.to_owned(), |tail| format!("ws{tail}"));
        format!("{rest}/stream")
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::new();
        for (at, value, env) in
            [("key", &self.key, "APCA_API_KEY_ID"), ("secret", &self.secret, "APCA_API_SECRET_KEY")]
        {
            if value.trim().is_empty() {
                let problem = Problem::new(at, "is empty");
                problems.push(problem.hint(format!("write a reference: \"${{{env}}}\", or file:PATH")));
            } else if !value.bytes().all(|b| (0x21..0x7f).contains(&b)) {
                problems.push(Problem::new(at, "has characters that no key of Alpaca has"));
            }
        }
        if let Some(url) = &self.url {
            let parsed = url::Url::parse(url);
            if !parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
                problems.push(Problem::new("url", format!("`{url}` is no http:// or https:// URL")));
            } else if !self.live && url.trim_end_matches('/') == LIVE {
                let problem = Problem::new("url", "is the live account's");
                problems.push(problem.hint("write `live: true` where real money is meant"));
            }
        }
        if !(1..=100_000).contains(&self.requests_per_minute) {
            problems.push(Problem::new("requests_per_minute", "must be from 1 to 100000"));
        }
        problems
    }
}

/// The name that an order has in the graph: of one that Tidemill made, the 32 hexadecimal digits that its client order id begins
/// with (a replacement has more behind a dash); of another, the venue's id without its dashes.
pub fn order_name(client_order_id: &str, venue_id: &str) -> String {
    let own = client_order_id.split('-').next().unwrap_or_default();
    let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if own.len() == 32 && own.bytes().all(digits) { own.to_owned() } else { venue_id.replace('-', "") }
}

/// The venue's id in such a name of an order that Tidemill did not make.
pub fn venue_id(name: &str) -> Option<String> {
    let parts = [name.get(..8)?, name.get(8..12)?, name.get(12..16)?, name.get(16..20)?, name.get(20..32)?];
    (name.len() == 32).then(|| parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let text = r#"{"key":"PKX","secret":"hunter2","requests_per_minute":50}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn real_money_needs_to_be_asked_for_and_secrets_do_not_print() {
        let paper = access();
        assert_eq!(paper.rest_url(), "https://paper-api.alpaca.markets");
        assert_eq!(paper.stream_url(), "wss://paper-api.alpaca.markets/stream");
        let live = Access { live: true, ..access() };
        assert_eq!(live.stream_url(), "wss://api.alpaca.markets/stream");
        assert!(paper.problems().is_empty() && live.problems().is_empty());
        let sly = Access { url: Some("https://api.alpaca.markets/".into()), ..access() };
        assert!(sly.problems()[0].to_string().contains("live: true"), "{:?}", sly.problems());
        let local = Access { url: Some("http://127.0.0.1:9/".into()), ..access() };
        assert_eq!(local.stream_url(), "ws://127.0.0.1:9/stream");
        let shown = format!("{paper:?}");
        assert!(!shown.contains("PKX") && !shown.contains("hunter2"), "{shown}");
        let bad =
            Access { key: String::new(), url: Some("ftp://x".into()), requests_per_minute: 0, ..access() };
        let paths: Vec<String> = bad.problems().iter().map(|p| p.path.clone()).collect();
        assert_eq!(paths, ["key", "url", "requests_per_minute"]);
    }

    #[test]
    fn orders_are_named_by_us_or_by_the_venue() {
        let (ours, uuid) = ("00112233445566778899aabbccddeeff", "904837e3-3b76-47ec-b432-046db621571b");
        assert_eq!(order_name(ours, uuid), ours);
        assert_eq!(order_name(&format!("{ours}-1f"), uuid), ours);
        let theirs = order_name("my own id", uuid);
        assert_eq!(theirs, "904837e33b7647ecb432046db621571b");
        assert_eq!(venue_id(&theirs).as_deref(), Some(uuid));
        assert_eq!(venue_id("short"), None);
    }
}
