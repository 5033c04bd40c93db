//! Frames that are no event of the channel: what they are, and what is said of them.
//!
//! | frame | outcome |
//! |---|---|
//! | an answer to a subscription (`{"result":null,"id":1}`) | nothing |
//! | an error (`{"error":{"code":2,"msg":…}}`, `{"code":-1121,"msg":"Invalid symbol."}`) | a notice, counted as `venue_errors` |
//! | the venue is about to close (`serverShutdown`) | a notice; the connection is made again when it closes |
//! | an event of another channel (a capture of several) | counted as `other_channels` |
//! | anything else: broken JSON, an unknown type, a field that is missing or wrong | refused, with the reason |

use serde_json::Value;

use super::Channel;
use crate::venue::frame::Frame;
use crate::venue::protocol::Output;

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is lost by it.
    Harmless,
    /// It was, or may have been, an event of the channel, and it is lost.
    Lost,
}

impl Channel {
    /// Its stream's name between the first `@` and the next `@` or `_`.
    fn stream_kind(self) -> &'static str {
        match self {
            Self::Trades => "trade",
            Self::AggTrades => "aggTrade",
            Self::Quotes => "bookTicker",
            Self::Book => "depth",
            Self::Bars => "kline",
            Self::Tickers => "ticker",
            Self::MarkPrices => "markPrice",
            Self::Liquidations => "forceOrder",
        }
    }

    const ALL: [Self; 8] = [
        Self::Trades,
        Self::AggTrades,
        Self::Quotes,
        Self::Book,
        Self::Bars,
        Self::Tickers,
        Self::MarkPrices,
        Self::Liquidations,
    ];
}

/// The symbol (in lower case) and the kind of the stream that a frame names, as far as that can be read: the frame may be cut.
pub fn stream_of(data: &[u8]) -> Option<(&str, &str)> {
    let rest = data.strip_prefix(br#"{"stream":""#)?;
    let end = rest.iter().position(|b| *b == b'"')?;
    let (symbol, kind) = std::str::from_utf8(&rest[..end]).ok()?.split_once('@')?;
    Some((symbol, kind.split(['@', '_']).next().unwrap_or(kind)))
}

/// Says what a frame is that was refused with `reason`; `before` is how many rows the protocol keeps.
pub fn explain(frame: &Frame, channel: Channel, before: usize, reason: &str, out: &mut Output) -> Verdict {
    if let Some((_, kind)) = stream_of(&frame.data) {
        let other = Channel::ALL.iter().any(|c| *c != channel && c.stream_kind() == kind);
        if other {
            out.count("other_channels");
            return Verdict::Harmless;
        }
    }
    let value: Value = match serde_json::from_slice(&frame.data) {
        Ok(value) => value,
        Err(e) => {
            let e = crate::venue::json::first_line(&e);
            out.reject(frame, before, format!("the frame is not JSON: {e}"));
            return Verdict::Lost;
        }
    };
    if let Some(error) = venue_error(&value) {
        out.count("venue_errors");
        out.notices.push(error);
        return Verdict::Harmless;
    }
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(str::to_owned);
    if text(&value, "e").as_deref() == Some("serverShutdown") {
        out.count("server_shutdowns");
        out.notices.push("binance says that the server is about to close the connection".into());
        return Verdict::Harmless;
    }
    if value.get("result").is_some() && value.get("id").is_some() {
        return Verdict::Harmless;
    }
    let kind = value.get("data").and_then(|data| text(data, "e")).or_else(|| text(&value, "e"));
    match kind {
        Some(kind) if !known(&kind) => {
            out.reject(frame, before, format!("unknown message type `{kind}`"));
            Verdict::Harmless
        }
        _ => {
            out.reject(frame, before, reason);
            Verdict::Lost
        }
    }
}

fn known(kind: &str) -> bool {
    const TYPES: [&str; 8] = [
        "trade",
        "aggTrade",
        "bookTicker",
        "depthUpdate",
        "kline",
        "24hrTicker",
        "markPriceUpdate",
        "forceOrder",
    ];
    TYPES.contains(&kind)
}

/// The venue's error in a frame or in the body of a REST answer.
pub fn venue_error(value: &Value) -> Option<String> {
    let error = value.get("error").unwrap_or(value);
    let code = error.get("code").and_then(Value::as_i64)?;
    let message = error.get("msg").and_then(Value::as_str).unwrap_or("no message");
    Some(format!("binance error {code}: {message}"))
}

/// What a REST answer that is no success says.
pub fn failure(url: &str, status: u16, body: &[u8]) -> String {
    let said = serde_json::from_slice(body).ok().as_ref().and_then(venue_error);
    let said = said.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
        if text.is_empty() { "no answer".into() } else { text }
    });
    match status {
        0 => format!("{url} was not answered: {said}"),
        _ => format!("{url} was answered with {status}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::frame::FrameKind;

    fn outcome(text: &str) -> (Verdict, Output) {
        let data = text.as_bytes().to_vec().into();
        let frame = Frame { received_ns: 1, connection: 0, kind: FrameKind::Received, data };
        let mut out = Output::default();
        let verdict = explain(&frame, Channel::Trades, 3, "missing field `p`", &mut out);
        (verdict, out)
    }

    #[test]
    fn answers_and_other_channels_lose_nothing_and_say_nothing() {
        for text in [r#"{"result":null,"id":1}"#, r#"{"result":["btcusdt@trade"],"id":3}"#] {
            let (verdict, out) = outcome(text);
            assert_eq!((verdict, out.rejects.len(), out.notices.len()), (Verdict::Harmless, 0, 0), "{text}");
        }
        let (verdict, out) = outcome(r#"{"stream":"btcusdt@kline_1m","data":{"e":"kline"}}"#);
        assert_eq!((verdict, out.counts["other_channels"], out.rejects.len()), (Verdict::Harmless, 1, 0));
    }

    #[test]
    fn the_venues_errors_are_notices_with_code_and_message() {
        for (text, said) in [
            (
                r#"{"error":{"code":2,"msg":"Invalid request: too many parameters"},"id":1}"#,
                "binance error 2: Invalid request: too many parameters",
            ),
            (r#"{"code":-1121,"msg":"Invalid symbol."}"#, "binance error -1121: Invalid symbol."),
        ] {
            let (verdict, out) = outcome(text);
            assert_eq!(
                (verdict, out.notices, out.counts["venue_errors"]),
                (Verdict::Harmless, vec![said.into()], 1)
            );
        }
    }

    #[test]
    fn what_is_broken_is_refused_with_its_bytes() {
        let cut = r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":16725"#;
        let (verdict, out) = outcome(cut);
        assert_eq!(
            (verdict, out.rejects[0].raw.as_slice(), out.rejects[0].before),
            (Verdict::Lost, cut.as_bytes(), 3)
        );
        assert!(out.rejects[0].reason.starts_with("the frame is not JSON: "), "{}", out.rejects[0].reason);
        let (verdict, out) = outcome(r#"{"stream":"btcusdt@trade","data":{"e":"trade"}}"#);
        assert_eq!((verdict, out.rejects[0].reason.as_str()), (Verdict::Lost, "missing field `p`"));
        let (verdict, out) = outcome(r#"{"stream":"btcusdt@novelty","data":{"e":"novelty"}}"#);
        assert_eq!(
            (verdict, out.rejects[0].reason.as_str()),
            (Verdict::Harmless, "unknown message type `novelty`")
        );
        assert_eq!(outcome("pong").1.rejects.len(), 1);
    }

    #[test]
    fn a_failed_request_says_what_the_venue_said() {
        let said = failure("https://x/depth?symbol=A", 400, br#"{"code":-1121,"msg":"Invalid symbol."}"#);
        assert_eq!(
            said,
            "https://x/depth?symbol=A was answered with 400: binance error -1121: Invalid symbol."
        );
        assert!(failure("u", 0, b"connection refused").ends_with("was not answered: connection refused"));
    }
}
