//! Columns as operators compute on them: numbers as plain `f64` slices, missing ones as NaN.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

/// A numeric column as `f64`; nulls become NaN. Costs nothing for `f64` columns without nulls.
pub fn floats(column: &ArrayRef) -> Result<ScalarBuffer<f64>, ArrowError> {
    let cast = match column.data_type() {
        DataType::Float64 => column.clone(),
        _ => arrow::compute::cast(column, &DataType::Float64)?,
    };
    let array = cast.as_primitive::<Float64Type>();
    if array.null_count() == 0 {
        return Ok(array.values().clone());
    }
    let values: Vec<f64> = array.iter().map(|v| v.unwrap_or(f64::NAN)).collect();
    Ok(values.into())
}

/// A nullable `f64` column; what is not finite becomes null.
pub fn nullable(values: Vec<f64>) -> ArrayRef {
    let finite = values.iter().filter(|v| v.is_finite()).count();
    let nulls = (finite < values.len()).then(|| values.iter().map(|v| v.is_finite()).collect::<NullBuffer>());
    Arc::new(Float64Array::new(values.into(), nulls))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    #[test]
    fn numbers_of_any_type_are_floats_and_missing_ones_nan() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), None]));
        let values = floats(&column).unwrap();
        assert_eq!(values[0], 2.0);
        assert!(values[1].is_nan());
        let back = nullable(values.to_vec());
        assert_eq!(back.null_count(), 1);
        assert!(back.is_null(1));
    }
}
