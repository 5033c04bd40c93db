//! Which columns become Hive folders; the archive's splitter does the splitting.

use arrow::datatypes::DataType;
use tidemill_archive::partition::Column;
use tidemill_engine::component::{Problems, StreamInfo};
use tidemill_engine::keys::is_key_type;
use tidemill_engine::problem::Problem;

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
