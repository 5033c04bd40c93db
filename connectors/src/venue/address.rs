//! Which feed a position or a log is of: the hosts and paths that its connections lead to.
//!
//! Ports, users, keys and queries, in which some venues name the symbols, may change freely. The state of a protocol (last ids, books) means
//! nothing at another feed: ids that are smaller there would be taken for rows that came before.

use url::Url;

use super::protocol::Endpoint;

/// The hosts and paths of endpoints, each once.
pub(crate) fn addresses(endpoints: &[Endpoint]) -> Vec<String> {
    let address = |endpoint: &Endpoint| {
        let url = Url::parse(&endpoint.url).ok()?;
        Some(format!("{}{}", url.host_str()?, url.path().trim_end_matches('/')))
    };
    let mut all: Vec<String> = endpoints.iter().filter_map(address).collect();
    all.sort();
    all.dedup();
    all
}

/// Refuses to go on from what is of another feed; older versions do not say what they are of.
pub(crate) fn check(what: &str, known: &[String], now: &[String]) -> Result<(), String> {
    if known.is_empty() || now.is_empty() || known.iter().any(|address| now.contains(address)) {
        return Ok(());
    }
    Err(format!(
        "{what} is of the feed at {}, and the graph connects to {} now, where its ids and state mean nothing: set the address back, or \
         begin from nothing (--from none)",
        known.join(", "),
        now.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_known_by_hosts_and_paths() {
        let of = |urls: &[&str]| {
            let endpoint = |url: &&str| Endpoint {
                url: (*url).to_owned(),
                hello: Vec::new(),
                send_gap_ns: 0,
                ping: None,
                stale_ns: 1,
                group: 0,
            };
            addresses(&urls.iter().map(endpoint).collect::<Vec<_>>())
        };
        let known = of(&["wss://me:pw@a.example:9443/stream?streams=x", "wss://a.example/stream?streams=y"]);
        assert_eq!(known, ["a.example/stream"]);
        for same in ["wss://a.example/stream?key=1", "ws://a.example:80/stream/"] {
            check("it", &known, &of(&[same])).unwrap();
        }
        for other in ["wss://b.example/stream", "wss://a.example/other"] {
            let refused = check("it", &known, &of(&[other])).unwrap_err();
            assert!(refused.contains("a.example/stream") && refused.contains("--from none"), "{refused}");
        }
        check("it", &[], &known).unwrap();
        check("it", &known, &of(&["wss://b.example/stream", "wss://a.example/stream"])).unwrap();
    }
}
