//! What the server says it is. Clients read a Postgres version out of it and choose what they ask for.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::scalar::ScalarValue;

/// The version that clients compare with theirs; psql warns where it is older than its server.
pub(super) const SERVER_VERSION: &str = concat!("15.0 (Tidemill ", env!("CARGO_PKG_VERSION"), ")");
/// The same as a number.
pub(super) const SERVER_VERSION_NUM: &str = "150000";

/// `version()`.
pub(super) fn udf() -> ScalarUDF {
    let text = format!("PostgreSQL 15.0 compatible, Tidemill {}", env!("CARGO_PKG_VERSION"));
    let answer = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(text.clone()))));
    create_udf("version", vec![], DataType::Utf8, Volatility::Stable, Arc::new(answer))
}
