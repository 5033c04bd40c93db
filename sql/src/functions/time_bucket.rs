//! `time_bucket(interval, ts [, origin])`: the start of the interval that `ts` falls into.
//!
//! The interval is text as in a graph (`'1m'`, `'1h30m'`), text as in Postgres (`'5 minutes'`) or an
//! `INTERVAL`. Buckets are aligned to `origin`; without one to 1970-01-01 UTC, and intervals of whole
//! weeks to Monday, those of months and years to the calendar. Never decreasing in `ts`, so grouping
//! rows that come in order needs neither a sort nor a table of all groups.
//!
//! ```sql
//! SELECT time_bucket('1h', TIMESTAMP '2013-10-07T14:45:00Z') = TIMESTAMP '2013-10-07T14:00:00Z';
//! SELECT time_bucket(INTERVAL '5 minutes', TIMESTAMP '2013-10-07T14:44:59Z') = TIMESTAMP '2013-10-07T14:40:00Z';
//! SELECT time_bucket('1w', TIMESTAMP '2013-10-10T12:00:00Z') = TIMESTAMP '2013-10-07T00:00:00Z';
//! SELECT time_bucket('1 month', TIMESTAMP '2013-10-10T12:00:00Z') = TIMESTAMP '2013-10-01T00:00:00Z';
//! SELECT time_bucket('1d', TIMESTAMP '2013-10-10T12:00:00Z', TIMESTAMP '2000-01-01T09:30:00Z') = TIMESTAMP '2013-10-10T09:30:00Z';
//! ```

use std::sync::Arc;

use arrow::array::{Array, AsArray, TimestampNanosecondArray};
use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampNanosecondType};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use tidemill_engine::duration::Span;

const DAY_NS: i64 = 86_400_000_000_000;
/// Monday, 1970-01-05.
const MONDAY_NS: i64 = 4 * DAY_NS;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TimeBucket {
    signature: Signature,
}

impl Default for TimeBucket {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// How time is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Width {
    /// So many nanoseconds each.
    Fixed { ns: i64 },
    /// So many months each.
    Months(i32),
}

impl Width {
    /// From text or an interval.
    pub(crate) fn of(value: &ScalarValue) -> Result<Self> {
        let interval = match value {
            ScalarValue::Utf8(Some(text))
            | ScalarValue::LargeUtf8(Some(text))
            | ScalarValue::Utf8View(Some(text)) => {
                if let Ok(span) = text.parse::<Span>() {
                    IntervalMonthDayNano::new(0, 0, span.ns())
                } else {
                    match parse_interval_month_day_nano(text) {
                        Ok(interval) => interval,
                        Err(_) => {
                            return plan_err!(
                                "`{text}` is not an interval: write '1m', '1h30m', '5 minutes' or '1 month'"
                            );
                        }
                    }
                }
            }
            ScalarValue::IntervalMonthDayNano(Some(interval)) => *interval,
            ScalarValue::IntervalDayTime(Some(interval)) => {
                IntervalMonthDayNano::new(0, interval.days, i64::from(interval.milliseconds) * 1_000_000)
            }
            ScalarValue::IntervalYearMonth(Some(months)) => IntervalMonthDayNano::new(*months, 0, 0),
            ScalarValue::DurationNanosecond(Some(ns)) => IntervalMonthDayNano::new(0, 0, *ns),
            other => return plan_err!("`{other}` is not an interval: write '1m' or INTERVAL '1 minute'"),
        };
        let ns =
            i64::from(interval.days).checked_mul(DAY_NS).and_then(|d| d.checked_add(interval.nanoseconds));
        match (interval.months, ns) {
            (0, Some(ns)) if ns > 0 => Ok(Width::Fixed { ns }),
            (months, Some(0)) if months > 0 => Ok(Width::Months(months)),
            (0, Some(_)) => plan_err!("an interval of time must be longer than nothing"),
            _ => plan_err!("an interval is either months and years, or days and shorter, not both"),
        }
    }

    /// Where buckets are aligned without an origin.
    pub(crate) fn default_origin(self) -> i64 {
        match self {
            Width::Fixed { ns } if ns % (7 * DAY_NS) == 0 => MONDAY_NS,
            _ => 0,
        }
    }

    /// The bucket's start; nothing where it is beyond what nanoseconds can say.
    pub(crate) fn start(self, ts: i64, origin: i64) -> Option<i64> {
        match self {
            Width::Fixed { ns } => {
                let into = (i128::from(ts) - i128::from(origin)).rem_euclid(i128::from(ns));
                i64::try_from(i128::from(ts) - into).ok()
            }
            Width::Months(n) => {
                let k = (months_of(ts) - months_of(origin)).div_euclid(n) * n;
                start_of_month(months_of(origin) + k)
            }
        }
    }

    /// The start of the bucket after the one that starts at `start`.
    pub(crate) fn next(self, start: i64) -> Option<i64> {
        match self {
            Width::Fixed { ns } => start.checked_add(ns),
            Width::Months(n) => start_of_month(months_of(start) + n),
        }
    }
}

fn months_of(ts: i64) -> i32 {
    let date = DateTime::from_timestamp_nanos(ts);
    date.year() * 12 + date.month0() as i32
}

fn start_of_month(months: i32) -> Option<i64> {
    let date = NaiveDate::from_ymd_opt(months.div_euclid(12), months.rem_euclid(12) as u32 + 1, 1)?;
    date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_nanos_opt()
}

/// The type a time argument is brought to; `None` where it is no time.
pub(crate) fn time_type(t: &DataType) -> Option<DataType> {
    match t {
        DataType::Timestamp(_, zone) => Some(DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())),
        DataType::Date32
        | DataType::Date64
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Null => Some(DataType::Timestamp(TimeUnit::Nanosecond, None)),
        _ => None,
    }
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let (interval, ts, origin) = match args {
            [interval, ts] => (interval, ts, None),
            [interval, ts, origin] => (interval, ts, Some(origin)),
            _ => return plan_err!("time_bucket takes an interval, a time and maybe an origin"),
        };
        let interval = match interval {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
            DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Duration(_) => DataType::Duration(TimeUnit::Nanosecond),
            other => {
                return plan_err!("the first argument of time_bucket is an interval ('1m'), not {other}");
            }
        };
        let Some(ts) = time_type(ts) else {
            return plan_err!("the second argument of time_bucket is a time, not {ts}");
        };
        let mut types = vec![interval, ts.clone()];
        if let Some(origin) = origin {
            if time_type(origin).is_none() {
                return plan_err!("the origin of time_bucket is a time, not {origin}");
            }
            types.push(ts);
        }
        Ok(types)
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args[1].clone())
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let constant = |p: &ExprProperties| matches!(p.sort_properties, SortProperties::Singleton);
        let fixed = constant(&inputs[0]) && inputs.get(2).is_none_or(constant);
        Ok(if fixed { inputs[1].sort_properties } else { SortProperties::Unordered })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ColumnarValue::Scalar(interval) = &args.args[0] else {
            return exec_err!("the interval of time_bucket must be a constant");
        };
        let width = Width::of(interval)?;
        let origin = match args.args.get(2) {
            None => width.default_origin(),
            Some(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(origin), _))) => *origin,
            Some(_) => return exec_err!("the origin of time_bucket must be a constant and not null"),
        };
        match &args.args[1] {
            ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(ts, zone)) => {
                let start = ts.and_then(|ts| width.start(ts, origin));
                Ok(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(start, zone.clone())))
            }
            ColumnarValue::Array(array) => {
                let ts = array.as_primitive::<TimestampNanosecondType>();
                let zone = match array.data_type() {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                let starts = starts(ts, width, origin).with_timezone_opt(zone);
                Ok(ColumnarValue::Array(Arc::new(starts)))
            }
            other => exec_err!("time_bucket got {} for a time", other.data_type()),
        }
    }
}

fn starts(ts: &TimestampNanosecondArray, width: Width, origin: i64) -> TimestampNanosecondArray {
    // Rows mostly come in order, so most fall into the bucket of the row before: no division.
    let mut bucket = None;
    let mut place = |t: i64| {
        if let Some((start, next)) = bucket
            && start <= t
            && t < next
        {
            return Some(start);
        }
        let start = width.start(t, origin)?;
        bucket = Some((start, width.next(start).unwrap_or(i64::MAX)));
        Some(start)
    };
    if ts.null_count() == 0 && ts.values().iter().all(|t| t.unsigned_abs() < 1 << 62) {
        let values: Vec<i64> = ts.values().iter().map(|t| place(*t).unwrap_or(*t)).collect();
        return TimestampNanosecondArray::from(values);
    }
    ts.iter().map(|t| t.and_then(&mut place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_time_and_starts_on_the_grid() {
        let mut seed = 7_u64;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let ts = (seed >> 2) as i64 - (1 << 61);
            let ns = 1 + (seed % 1_000_000_007) as i64 * 1_000;
            let width = Width::Fixed { ns };
            let start = width.start(ts, 17).unwrap();
            assert!(start <= ts && ts < width.next(start).unwrap());
            assert_eq!((i128::from(start) - 17) % i128::from(ns), 0);
        }
    }

    #[test]
    fn widths_read_as_graphs_and_postgres_write_them() {
        let of = |text: &str| Width::of(&ScalarValue::from(text));
        assert_eq!(of("1m").unwrap(), Width::Fixed { ns: 60_000_000_000 });
        assert_eq!(of("5 minutes").unwrap(), Width::Fixed { ns: 300_000_000_000 });
        assert_eq!(of("1 day").unwrap(), Width::Fixed { ns: DAY_NS });
        assert_eq!(of("1 month").unwrap(), Width::Months(1));
        assert_eq!(of("1 year").unwrap(), Width::Months(12));
        for bad in ["", "0", "x", "1 month 2 days", "-1 minute"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
