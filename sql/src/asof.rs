//! `ASOF JOIN`: to each left row, the right row that was known at its time.
//!
//! ```sql
//! SELECT t.ts, t.price, q.bid, q.ask
//! FROM trades t
//! ASOF JOIN quotes q MATCH_CONDITION (t.ts >= q.ts) ON t.symbol = q.symbol
//! ```
//!
//! Of the right rows whose keys are equal, the one with the latest time that is not after the left row's
//! (`>=`), before it (`>`), or with the earliest that is not before it (`<=`) or after it (`<`). The
//! condition may also bound the age: `MATCH_CONDITION (t.ts >= q.ts AND t.ts - q.ts <= INTERVAL '5 seconds')`.
//! Left rows without a match are kept, with nulls. Null keys and times match nothing.
//!
//! Of several right rows at the time that matches, the last by `_src` and `_seq` counts where the right side
//! has these columns (as in the `asof_join` operator), or by `seq`. Without them it is the last as the files
//! have it; so a right side that is itself the answer of a query should keep `_seq`: its rows have no order.
//!
//! The same as a table: `asof_join(trades, quotes, 'symbol' [, '5s'])`. And as a join of any kind that
//! DataFusion plans: `[LEFT] JOIN quotes q ON t.symbol = q.symbol AND asof_match(t.ts >= q.ts [, '5s'])`;
//! `JOIN` drops left rows without a match.
//!
//! How: SQL's `ASOF JOIN` becomes a join with the marker `asof_match` ([`rewrite`]); the analyzer puts an
//! [`node::AsofJoin`] in its place ([`analyze`]); filters move below it ([`push`]); [`exec`] reads the right
//! side into an [`index`] once, and left rows stream past it, in order, on all cores. Memory: the right
//! side's columns that the query names, and 16 bytes a row.

pub(crate) mod analyze;
pub(crate) mod exec;
pub(crate) mod index;
pub(crate) mod keys;
pub(crate) mod node;
pub(crate) mod planner;
pub(crate) mod push;
pub(crate) mod rewrite;

#[cfg(test)]
mod tests;

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// The marker's name.
pub(crate) const MARKER: &str = "asof_match";

/// Marks a condition of a join as the one of times.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct AsofMatch {
    signature: Signature,
}

impl Default for AsofMatch {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for AsofMatch {
    fn name(&self) -> &str {
        MARKER
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        match args {
            [DataType::Boolean] => Ok(args.to_vec()),
            [DataType::Boolean, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View] => {
                Ok(vec![DataType::Boolean, DataType::Utf8])
            }
            [DataType::Boolean, DataType::Interval(_)] => {
                Ok(vec![DataType::Boolean, DataType::Interval(IntervalUnit::MonthDayNano)])
            }
            _ => plan_err!(
                "{MARKER} takes a comparison of times and maybe a tolerance: {MARKER}(t.ts >= q.ts, '5s')"
            ),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!(
            "{MARKER} belongs in the ON of a join: JOIN quotes q ON t.symbol = q.symbol AND {MARKER}(t.ts >= q.ts)"
        )
    }
}
