//! Which Hive folder a row goes to.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_engine::row;

const DAY_NS: i64 = 86_400_000_000_000;
/// The folder of rows without a value, as Hive calls it.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// A column that becomes folders.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its index; `None`: the UTC date of `ts`.
    pub index: Option<usize>,
}

impl Column {
    /// The columns `names` of `schema`; `date` is the date of `ts` where there is no such column.
    pub fn of(names: &[String], schema: &SchemaRef) -> Result<Vec<Self>, ArrowError> {
        let column = |name: &String| match schema.index_of(name) {
            Ok(index) => Ok(Self { name: name.clone(), index: Some(index) }),
            Err(_) if name == "date" => Ok(Self { name: name.clone(), index: None }),
            Err(e) => Err(e),
        };
        names.iter().map(column).collect()
    }

    /// Its type.
    pub fn data_type(&self, schema: &SchemaRef) -> DataType {
        self.index.map_or(DataType::Date32, |i| schema.field(i).data_type().clone())
    }

    /// Its values.
    pub fn values(&self, rows: &RecordBatch) -> ArrayRef {
        match self.index {
            Some(i) => rows.column(i).clone(),
            None => {
                let ts = rows.column_by_name(row::TS).unwrap_or_else(|| rows.column(0));
                let ts = arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampNanosecondType>(ts);
                let days = ts.values().iter().map(|ts| ts.div_euclid(DAY_NS) as i32);
                Arc::new(Date32Array::from_iter_values(days))
            }
        }
    }
}

/// Splits batches by folder.
pub struct Splitter {
    columns: Vec<Column>,
    converter: Option<RowConverter>,
}

impl Splitter {
    /// A splitter by `columns` of rows of `schema`.
    pub fn new(columns: Vec<Column>, schema: &SchemaRef) -> Result<Self, ArrowError> {
        let field = |c: &Column| SortField::new(c.data_type(schema));
        let converter = match columns.is_empty() {
            true => None,
            false => Some(RowConverter::new(columns.iter().map(field).collect())?),
        };
        Ok(Self { columns, converter })
    }

    /// The rows of each folder, in the order they came; the folders in order of their first rows.
    pub fn split(&self, rows: &RecordBatch) -> Result<Vec<(String, RecordBatch)>, ArrowError> {
        let Some(converter) = &self.converter else { return Ok(vec![(String::new(), rows.clone())]) };
        let arrays: Vec<ArrayRef> = self.columns.iter().map(|c| c.values(rows)).collect();
        let keys = converter.convert_columns(&arrays)?;
        let mut folders: Vec<Vec<u32>> = Vec::new();
        let mut known: HashMap<&[u8], usize> = HashMap::new();
        let mut last: (&[u8], usize) = (&[], usize::MAX);
        for (i, key) in keys.iter().enumerate() {
            let key = key.data();
            if last.1 == usize::MAX || key != last.0 {
                let folder = *known.entry(key).or_insert_with(|| {
                    folders.push(Vec::new());
                    folders.len() - 1
                });
                last = (key, folder);
            }
            folders[last.1].push(i as u32);
        }
        let whole = folders.len() == 1;
        folders
            .into_iter()
            .map(|indices| {
                let folder = self.folder(&arrays, indices.first().map_or(0, |i| *i as usize))?;
                let rows = if whole {
                    rows.clone()
                } else {
                    arrow::compute::take_record_batch(rows, &UInt32Array::from(indices))?
                };
                Ok((folder, rows))
            })
            .collect()
    }

    /// `date=2013-10-07/symbol=SPY/` for row `i`.
    fn folder(&self, arrays: &[ArrayRef], i: usize) -> Result<String, ArrowError> {
        let options = FormatOptions::new().with_null(NULL_FOLDER);
        let mut folder = String::new();
        for (column, array) in self.columns.iter().zip(arrays) {
            let value = ArrayFormatter::try_new(array.as_ref(), &options)?.value(i).to_string();
            folder.push_str(&column.name);
            folder.push('=');
            // As Hive does: what could be taken for a path is spelled out.
            for byte in value.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => folder.push(byte as char),
                    other => {
                        let written = write!(folder, "%{other:02X}");
                        debug_assert!(written.is_ok());
                    }
                }
            }
            folder.push('/');
        }
        Ok(folder)
    }
}
