//! Answers as tables for people.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{Cell, CellAlignment, Table};

/// A line under the header and none elsewhere.
const UNDER_HEADER: &str = "     ──            ";
/// What stands for a null.
const NULL: &str = "∅";

/// A table with a line under its header; numbers to the right.
pub(crate) fn render(schema: &Schema, batches: &[RecordBatch]) -> anyhow::Result<String> {
    let mut table = Table::new();
    table.load_preset(UNDER_HEADER);
    let right: Vec<bool> = schema.fields().iter().map(|f| is_number(f.data_type())).collect();
    let aligned = |text: String, right: bool| {
        Cell::new(text).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
    };
    let header = schema.fields().iter().zip(&right);
    table.set_header(header.map(|(f, right)| aligned(f.name().clone(), *right)));
    let options = FormatOptions::new().with_null(NULL).with_display_error(true);
    for batch in batches {
        let columns: Vec<ArrayFormatter> = batch
            .columns()
            .iter()
            .map(|c| ArrayFormatter::try_new(c.as_ref(), &options))
            .collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(&right);
            table.add_row(cells.map(|(c, right)| aligned(c.value(row).to_string(), *right)));
        }
    }
    Ok(table.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>().join("\n"))
}

fn is_number(t: &DataType) -> bool {
    match t {
        DataType::Dictionary(_, value) => is_number(value),
        other => other.is_numeric(),
    }
}

/// A span of time for people: `12 ms`, `1.24 s`.
pub(crate) fn time(elapsed: Duration) -> String {
    let ms = elapsed.as_secs_f64() * 1e3;
    match ms {
        _ if ms < 10.0 => format!("{ms:.1} ms"),
        _ if ms < 1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampNanosecondArray};

    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_nulls_are_seen() {
        let ts: ArrayRef =
            Arc::new(TimestampNanosecondArray::from(vec![0, 1_500_000_000]).with_timezone("UTC"));
        let symbol: ArrayRef = Arc::new(StringArray::from(vec![Some("BAC"), None]));
        let price: ArrayRef = Arc::new(Float64Array::from(vec![Some(13.25), None]));
        let batch = RecordBatch::try_from_iter([("ts", ts), ("symbol", symbol), ("price", price)]).unwrap();
        expect_test::expect![[r#"
             ts                         symbol   price
            ───────────────────────────────────────────
             1970-01-01T00:00:00Z       BAC      13.25
             1970-01-01T00:00:01.500Z   ∅            ∅"#]]
        .assert_eq(&render(&batch.schema(), &[batch]).unwrap());
    }
}
