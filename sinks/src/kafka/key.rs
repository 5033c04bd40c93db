//! Message keys: the value of one column as text, or of several as a JSON list.

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::io::Write as _;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::row;

/// Keys of one batch, end to end.
#[derive(Debug, Default)]
pub(super) struct Keys {
    columns: Vec<usize>,
    bytes: Vec<u8>,
    /// End of each key, and whether there is one (a single null is none).
    ends: Vec<(usize, bool)>,
}

impl Keys {
    pub(super) fn new(columns: Vec<usize>) -> Self {
        Self { columns, ..Self::default() }
    }

    /// Makes the keys of `rows`.
    pub(super) fn read(&mut self, rows: &RecordBatch) -> Result<(), ConnectorError> {
        self.bytes.clear();
        self.ends.clear();
        if self.columns.is_empty() {
            return Ok(());
        }
        let options = FormatOptions::new();
        let columns: Vec<_> = self
            .columns
            .iter()
            .map(|c| {
                let column = rows.column(*c);
                Ok((column, ArrayFormatter::try_new(column.as_ref(), &options)?))
            })
            .collect::<Result<_, arrow::error::ArrowError>>()
            .map_err(|e| ConnectorError::fatal("cannot write a column as a message key", e))?;
        let out = &mut self.bytes;
        for i in 0..rows.num_rows() {
            let mut some = true;
            match columns.as_slice() {
                [(column, _)] if column.is_null(i) => some = false,
                [(column, formatter)] => match row::text(column, i) {
                    Some(text) => out.extend_from_slice(text.as_bytes()),
                    None => put(out, format_args!("{}", formatter.value(i))),
                },
                many => {
                    for (n, (column, formatter)) in many.iter().enumerate() {
                        out.push(if n == 0 { b'[' } else { b',' });
                        match row::text(column, i) {
                            _ if column.is_null(i) => out.extend_from_slice(b"null"),
                            Some(text) => put_json(out, text),
                            None if column.data_type().is_integer() => {
                                put(out, format_args!("{}", formatter.value(i)))
                            }
                            None => put_json(out, &formatter.value(i).to_string()),
                        }
                    }
                    out.push(b']');
                }
            }
            self.ends.push((out.len(), some));
        }
        Ok(())
    }

    /// The key of row `i`.
    pub(super) fn get(&self, i: usize) -> Option<&[u8]> {
        let (end, some) = *self.ends.get(i)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1].0 };
        some.then(|| &self.bytes[start..end])
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments) {
    out.write_fmt(text).expect("memory takes every write");
}

fn put_json(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text has a JSON form, and memory takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, DictionaryArray, Int64Array};
    use arrow::datatypes::Int32Type;
    use std::sync::Arc;

    #[test]
    fn one_column_is_plain_text_and_several_are_a_list() {
        let symbols: DictionaryArray<Int32Type> = vec![Some("a\"b"), None].into_iter().collect();
        let rows = RecordBatch::try_from_iter_with_nullable(vec![
            ("s", Arc::new(symbols) as ArrayRef, true),
            ("n", Arc::new(Int64Array::from(vec![-1, 7])) as ArrayRef, false),
        ])
        .unwrap();
        let read = |columns: Vec<usize>| {
            let mut keys = Keys::new(columns);
            keys.read(&rows).unwrap();
            (0..2).map(|i| keys.get(i).map(|k| String::from_utf8(k.to_vec()).unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(read(vec![]), [None, None]);
        assert_eq!(read(vec![0]), [Some("a\"b".into()), None]);
        assert_eq!(read(vec![1]), [Some("-1".into()), Some("7".into())]);
        assert_eq!(read(vec![0, 1]), [Some(r#"["a\"b",-1]"#.into()), Some("[null,7]".into())]);
    }
}
