//! The mapping at work: messages in, rows out.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value};
use tidemill_engine::json::Decoder;
use tidemill_engine::source::Reject;
use tidemill_engine::spec::TimeUnitName;

use super::Params;
use super::path::Path;
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::once::Unseen;
use crate::venue::protocol::{Endpoint, Outgoing, Output, Protocol};
use crate::venue::shown::blank;

/// How messages become rows.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub rows: Option<Path>,
    pub only: Vec<(Path, Value)>,
    pub once: Option<(Path, Option<Path>)>,
    /// One a column.
    pub paths: Vec<Path>,
    pub columns: SchemaRef,
    pub unit: TimeUnitName,
}

/// A feed of JSON messages.
pub(super) struct Json {
    params: Params,
    mapping: Mapping,
    decoder: Decoder,
    once: Unseen,
}

impl Json {
    pub fn new(params: &Params, mapping: Mapping) -> Self {
        let decoder = Decoder::new(mapping.columns.clone(), mapping.unit);
        Self { params: params.clone(), mapping, decoder, once: Unseen::default() }
    }

    fn message(&mut self, frame: &Frame, out: &mut Output) {
        let message: Value = match serde_json::from_slice(&frame.data) {
            Ok(message) => message,
            Err(error) => return out.reject(frame, self.decoder.len(), format!("not valid JSON: {error}")),
        };
        let wanted = |(path, value): &(Path, Value)| path.find(&message, &message) == Some(value);
        if !self.mapping.only.iter().filter(|(path, _)| path.is_of_message()).all(wanted) {
            return out.count("passed_over");
        }
        let rows = match &self.mapping.rows {
            None => Some(&message),
            Some(path) => path.find(&message, &message),
        };
        match rows {
            // Answers to subscriptions, heartbeats and the like.
            None | Some(Value::Null) => out.count("passed_over"),
            Some(Value::Array(rows)) => rows.iter().for_each(|row| self.row(frame, &message, row, out)),
            Some(row) => self.row(frame, &message, row, out),
        }
    }

    fn row(&mut self, frame: &Frame, message: &Value, row: &Value, out: &mut Output) {
        if !self.mapping.only.iter().all(|(path, value)| path.find(message, row) == Some(value)) {
            return out.count("passed_over");
        }
        let before = self.decoder.len();
        let mut refuse = |reason: String| {
            let raw = match std::ptr::eq(message, row) {
                true => frame.data.to_vec(),
                false => row.to_string().into_bytes(),
            };
            out.rejects.push(Reject { seq: 0, before, raw, key: None, reason });
        };
        if let Some((sequence, by)) = &self.mapping.once {
            let Some(number) = sequence.find(message, row).and_then(whole) else {
                return refuse("its sequence is no whole number".into());
            };
            let by = by.as_ref().and_then(|by| by.find(message, row)).map(text).unwrap_or_default();
            if !self.once.take(&by, number) {
                return out.count("duplicates");
            }
        }
        let mut fields = Map::new();
        for (field, path) in self.mapping.columns.fields().iter().zip(&self.mapping.paths) {
            let value = match path {
                Path::Received => {
                    let at = DateTime::from_timestamp_nanos(frame.received_ns);
                    Some(Value::String(at.to_rfc3339_opts(SecondsFormat::Nanos, true)))
                }
                path => path.find(message, row).cloned(),
            };
            if let Some(value) = value {
                fields.insert(field.name().clone(), value);
            }
        }
        if let Err(reason) = self.decoder.push(Value::Object(fields).to_string().as_bytes()) {
            refuse(reason);
        }
    }
}

/// A whole number, quoted or not.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A message as it is sent and as it may be shown.
fn outgoing(message: &Value) -> Outgoing {
    let text = text(message);
    let mut shown: Value = match message {
        Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        other => other.clone(),
    };
    match blank(&mut shown) {
        true => Outgoing { text, shown: shown.to_string() },
        false => Outgoing::plain(text),
    }
}

impl Protocol for Json {
    fn endpoints(&self) -> Vec<Endpoint> {
        let params = &self.params;
        let endpoint = Endpoint {
            url: params.url.clone(),
            hello: params.send.iter().map(outgoing).collect(),
            send_gap_ns: params.send_gap.ns(),
            ping: params.ping.as_ref().map(text),
            stale_ns: params.connection.stale_after.ns(),
            group: 0,
        };
        vec![endpoint; params.connection.redundant as usize]
    }

    fn schema(&self) -> SchemaRef {
        self.mapping.columns.clone()
    }

    fn on_frame(&mut self, frame: &Frame, out: &mut Output) {
        if frame.kind == FrameKind::Received {
            self.message(frame, out);
        }
    }

    fn rows(&self) -> usize {
        self.decoder.len()
    }

    fn finish(&mut self) -> RecordBatch {
        self.decoder.finish()
    }

    fn state(&self) -> Value {
        if self.mapping.once.is_some() { self.once.state() } else { Value::Null }
    }

    fn state_is_whole(&self) -> bool {
        self.mapping.once.is_none()
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        self.once.restore(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidemill_engine::component::SourceKind;
    use tidemill_engine::component::{PlanContext, Problems, SourcePlan};

    fn params(more: Value) -> Params {
        let mut with = json!({
            "url": "wss://x/y",
            "rows": "data",
            "where": {"$.channel": "trades"},
            "columns": {
                "ts": {"path": "t", "type": "timestamp"},
                "symbol": {"path": "$.symbol", "type": "symbol"},
                "price": "f64",
                "size": {"path": "q.0", "type": "f64?"},
            },
            "time_unit": "ms",
        });
        for (name, value) in more.as_object().unwrap() {
            with[name] = value.clone();
        }
        serde_json::from_value(with).unwrap()
    }

    async fn plan(more: Value) -> Result<SourcePlan, Problems> {
        let cx =
            PlanContext { job: "j".into(), node: "n".into(), base: ".".into(), clock: Default::default() };
        super::super::Websocket::plan(params(more), &cx).await
    }

    fn json_of(more: Value, messages: &[&str]) -> (Vec<String>, Output) {
        let params = params(more);
        let mut problems = Problems::new();
        let mapping = super::super::mapping(&params, &mut problems).unwrap();
        let mut protocol = Json::new(&params, mapping);
        let mut out = Output::default();
        for message in messages {
            let data = bytes::Bytes::copy_from_slice(message.as_bytes());
            protocol.on_frame(
                &Frame { received_ns: 5, connection: 0, kind: FrameKind::Received, data },
                &mut out,
            );
        }
        let rows = protocol.finish();
        let mut encoder = tidemill_engine::json::Encoder::new(rows.schema(), Default::default());
        let rows = encoder.encode(&rows).iter().map(|r| String::from_utf8(r.to_vec()).unwrap()).collect();
        (rows, out)
    }

    #[test]
    fn paths_lead_to_columns_and_what_is_wrong_is_refused_beside_what_is_right() {
        let (rows, out) = json_of(
            json!({}),
            &[
                r#"{"channel":"trades","symbol":"A","data":[{"t":1,"price":"1.50","q":["2"]},{"t":2,"price":"much"},{"t":3,"price":2}]}"#,
                r#"{"channel":"quotes","symbol":"A","data":[{"t":1}]}"#,
                r#"{"channel":"trades","event":"subscribed"}"#,
                r#"{"channel":"trades","symbol":"A","data":{"t":4,"price":3,"q":[1e-8]}}"#,
                r#"{"channel":"tra"#,
                r#"{"channel":"trades","data":[7]}"#,
            ],
        );
        assert_eq!(
            rows,
            [
                r#"{"ts":"1970-01-01T00:00:00.001Z","symbol":"A","price":1.5,"size":2.0}"#,
                r#"{"ts":"1970-01-01T00:00:00.003Z","symbol":"A","price":2.0,"size":null}"#,
                r#"{"ts":"1970-01-01T00:00:00.004Z","symbol":"A","price":3.0,"size":1e-8}"#,
            ]
        );
        assert_eq!(out.counts["passed_over"], 2);
        let rejects: Vec<(usize, &str)> =
            out.rejects.iter().map(|r| (r.before, std::str::from_utf8(&r.raw).unwrap())).collect();
        assert_eq!(rejects, [(1, r#"{"t":2,"price":"much"}"#), (3, r#"{"channel":"tra"#), (3, "7")]);
        assert!(out.rejects[0].reason.contains("price"), "{}", out.rejects[0].reason);
    }

    #[test]
    fn what_comes_twice_is_taken_once() {
        let once = json!({"once": {"sequence": "id", "by": "$.symbol"}});
        let message = |symbol: &str, id: u32| {
            format!(
                r#"{{"channel":"trades","symbol":"{symbol}","data":[{{"id":"{id}","t":{id},"price":1}}]}}"#
            )
        };
        let messages = [message("A", 1), message("A", 1), message("B", 1), message("A", 3), message("A", 2)];
        let (rows, out) = json_of(once, &messages.each_ref().map(String::as_str));
        assert_eq!((rows.len(), out.counts["duplicates"]), (4, 1));
    }

    #[test]
    fn secrets_are_sent_and_never_shown() {
        let message = json!({"op": "auth", "args": [{"apiKey": "abc", "time": 5}], "signature": "xyz"});
        let sent = outgoing(&message);
        assert!(sent.text.contains("abc") && sent.text.contains("xyz"));
        assert_eq!(
            format!("{sent:?}"),
            r#"{"op":"auth","args":[{"apiKey":"***","time":5}],"signature":"***"}"#
        );
        let text = outgoing(&json!(r#"{"token":"abc"}"#));
        assert_eq!((text.text.as_str(), text.shown.as_str()), (r#"{"token":"abc"}"#, r#"{"token":"***"}"#));
        assert_eq!(outgoing(&json!("ping")), Outgoing::plain("ping"));
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_with_its_place() {
        assert!(plan(json!({})).await.is_ok());
        let wrong = json!({
            "url": "https://x", "rows": "a..b", "once": null,
            "connection": {"redundant": 2, "stale_after": 0},
            "columns": {"ts": {"path": "t"}, "price": "f65", "size": {"pth": "q", "type": "f64"}},
        });
        let problems = plan(wrong).await.err().unwrap();
        let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "url",
                "once",
                "rows",
                "columns.ts",
                "columns.size.pth",
                "columns.price",
                "connection.stale_after"
            ]
        );
    }
}
