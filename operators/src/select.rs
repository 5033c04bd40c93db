//! `select`: computes columns with SQL expressions and keeps the rows that meet a condition.
//!
//! Time: rows keep their `ts` and origin. State: none; each row's output is of that row alone. SQL is
//! parsed, checked and compiled while the graph is planned; batches are evaluated column by column.

mod sql;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::Field;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, SecondsFormat};
use datafusion::common::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::operator::{Operator, OperatorError, Output};
use tidemill_engine::row;

use sql::{Item, Reader};

/// Computes columns with SQL expressions, and keeps the rows that meet a condition.
///
/// `sql` is what stands between SELECT and FROM; `where` is what stands after WHERE. Functions and
/// operators are DataFusion's. Each row is computed from that row alone: aggregates, windows and
/// subqueries are refused, and so is what differs from run to run (`now()`, `random()`). An expression
/// that is not a plain column needs a name: `bid + ask AS total`. As in SQL, names are lower case
/// unless written in double quotes.
///
/// `ts` and the row's origin are always carried, named or not; `ts` cannot be computed anew. `where`
/// sees the input's columns, and rows for which it is null are left out. It is applied first, so
/// `where: "size <> 0"` guards `price / size` over integers: an expression that fails (integers divided by zero,
/// text that is not a number) stops the job. `TRY_CAST` gives null instead.
///
/// ```yaml
/// operators:
///   signal:
///     kind: select
///     from: studies
///     with:
///       sql: "symbol, close, CASE WHEN macd_hist > 0 THEN 'BUY' ELSE 'SELL' END AS side"
///       where: "macd_hist IS NOT NULL"
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The output columns: expressions separated by commas, `*` for all of the input's.
    #[serde(default = "everything")]
    pub sql: String,
    /// Which rows stay. Default: all.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

fn everything() -> String {
    "*".into()
}

/// See [`Params`].
#[derive(Debug)]
pub struct Select;

impl OperatorKind for Select {
    const KIND: &'static str = "select";
    type Params = Params;

    fn plan(params: Params, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let reader = Reader::new(&inputs[0])?;
        let items = reader.list("sql", &params.sql);
        let condition = params.condition.as_deref().map(|text| reader.condition("where", text)).transpose();
        let (items, condition) = match (items, condition) {
            (Ok(items), Ok(condition)) => (items, condition),
            (items, condition) => {
                return Err(items.err().into_iter().flatten().chain(condition.err()).collect());
            }
        };
        let fields: Vec<Arc<Field>> =
            items.iter().map(|i| Arc::new(Field::new(&i.name, i.data_type.clone(), i.nullable))).collect();
        let system = row::system_fields().into_iter().map(|f| (f.name().clone(), f.name().clone()));
        let passes = items.iter().filter_map(|i| Some((i.column.clone()?, i.name.clone())));
        Ok(OperatorPlan {
            schema: row::stream_schema(&fields),
            distribution: Distribution::Local,
            ordered: false,
            passes: system.chain(passes).collect(),
            build: Arc::new(move || {
                Box::new(Selector { items: items.clone(), condition: condition.clone() })
            }),
        })
    }
}

struct Selector {
    items: Vec<Item>,
    condition: Option<Arc<dyn PhysicalExpr>>,
}

/// An expression failed: which, at which row, and what its columns held there.
fn failed(
    what: &str,
    expr: &Arc<dyn PhysicalExpr>,
    batch: &RecordBatch,
    error: DataFusionError,
) -> OperatorError {
    let row = (0..batch.num_rows()).map(|i| batch.slice(i, 1)).find_map(|row| {
        let error = expr.evaluate(&row).and_then(|v| v.into_array(1)).err()?;
        Some((row, error))
    });
    let Some((row, error)) = row else {
        return OperatorError::Invalid(format!("{what} failed: {}", error.strip_backtrace()));
    };
    let mut columns: Vec<_> = collect_columns(expr).into_iter().collect();
    columns.sort_by_key(|c| c.index());
    let held = columns.iter().map(|c| {
        let value = ArrayFormatter::try_new(row.column(c.index()), &FormatOptions::new().with_null("null"));
        format!("{} = {}", c.name(), value.map_or_else(|e| e.to_string(), |v| v.value(0).to_string()))
    });
    let held = held.collect::<Vec<_>>().join(", ");
    let at = DateTime::from_timestamp_nanos(row::ts(&row)[0]).to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let seq = row::seq(&row)[0];
    OperatorError::Invalid(format!(
        "{what} failed at the row of {at} (_seq {seq}) with {held}: {}; guard it by `where`, CASE or TRY_CAST",
        error.strip_backtrace()
    ))
}

impl Operator for Selector {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else { return Ok(()) };
        let kept = match &self.condition {
            None => None,
            Some(condition) => {
                let mask = condition
                    .evaluate(batch)
                    .and_then(|v| v.into_array(batch.num_rows()))
                    .map_err(|e| failed("`where`", condition, batch, e))?;
                Some(filter_record_batch(batch, mask.as_boolean())?)
            }
        };
        let batch = kept.as_ref().unwrap_or(batch);
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut columns: Vec<ArrayRef> = batch.columns()[..row::SYSTEM_COLUMNS].to_vec();
        for item in &self.items {
            let array = item
                .expr
                .evaluate(batch)
                .and_then(|v| v.into_array(batch.num_rows()))
                .map_err(|e| failed(&format!("column `{}`", item.name), &item.expr, batch, e))?;
            let fits = *array.data_type() == item.data_type;
            columns.push(if fits { array } else { cast(&array, &item.data_type)? });
        }
        out.push(RecordBatch::try_new(out.schema().clone(), columns)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, numbers, plan, stream, symbols, whole};
    use serde_json::json;

    fn quotes() -> RecordBatch {
        let columns = vec![
            ("symbol", symbols(["BTC", "ETH", "BTC"])),
            ("bid", numbers([Some(10.0), Some(2.0), None])),
            ("ask", numbers([Some(12.0), Some(4.0), Some(5.0)])),
        ];
        stream(&[(1_000_000_000, 1), (2_000_000_000, 2), (3_000_000_000, 3)], columns)
    }

    fn planned(sql: &str, condition: Option<&str>) -> Result<OperatorPlan, Vec<String>> {
        let mut with = json!({"sql": sql});
        if let Some(condition) = condition {
            with["where"] = condition.into();
        }
        plan::<Select>(with, &[quotes().schema()])
    }

    fn problem(sql: &str) -> String {
        planned(sql, None).err().unwrap().join("\n")
    }

    #[test]
    fn expressions_are_computed_and_rows_kept() {
        let sql = "ts, symbol, (bid + ask) / 2 AS mid, CASE WHEN ask > 4 THEN 'BUY' ELSE 'SELL' END AS side";
        let plan = planned(sql, Some("bid IS NOT NULL AND symbol IN ('BTC', 'ETH')")).unwrap();
        let expect = ["1000000000,1,BTC,11.0,BUY", "2000000000,2,ETH,3.0,SELL"].map(String::from).to_vec();
        check(&plan, &[quotes()], expect, 1);
        let names: Vec<&str> = plan.schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["ts", "_src", "_seq", "symbol", "mid", "side"]);
        assert!(plan.passes.contains(&("symbol".into(), "symbol".into())));
        assert!(!plan.passes.iter().any(|(_, to)| to == "mid"));
    }

    #[test]
    fn a_star_is_every_column_and_a_rename_is_passed_on() {
        let plan = planned("*, symbol AS pair, ts AS at, upper(symbol) AS name", Some("ask < 5")).unwrap();
        assert!(plan.passes.contains(&("symbol".into(), "pair".into())));
        assert_eq!(whole(&plan, &[quotes()]), ["2000000000,2,ETH,2.0,4.0,ETH,2000000000,ETH"]);
    }

    #[test]
    fn a_condition_that_is_null_does_not_hold() {
        let plan = planned("symbol", Some("bid > 1")).unwrap();
        assert_eq!(whole(&plan, &[quotes()]).len(), 2);
    }

    #[test]
    fn what_depends_on_more_than_the_row_is_refused() {
        for (sql, reason) in [
            ("now() AS at", "`now()` gives another value each time"),
            ("random() AS x", "`random()` gives another value each time"),
            ("1 + sum(bid) AS x", "`sum()` needs many rows"),
            ("row_number() OVER () AS x", "needs many rows"),
            ("(SELECT 1) AS x", "SELECT at line 1, column 2"),
            ("bid IN (SELECT 1) AS x", "SELECT at line 1, column 9"),
            ("ts + INTERVAL '1 hour' AS ts", "`ts` cannot be another value than it is"),
            ("bid AS _seq", "`_seq` cannot be another value than it is"),
            ("$1 AS x", "is a variable without a value"),
        ] {
            assert!(problem(sql).contains(reason), "{sql}: {}", problem(sql));
        }
    }

    #[test]
    fn problems_name_the_place_and_the_columns_there_are() {
        assert_eq!(
            problem("bidd AS x, symbol || 1"),
            "sql: `left` has no column `bidd` (did you mean `bid`? its columns: ts, symbol, bid, ask)\n\
             sql: `symbol || 1` has no name (`symbol || 1 AS name`)"
        );
        assert!(problem("bid +").contains("sql: expected"), "{}", problem("bid +"));
        assert!(
            problem("bid FROM t").contains("unexpected `FROM` at line 1, column 5"),
            "{}",
            problem("bid FROM t")
        );
        assert!(problem("").contains("sql: "), "{}", problem(""));
        assert!(problem("bid, ask AS bid").contains("two columns `bid`"));
        assert!(problem("symbol * 2 AS x").starts_with("sql: "), "{}", problem("symbol * 2 AS x"));
        assert!(problem("nosuch(bid) AS x").contains("nosuch"), "{}", problem("nosuch(bid) AS x"));
        assert!(problem("NULL AS x").contains("always null"));
        let both = planned("nope", Some("bid")).err().unwrap();
        assert!(both[1].contains("where: a condition must be true or false, this is f64"), "{both:?}");
    }

    #[test]
    fn the_longest_expression_fits_the_stack() {
        let sum = |n: usize| format!("{} AS x", vec!["bid"; n].join("+"));
        assert!(planned(&sum(490), None).is_ok());
        assert!(problem(&sum(600)).contains("more than 1000 words"));
        let nested = format!("{}bid{} AS x", "(".repeat(400), ")".repeat(400));
        assert!(!problem(&nested).is_empty());
    }

    #[test]
    fn an_expression_that_fails_stops_the_job_with_a_reason() {
        let plan = planned("CAST(symbol AS BIGINT) AS x", None).unwrap();
        let error =
            (plan.build)().process(&[Some(quotes())], &mut Output::new(plan.schema.clone())).unwrap_err();
        let text = "column `x` failed at the row of 1970-01-01T00:00:01Z (_seq 1) with symbol = BTC: ";
        assert!(error.to_string().starts_with(text), "{error}");
        let plan = planned("TRY_CAST(symbol AS BIGINT) AS x", None).unwrap();
        assert_eq!(whole(&plan, &[quotes()])[0], "1000000000,1,null");
    }
}
