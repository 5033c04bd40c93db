//! Schemas as users write them: a name, or columns and types.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::component::Problems;
use crate::problem::Problem;
use crate::row;

/// A schema in a graph: `schema: trade`, or `schema: {ts: timestamp, symbol: symbol, price: f64}`.
///
/// Types: `timestamp`, `f64`, `i64`, `u64`, `bool`, `string`, `symbol` (text with few distinct
/// values, such as symbols and venues), `date`. A `?` after the type lets the column be null or
/// missing: `f64?`. Names: `trade` (ts, symbol, price, size), `quote` (ts, symbol, bid, bid_size,
/// ask, ask_size), `bar` (ts, symbol, start, open, high, low, close, volume).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(untagged)]
pub enum SchemaSpec {
    /// A schema that Tidemill knows by name.
    Named(String),
    /// Column names and types.
    Columns(Map<String, Value>),
}

const TYPES: [&str; 8] = ["timestamp", "f64", "i64", "u64", "bool", "string", "symbol", "date"];

fn data_type(name: &str) -> Option<DataType> {
    Some(match name {
        "timestamp" => row::ts_type(),
        "f64" => DataType::Float64,
        "i64" => DataType::Int64,
        "u64" => DataType::UInt64,
        "bool" => DataType::Boolean,
        "string" => DataType::Utf8,
        "symbol" => row::symbol_type(),
        "date" => DataType::Date32,
        _ => return None,
    })
}

/// The name users write for a type; Arrow's own where there is none.
pub fn type_name(t: &DataType) -> String {
    TYPES
        .iter()
        .find(|name| data_type(name).as_ref() == Some(t))
        .map_or_else(|| t.to_string(), |n| (*n).to_owned())
}

const NAMED: [(&str, &[(&str, &str)]); 3] = [
    ("trade", &[("ts", "timestamp"), ("symbol", "symbol"), ("price", "f64"), ("size", "f64")]),
    (
        "quote",
        &[
            ("ts", "timestamp"),
            ("symbol", "symbol"),
            ("bid", "f64"),
            ("bid_size", "f64"),
            ("ask", "f64"),
            ("ask_size", "f64"),
        ],
    ),
    (
        "bar",
        &[
            ("ts", "timestamp"),
            ("symbol", "symbol"),
            ("start", "timestamp"),
            ("open", "f64"),
            ("high", "f64"),
            ("low", "f64"),
            ("close", "f64"),
            ("volume", "f64"),
        ],
    ),
];

impl SchemaSpec {
    /// The Arrow schema; problems at `path`.
    pub fn resolve(&self, path: &str) -> Result<SchemaRef, Problems> {
        match self {
            Self::Named(name) => match NAMED.iter().find(|(n, _)| n == name) {
                Some((_, columns)) => {
                    let fields: Vec<Field> = columns
                        .iter()
                        .filter_map(|(name, t)| Some(Field::new(*name, data_type(t)?, false)))
                        .collect();
                    Ok(Arc::new(Schema::new(fields)))
                }
                None => Err(vec![
                    Problem::new(path, format!("unknown schema `{name}`"))
                        .hint_names(name, NAMED.iter().map(|(n, _)| *n)),
                ]),
            },
            Self::Columns(columns) => {
                let mut problems = Problems::new();
                let mut fields = Vec::new();
                for (name, value) in columns {
                    let at = format!("{path}.{name}");
                    let text = value.as_str().unwrap_or_default();
                    let (text, nullable) = text.strip_suffix('?').map_or((text, false), |t| (t, true));
                    if name == row::SRC || name == row::SEQ {
                        problems.push(Problem::new(at, format!("`{name}` is a column of the engine's own")));
                        continue;
                    }
                    match data_type(text) {
                        Some(t) => fields.push(Field::new(name, t, nullable)),
                        None => problems
                            .push(Problem::new(at, format!("unknown type {value}")).hint_names(text, TYPES)),
                    }
                }
                if fields.is_empty() && problems.is_empty() {
                    problems.push(Problem::new(path, "a schema needs at least one column"));
                }
                if problems.is_empty() { Ok(Arc::new(Schema::new(fields))) } else { Err(problems) }
            }
        }
    }
}
