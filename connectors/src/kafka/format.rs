//! Messages into rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampNanosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_engine::json::Decoder;
use tidemill_engine::row;
use tidemill_engine::spec::TimeUnitName;

/// Which time of a row must not be ahead of its message's own.
#[derive(Clone, Copy, Debug)]
pub struct AheadGuard {
    /// The event time column.
    pub column: usize,
    /// Nanoseconds in one unit of it, where it is an integer; 1 for timestamps.
    pub unit_ns: i64,
    /// How far it may be ahead.
    pub max_ns: i64,
}

impl AheadGuard {
    /// Whether a row's time is not too far ahead of its message's.
    pub(super) fn check(&self, time: Option<i64>, message_ms: Option<i64>) -> Result<(), String> {
        let (Some(time), Some(message_ms)) = (time, message_ms) else { return Ok(()) };
        let time = i128::from(time) * i128::from(self.unit_ns);
        let ahead = time - i128::from(message_ms) * 1_000_000;
        if ahead <= i128::from(self.max_ns) {
            return Ok(());
        }
        let span = tidemill_engine::duration::Span::from_ns(i64::try_from(ahead).unwrap_or(i64::MAX));
        Err(format!("event time is {span} ahead of the message's own timestamp (ahead_max)"))
    }
}

/// The columns of `format: raw`.
pub fn raw_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(row::TS, row::ts_type(), false),
        Field::new("key", DataType::Utf8, true),
        Field::new("value", DataType::Utf8, false),
    ]))
}

/// Makes rows of one partition's messages.
pub enum RowDecoder {
    /// JSON objects.
    Json {
        /// Reads them.
        decoder: Decoder,
        /// Refuses times too far ahead.
        ahead: Option<AheadGuard>,
    },
    /// Key, value and timestamp as they are.
    Raw {
        /// Message timestamps.
        ts: TimestampNanosecondBuilder,
        /// Message keys.
        key: StringBuilder,
        /// Message values.
        value: StringBuilder,
    },
}

impl RowDecoder {
    /// A decoder of JSON objects into `columns`.
    pub fn json(columns: SchemaRef, unit: TimeUnitName, ahead: Option<AheadGuard>) -> Self {
        Self::Json { decoder: Decoder::new(columns, unit), ahead }
    }

    /// A decoder into [`raw_schema`].
    pub fn raw() -> Self {
        Self::Raw {
            ts: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            key: StringBuilder::new(),
            value: StringBuilder::new(),
        }
    }

    /// Appends a row, or nothing and says why.
    pub fn push(
        &mut self,
        message_key: Option<&[u8]>,
        payload: Option<&[u8]>,
        timestamp_ms: Option<i64>,
    ) -> Result<(), String> {
        let payload = payload.ok_or("the message has no value (a tombstone)")?;
        match self {
            Self::Json { decoder, ahead: None } => decoder.push(payload),
            Self::Json { decoder, ahead: Some(guard) } => {
                decoder.push_if(payload, |row| guard.check(row.integer(guard.column), timestamp_ms))
            }
            Self::Raw { ts, key, value } => {
                let text =
                    std::str::from_utf8(payload).map_err(|e| format!("column `value`: not UTF-8: {e}"))?;
                let key_text = match message_key.map(std::str::from_utf8) {
                    Some(Err(e)) => return Err(format!("column `key`: not UTF-8: {e}")),
                    Some(Ok(text)) => Some(text),
                    None => None,
                };
                let ms = timestamp_ms.ok_or("the message has no timestamp")?;
                let ns = ms
                    .checked_mul(1_000_000)
                    .ok_or_else(|| format!("the message's timestamp {ms} ms is out of range"))?;
                ts.append_value(ns);
                key.append_option(key_text);
                value.append_value(text);
                Ok(())
            }
        }
    }

    /// Takes the rows.
    pub fn finish(&mut self) -> RecordBatch {
        match self {
            Self::Json { decoder, .. } => decoder.finish(),
            Self::Raw { ts, key, value } => {
                let columns: Vec<ArrayRef> =
                    vec![Arc::new(ts.finish()), Arc::new(key.finish()), Arc::new(value.finish())];
                RecordBatch::try_new(raw_schema(), columns)
                    .expect("the three builders have the schema's types and equal lengths")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_messages_keep_key_value_and_time() {
        let mut d = RowDecoder::raw();
        d.push(Some(b"k"), Some(b"v"), Some(5)).unwrap();
        d.push(None, Some(b""), Some(-1_000)).unwrap();
        for (key, value, ms) in [
            (None, None, Some(1)),
            (None, Some(b"\xff".as_slice()), Some(1)),
            (Some(b"\xff".as_slice()), Some(b"".as_slice()), Some(1)),
            (None, Some(b"".as_slice()), None),
            (None, Some(b"".as_slice()), Some(i64::MAX)),
        ] {
            assert!(d.push(key, value, ms).is_err());
        }
        assert_eq!(d.finish().num_rows(), 2);
    }

    #[test]
    fn a_time_from_the_future_is_refused_by_the_messages_own_clock() {
        let schema = Arc::new(Schema::new(vec![Field::new("ts", row::ts_type(), false)]));
        let guard = AheadGuard { column: 0, unit_ns: 1, max_ns: 86_400_000_000_000 };
        let mut d = RowDecoder::json(schema, TimeUnitName::Ms, Some(guard));
        d.push(None, Some(br#"{"ts":86400000}"#), Some(0)).unwrap();
        assert_eq!(
            d.push(None, Some(br#"{"ts":86400001}"#), Some(0)).unwrap_err(),
            "event time is 1d1ms ahead of the message's own timestamp (ahead_max)"
        );
        d.push(None, Some(br#"{"ts":86400001}"#), None).unwrap();
        assert_eq!(d.finish().num_rows(), 2);
    }
}
