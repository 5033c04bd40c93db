//! Captures: every raw frame of a feed on disk or in an object store, to be replayed, looked into and served.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Builder, RecordBatch, StringBuilder, StringDictionaryBuilder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::row;

use crate::venue::feed::{FeedParams, plan_feed};
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::protocol::{Endpoint, Output, Protocol};

pub(crate) mod counted;
pub mod import;
pub mod info;
pub mod reader;
pub mod record;
pub mod serve;
pub mod session;
pub mod writer;

/// The raw frames of a capture as rows, before anything looks into them.
///
/// A capture is what a venue's source wrote with `connection: {capture: URL}`, or what `tidemill capture import` made of a
/// recorded session. Columns: `ts` and `received_at` (when the frame came or went, by the machine that
/// captured it), `connection`, `kind` (`opened`, `closed`, `received`, `sent`, `response`), `url` (of a response, or of
/// the connection), `status` (of a response) and `text`, in which bytes that are not UTF-8 are replaced. To get a
/// venue's own rows, set `connection: {replay: URL}` in its source, or use `tidemill replay`.
///
/// ```yaml
/// sources:
///   frames: { kind: capture, with: { url: ./captures/trades } }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Where it is: a path, or an `s3://`, `gs://` or `az://` URL.
    pub url: String,
}

/// The kind.
pub struct Capture;

#[async_trait]
impl SourceKind for Capture {
    const KIND: &'static str = "capture";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let connection = FeedParams { replay: Some(params.url), ..FeedParams::default() };
        plan_feed(|| Box::new(Raw::new()), connection, cx)
    }
}

/// A protocol that understands nothing: every frame is a row.
pub(crate) struct Raw {
    schema: SchemaRef,
    ts: Vec<i64>,
    connection: UInt64Builder,
    kind: StringDictionaryBuilder<Int32Type>,
    url: StringDictionaryBuilder<Int32Type>,
    status: Int64Builder,
    text: StringBuilder,
    /// Of each connection, its URL.
    urls: Vec<Option<String>>,
}

/// Connections whose URLs are remembered.
const URLS_MAX: usize = 4096;

impl Raw {
    pub(crate) fn new() -> Self {
        let fields = vec![
            Field::new(row::TS, row::ts_type(), false),
            Field::new("received_at", row::ts_type(), false),
            Field::new("connection", DataType::UInt64, false),
            Field::new("kind", row::symbol_type(), false),
            Field::new("url", row::symbol_type(), true),
            Field::new("status", DataType::Int64, true),
            Field::new("text", DataType::Utf8, false),
        ];
        Self {
            schema: Arc::new(Schema::new(fields)),
            ts: Vec::new(),
            connection: UInt64Builder::new(),
            kind: StringDictionaryBuilder::new(),
            url: StringDictionaryBuilder::new(),
            status: Int64Builder::new(),
            text: StringBuilder::new(),
            urls: Vec::new(),
        }
    }
}

impl Protocol for Raw {
    fn endpoints(&self) -> Vec<Endpoint> {
        Vec::new()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_frame(&mut self, frame: &Frame, _: &mut Output) {
        let i = frame.connection as usize;
        if frame.kind == FrameKind::Opened && i < URLS_MAX {
            self.urls.resize(self.urls.len().max(i + 1), None);
            self.urls[i] = Some(String::from_utf8_lossy(&frame.data).into_owned());
        }
        let (kind, url, status) = match &frame.kind {
            FrameKind::Response { url, status } => ("response", Some(url.as_str()), Some(i64::from(*status))),
            other => {
                let kind = match other {
                    FrameKind::Opened => "opened",
                    FrameKind::Closed => "closed",
                    FrameKind::Sent => "sent",
                    _ => "received",
                };
                (kind, self.urls.get(i).and_then(Option::as_deref), None)
            }
        };
        self.ts.push(frame.received_ns);
        self.connection.append_value(u64::from(frame.connection));
        self.kind.append_value(kind);
        self.url.append_option(url);
        self.status.append_option(status);
        self.text.append_value(String::from_utf8_lossy(&frame.data));
    }

    fn rows(&self) -> usize {
        self.ts.len()
    }

    fn finish(&mut self) -> RecordBatch {
        let ts = row::ts_array(std::mem::take(&mut self.ts));
        let columns: Vec<ArrayRef> = vec![
            ts.clone(),
            ts,
            Arc::new(self.connection.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.url.finish()),
            Arc::new(self.status.finish()),
            Arc::new(self.text.finish()),
        ];
        RecordBatch::try_new(self.schema.clone(), columns)
            .expect("every builder is of its field's type and has a value a row")
    }
}

#[cfg(test)]
mod tests;
