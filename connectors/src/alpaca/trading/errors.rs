//! What an answer of the Trading API means for an order that was sent.
//!
//! | answer | verdict |
//! |---|---|
//! | 2xx | [`Verdict::Done`] |
//! | 401, or code 40110000 | [`Verdict::NotUs`]: the keys are wrong, for every request |
//! | 404 | [`Verdict::Missing`] |
//! | 422 `client_order_id must be unique` | [`Verdict::Duplicate`]: it is there already |
//! | 429 | [`Verdict::Busy`]: not taken; again after a wait |
//! | other 4xx with the venue's words | [`Verdict::Refused`] |
//! | 408, 5xx, anything without the venue's words (a proxy's page) | [`Verdict::Unknown`]: it may have been taken |

use std::time::Duration;

use super::client::Reply;
use super::wire::Refusal;

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Done,
    /// It was refused, and will be again.
    Refused(String),
    /// The venue has an order of that name.
    Duplicate,
    /// The venue has no such thing.
    Missing,
    /// It was not taken; the venue wants us to wait.
    Busy(Duration),
    /// Nobody knows whether it was taken.
    Unknown(String),
    /// The venue does not know who we are.
    NotUs(String),
}

/// Wait where a 429 names none: <https://docs.alpaca.markets/docs/usage-limit> counts by the minute.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// What an answer means.
pub fn verdict(reply: &Reply) -> Verdict {
    let status = reply.status;
    if (200..300).contains(&status) {
        return Verdict::Done;
    }
    if status == 429 {
        return Verdict::Busy(reply.wait.unwrap_or(BUSY_WAIT));
    }
    let said: Option<Refusal> = serde_json::from_slice(&reply.body).ok();
    let Some(said) = said.filter(|_| status != 408 && (400..500).contains(&status)) else {
        let body: String = String::from_utf8_lossy(&reply.body).chars().take(200).collect();
        return Verdict::Unknown(format!("HTTP {status} {}", body.trim()).trim_end().to_owned());
    };
    let words = said.message.to_lowercase();
    let unauthorized = matches!(words.as_str(), "forbidden." | "unauthorized" | "unauthorized.")
        || words.contains("request is not authorized");
    if status == 401 || said.code == Some(40_110_000) || (said.code.is_none() && unauthorized) {
        return Verdict::NotUs(format!(
            "alpaca does not know this key (HTTP {status}: {}): check `key` and `secret`; a paper account has its own",
            said.message
        ));
    }
    if words.contains("client_order_id must be unique") {
        return Verdict::Duplicate;
    }
    if status == 404 {
        return Verdict::Missing;
    }
    Verdict::Refused(explained(status, &said))
}

/// The venue's words, its number, and what to do.
fn explained(status: u16, said: &Refusal) -> String {
    let code = said.code.map_or(format!("HTTP {status}"), |code| code.to_string());
    let words = &said.message;
    match advice(said) {
        Some(advice) => format!("alpaca {code}: {words}: {advice}"),
        None => format!("alpaca {code}: {words}"),
    }
}

/// What to do about a refusal, by its words (the codes are shared by many):
/// <https://alpaca.markets/learn/how-to-fix-common-trading-api-errors-at-alpaca>.
pub fn advice(said: &Refusal) -> Option<&'static str> {
    const BY_WORDS: [(&str, &str); 17] = [
        ("insufficient buying power", "the order is worth more than the account may buy"),
        (
            "insufficient qty",
            "more is sold than the position has, or other orders hold it (stops: `protect: { at: machine }`)",
        ),
        (
            "insufficient balance",
            "more is sold than there is, or other orders hold it (stops: `protect: { at: machine }`)",
        ),
        ("wash trade", "a working order of the other side is there: cancel it first"),
        ("pattern day trad", "an account below 25,000 USD may make three day trades in five days"),
        ("not allowed to short", "the account may not sell short"),
        ("cannot be sold short", "the asset cannot be borrowed"),
        ("account is blocked", "write to the venue"),
        ("trading is blocked", "write to the venue"),
        ("not tradable", "the venue does not trade this asset"),
        ("not active", "the venue does not trade this asset"),
        ("not found", "the venue does not know it"),
        ("sub-penny", "prices of 1 USD and more have two decimals, below it four: set the instrument's tick"),
        (
            "fractional",
            "fractions are traded as day orders, and not of every asset: set the instrument's lot",
        ),
        ("extended hours", "only limit orders for the day trade outside regular hours"),
        ("cost basis", "the order is worth less than the venue takes"),
        ("not cancelable", "the order is over, or about to be"),
    ];
    let words = said.message.to_lowercase();
    let by_words = BY_WORDS.iter().find(|(part, _)| words.contains(part)).map(|(_, advice)| *advice);
    by_words.or(match said.code {
        Some(40_310_100) => Some("pattern day trading protection: the order would be a fourth day trade"),
        Some(42_210_000) => Some("a value is one that the venue does not take for this order"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, wait: None, body: body.to_owned().into() }
    }

    #[test]
    fn every_documented_error_has_its_meaning() {
        for (status, body, words) in [
            (403, r#"{"code":40310000,"message":"insufficient buying power"}"#, "worth more than"),
            (
                403,
                r#"{"buying_power":"0","code":40310000,"cost_basis":"10","message":"insufficient buying power"}"#,
                "worth more than",
            ),
            (
                403,
                r#"{"code":40310000,"message":"insufficient qty available for order (requested: 10, available: 5)"}"#,
                "more is sold",
            ),
            (
                403,
                r#"{"code":40310000,"message":"potential wash trade detected. use complex orders"}"#,
                "other side",
            ),
            (
                403,
                r#"{"code":40310100,"message":"trade denied due to pattern day trading protection"}"#,
                "three day trades",
            ),
            (403, r#"{"code":40310000,"message":"account is not allowed to short"}"#, "sell short"),
            (403, r#"{"code":40310000,"message":"account is blocked"}"#, "write to the venue"),
            (422, r#"{"code":42210000,"message":"asset \"XXX\" not found"}"#, "does not know it"),
            (
                422,
                r#"{"code":42210000,"message":"invalid limit_price 10.123. sub-penny increment does not fulfill minimum pricing criteria"}"#,
                "tick",
            ),
            (422, r#"{"code":42210000,"message":"fractional orders must be DAY orders"}"#, "day orders"),
            (422, r#"{"code":42210000,"message":"order is not cancelable"}"#, "is over"),
            (422, r#"{"code":42210000,"message":"invalid order type for crypto order"}"#, "does not take"),
            (422, r#"{"code":40010001,"message":"qty is required"}"#, "alpaca 40010001: qty is required"),
            (400, r#"{"code":40010000,"message":"request body format is invalid"}"#, "alpaca 40010000"),
            (409, r#"{"message":"conflict"}"#, "alpaca HTTP 409: conflict"),
        ] {
            let Verdict::Refused(reason) = verdict(&reply(status, body)) else { panic!("{status} {body}") };
            assert!(reason.contains(words), "{reason}");
        }
        for (status, body) in [
            (401, r#"{"message":"unauthorized."}"#),
            (401, r#"{"code":40110000,"message":"request is not authorized"}"#),
            (403, r#"{"code":40110000,"message":"access key verification failed"}"#),
            (403, r#"{"message":"forbidden."}"#),
        ] {
            assert!(matches!(verdict(&reply(status, body)), Verdict::NotUs(_)), "{status} {body}");
        }
        let unique = r#"{"code":40010001,"message":"client_order_id must be unique"}"#;
        assert_eq!(verdict(&reply(422, unique)), Verdict::Duplicate);
        let none = r#"{"code":40410000,"message":"order not found for xyz"}"#;
        assert_eq!(verdict(&reply(404, none)), Verdict::Missing);
        assert_eq!(verdict(&reply(200, "")), Verdict::Done);
        assert_eq!(verdict(&reply(204, "")), Verdict::Done);
        assert_eq!(verdict(&reply(429, "")), Verdict::Busy(BUSY_WAIT));
        let busy = Reply { wait: Some(Duration::from_secs(9)), ..reply(429, "{}") };
        assert_eq!(verdict(&busy), Verdict::Busy(Duration::from_secs(9)));
        // What is not the venue's word says nothing of the order.
        for (status, body) in [
            (500, r#"{"code":50010000,"message":"internal server error occurred"}"#),
            (502, "<html>"),
            (503, ""),
            (504, r#"{"code":50410000,"message":"request timed out"}"#),
            (408, r#"{"message":"timeout"}"#),
            (403, "<html>a proxy says no</html>"),
            (404, "not here"),
            (302, ""),
        ] {
            assert!(matches!(verdict(&reply(status, body)), Verdict::Unknown(_)), "{status} {body}");
        }
    }
}
