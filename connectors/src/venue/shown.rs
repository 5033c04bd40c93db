//! URLs and messages as they may be logged and captured: without secrets.

use serde_json::Value;
use url::Url;

/// Words in the names of fields and query parameters whose values are not shown.
const SECRETS: [&str; 5] = ["key", "secret", "token", "password", "sign"];

/// What is shown in a secret's place.
const BLANK: &str = "***";

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRETS.iter().any(|word| name.contains(word))
}

/// A URL without user, password and the values of query parameters that are named like secrets.
pub fn url(text: &str) -> String {
    let plain = tidemill_engine::storage::redact(text);
    let secret = |url: &Url| url.query_pairs().any(|(name, _)| is_secret(&name));
    let Some(mut parsed) = Url::parse(&plain).ok().filter(secret) else { return plain };
    let pairs: Vec<(String, String)> = parsed
        .query_pairs()
        .map(|(name, value)| {
            (name.to_string(), if is_secret(&name) { BLANK.into() } else { value.to_string() })
        })
        .collect();
    parsed.query_pairs_mut().clear().extend_pairs(pairs);
    parsed.to_string()
}

/// Blanks the values of fields that are named like secrets, however deep; whether there were any.
pub fn blank(value: &mut Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter_mut().fold(false, |any, (name, value)| {
            if is_secret(name) {
                *value = BLANK.into();
                return true;
            }
            blank(value) || any
        }),
        // All of them, not only up to the first.
        Value::Array(items) => items.iter_mut().filter_map(|item| blank(item).then_some(())).count() > 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_show_everything_but_secrets() {
        assert_eq!(url("wss://me:pw@x/y?a=1"), "wss://x/y?a=1");
        assert_eq!(url("wss://x/y?streams=a@b/c&apiKey=abc"), "wss://x/y?streams=a%40b%2Fc&apiKey=***");
        // As written, where there is nothing to hide: a capture is served by path and query.
        assert_eq!(
            url("wss://x:9443/stream?streams=a@depth@100ms/b"),
            "wss://x:9443/stream?streams=a@depth@100ms/b"
        );
        assert_eq!(url("not a url"), "not a url");
    }
}
