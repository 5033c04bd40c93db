//! A dataset's layout: its columns, its folders, the order of rows in its files.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use tidemill_engine::row;

use crate::ArchiveError;

/// The layout of a dataset, as its log keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// Columns, in order.
    pub columns: Vec<Column>,
    /// Columns that become folders (`date`: the UTC date of `ts` where there is no such column).
    /// They stay in the files too.
    pub partition_by: Vec<String>,
    /// Order of rows within a file.
    pub sort: Vec<String>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its Arrow type, as Arrow writes it: `Float64`, `Timestamp(ns, "UTC")`.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may be null.
    #[serde(default)]
    pub nullable: bool,
}

impl Layout {
    /// A layout of `schema` in folders by `partition_by`; rows by `(ts, _src, _seq)`, or as many of
    /// these as there are. Change the order with [`sorted_by`](Self::sorted_by).
    pub fn new(schema: &Schema, partition_by: &[&str]) -> Self {
        let columns = schema.fields().iter().map(|f| Column {
            name: f.name().clone(),
            data_type: f.data_type().to_string(),
            nullable: f.is_nullable(),
        });
        let sort = [row::TS, row::SRC, row::SEQ].into_iter().filter(|n| schema.index_of(n).is_ok());
        Self {
            columns: columns.collect(),
            partition_by: partition_by.iter().map(|s| (*s).to_owned()).collect(),
            sort: sort.map(str::to_owned).collect(),
        }
    }

    /// The same with rows in another order within files.
    pub fn sorted_by(mut self, columns: &[&str]) -> Self {
        self.sort = columns.iter().map(|s| (*s).to_owned()).collect();
        self
    }

    /// The columns as an Arrow schema.
    pub fn schema(&self) -> Result<SchemaRef, ArchiveError> {
        let field = |c: &Column| match c.data_type.parse::<DataType>() {
            Ok(t) => Ok(Field::new(&c.name, t, c.nullable)),
            Err(e) => Err(ArchiveError::Invalid(format!(
                "the dataset's log has a type that this version does not know: column `{}`, `{}`: {e}",
                c.name, c.data_type
            ))),
        };
        let fields: Vec<Field> = self.columns.iter().map(field).collect::<Result<_, _>>()?;
        Ok(Arc::new(Schema::new(fields)))
    }

    /// Refuses a layout that names columns which are not there, or has no time.
    pub(crate) fn check(&self) -> Result<(), ArchiveError> {
        let schema = self.schema()?;
        match schema.field_with_name(row::TS) {
            Ok(f) if *f.data_type() == row::ts_type() && !f.is_nullable() => {}
            _ => {
                return Err(ArchiveError::Invalid(format!(
                    "a dataset needs a column `ts` of type {}, never null",
                    row::ts_type()
                )));
            }
        }
        for name in &self.sort {
            if schema.index_of(name).is_err() {
                return Err(ArchiveError::Invalid(format!(
                    "cannot sort by `{name}`: there is no such column"
                )));
            }
        }
        for (i, name) in self.partition_by.iter().enumerate() {
            if self.partition_by[..i].contains(name) {
                return Err(ArchiveError::Invalid(format!("`{name}` is twice among the partition columns")));
            }
            if name != "date" && schema.index_of(name).is_err() {
                return Err(ArchiveError::Invalid(format!(
                    "cannot partition by `{name}`: there is no such column"
                )));
            }
        }
        Ok(())
    }

    /// This layout widened so that `other`'s rows fit: columns that only `other` has come last, and a
    /// column that either may leave out is nullable. Types, folders and order must agree.
    pub(crate) fn widened(&self, other: &Layout) -> Result<Layout, ArchiveError> {
        let differ = |what: String| {
            ArchiveError::Invalid(format!("{what}; write to another dataset, or convert the rows first"))
        };
        if self.partition_by != other.partition_by {
            return Err(differ(format!(
                "the dataset is partitioned by [{}], not by [{}]",
                self.partition_by.join(", "),
                other.partition_by.join(", ")
            )));
        }
        let mut wide = self.clone();
        for column in &mut wide.columns {
            match other.columns.iter().find(|c| c.name == column.name) {
                Some(c) if c.data_type != column.data_type => {
                    return Err(differ(format!(
                        "column `{}` is {} in the dataset, not {}",
                        c.name, column.data_type, c.data_type
                    )));
                }
                Some(c) => column.nullable |= c.nullable,
                None if column.name == row::TS => return Err(differ("the rows have no column `ts`".into())),
                None => column.nullable = true,
            }
        }
        for column in &other.columns {
            if !self.columns.iter().any(|c| c.name == column.name) {
                wide.columns.push(Column { nullable: true, ..column.clone() });
            }
        }
        Ok(wide)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_back_as_they_were_written() {
        let fields = vec![
            Field::new("ts", row::ts_type(), false),
            Field::new("symbol", row::symbol_type(), false),
            Field::new("price", DataType::Float64, true),
            Field::new("n", DataType::UInt64, false),
            Field::new("money", DataType::Decimal128(38, 18), false),
            Field::new("day", DataType::Date32, true),
            Field::new("raw", DataType::Binary, true),
            Field::new("ok", DataType::Boolean, true),
            Field::new("text", DataType::Utf8, true),
        ];
        let schema = Schema::new(fields);
        let layout = Layout::new(&schema, &["date", "symbol"]);
        layout.check().unwrap();
        assert_eq!(layout.schema().unwrap().as_ref(), &schema);
        let back: Layout = serde_json::from_str(&serde_json::to_string(&layout).unwrap()).unwrap();
        assert_eq!(back, layout);
    }

    #[test]
    fn a_layout_widens_but_never_changes_a_type() {
        let ts = Field::new("ts", row::ts_type(), false);
        let one =
            Layout::new(&Schema::new(vec![ts.clone(), Field::new("a", DataType::Int64, false)]), &["date"]);
        let two =
            Layout::new(&Schema::new(vec![ts.clone(), Field::new("b", DataType::Utf8, false)]), &["date"]);
        let wide = one.widened(&two).unwrap();
        let names: Vec<_> = wide.columns.iter().map(|c| (c.name.as_str(), c.nullable)).collect();
        assert_eq!(names, [("ts", false), ("a", true), ("b", true)]);
        let text = Layout::new(&Schema::new(vec![ts, Field::new("a", DataType::Utf8, false)]), &["date"]);
        let said = one.widened(&text).unwrap_err().to_string();
        assert_eq!(
            said,
            "column `a` is Int64 in the dataset, not Utf8; write to another dataset, or convert the rows first"
        );
        assert!(one.clone().sorted_by(&["nothing"]).check().is_err());
    }
}
