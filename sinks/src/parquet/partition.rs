//! Which Hive folder a row goes to.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_engine::component::{Problems, StreamInfo};
use tidemill_engine::keys::is_key_type;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;

const DAY_NS: i64 = 86_400_000_000_000;
/// The folder of rows without a value, as Hive calls it.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// A column that becomes folders.
#[derive(Clone, Debug)]
pub struct Column {
    name: String,
    /// Its index; `None`: the UTC date of `ts`.
    index: Option<usize>,
}

/// Finds the columns of `partition_by`.
pub fn resolve(names: &[String], input: &StreamInfo, problems: &mut Problems) -> Vec<Column> {
    let mut columns = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let at = format!("partition_by[{i}]");
        if names[..i].contains(name) {
            problems.push(Problem::new(at, format!("`{name}` is there twice")));
        } else if name == "date" && input.schema.index_of(name).is_err() {
            columns.push(Column { name: name.clone(), index: None });
        } else {
            match input.column(&at, name) {
                Err(problem) => problems.push(problem),
                Ok(index)
                    if !is_key_type(input.data_type(index))
                        || input.data_type(index).is_temporal()
                            && *input.data_type(index) != DataType::Date32 =>
                {
                    let reason =
                        format!("column `{name}` is {}, which cannot be a folder", input.data_type(index));
                    problems
                        .push(Problem::new(at, reason).hint("folders are text, integers, booleans or dates"));
                }
                Ok(index) => columns.push(Column { name: name.clone(), index: Some(index) }),
            }
        }
    }
    columns
}

/// Splits batches by folder.
pub struct Splitter {
    columns: Vec<Column>,
    converter: Option<RowConverter>,
}

impl Splitter {
    /// A splitter by `columns` of rows of `schema`.
    pub fn new(columns: Vec<Column>, schema: &SchemaRef) -> Result<Self, ArrowError> {
        let field = |c: &Column| {
            SortField::new(c.index.map_or(DataType::Date32, |i| schema.field(i).data_type().clone()))
        };
        let converter = match columns.is_empty() {
            true => None,
            false => Some(RowConverter::new(columns.iter().map(field).collect())?),
        };
        Ok(Self { columns, converter })
    }

    /// The rows of each folder, in the order they came; the folders in order of their first rows.
    pub fn split(&self, rows: &RecordBatch) -> Result<Vec<(String, RecordBatch)>, ArrowError> {
        let Some(converter) = &self.converter else { return Ok(vec![(String::new(), rows.clone())]) };
        let arrays: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|c| match c.index {
                Some(i) => rows.column(i).clone(),
                None => {
                    let days = row::ts(rows).iter().map(|ts| ts.div_euclid(DAY_NS) as i32);
                    Arc::new(Date32Array::from_iter_values(days))
                }
            })
            .collect();
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
