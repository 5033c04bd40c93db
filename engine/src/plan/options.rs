//! The engine's part of a source's `with:` block, and the event time column it names.

use arrow::datatypes::{DataType, SchemaRef};
use chrono::{DateTime, NaiveDate, NaiveTime};
use serde_json::{Map, Value};

use crate::component::Problems;
use crate::problem::Problem;
use crate::row;
use crate::schema::type_name;
use crate::spec::{FORMER_NAMES, SourceOptions};

/// Earliest event time a source takes unless `ts_min` says otherwise: 1900-01-01.
const TS_MIN: i64 = -2_208_988_800_000_000_000;
/// First event time it refuses unless `ts_max` says otherwise: 2200-01-01.
const TS_MAX: i64 = 7_258_118_400_000_000_000;

/// Names of the `with:` fields that every source has.
pub fn source_option_names() -> Vec<String> {
    crate::params::properties(&schemars::schema_for!(SourceOptions).to_value())
}

/// Splits a source's `with:` block into the engine's part and its kind's, whose JSON Schema is
/// `schema`, and finds fields that neither knows. A kind that declares a field of the engine's name
/// gets the same value: it needs to know it too.
pub(super) fn split(with: &Value, schema: &Value) -> (Value, Value, Problems) {
    let (ours, theirs) = (source_option_names(), crate::params::properties(schema));
    let mut parts = (Map::new(), Map::new());
    let mut problems = Problems::new();
    for (name, value) in with.as_object().into_iter().flatten() {
        if let Some(now) = renamed(name).filter(|_| !theirs.contains(name)) {
            if with.get(now).is_some() {
                let problem =
                    Problem::new(name, format!("`{name}` is the former name of `{now}`, which is here too"));
                problems.push(problem.at_key().hint(format!("remove `{name}`")));
            }
            parts.0.insert(now.to_owned(), value.clone());
        } else if ours.contains(name) {
            parts.0.insert(name.clone(), value.clone());
        }
        if theirs.contains(name) {
            parts.1.insert(name.clone(), value.clone());
        } else if !ours.contains(name) && renamed(name).is_none() && schema.is_object() {
            let known = theirs.iter().chain(&ours).map(String::as_str);
            let problem = Problem::new(name, format!("unknown field `{name}`")).at_key();
            problems.push(problem.hint_names(name, known));
        }
    }
    (parts.0.into(), parts.1.into(), problems)
}

/// What a field that was once called `name` is called now.
fn renamed(name: &str) -> Option<&'static str> {
    FORMER_NAMES.iter().find(|(former, _)| *former == name).map(|(_, now)| *now)
}

/// Problems of fields that `with` has under their former names point at those.
pub(super) fn as_written(with: &Value, problems: &mut Problems) {
    for (former, now) in
        FORMER_NAMES.iter().filter(|(former, now)| with.get(former).is_some() && with.get(now).is_none())
    {
        problems
            .iter_mut()
            .filter(|problem| problem.path == *now)
            .for_each(|problem| problem.path = (*former).to_owned());
    }
}

/// Reads the engine's part, with the bounds of `ts`.
pub(super) fn parse(with: Value) -> Result<(SourceOptions, (i64, i64)), Problems> {
    let mut problems = Problems::new();
    let mut bound = |name: &str, default: i64| match with.get(name).and_then(Value::as_str) {
        None => default,
        Some(text) => time(text).unwrap_or_else(|| {
            let problem = Problem::new(name, format!("`{text}` is not a time"));
            problems.push(problem.hint("write 2024-01-31 or 2024-01-31T12:00:00Z, between 1678 and 2261"));
            default
        }),
    };
    let range = (bound("ts_min", TS_MIN), bound("ts_max", TS_MAX));
    if problems.is_empty() && range.0 >= range.1 {
        let at = if with.get("ts_max").is_some() { "ts_max" } else { "ts_min" };
        let problem = Problem::new(at, "no time lies between `ts_min` and `ts_max`");
        problems.push(problem.hint("`ts_max` must be the later"));
    }
    match crate::params::parse(with, &schemars::schema_for!(SourceOptions).to_value()) {
        Ok(options) if problems.is_empty() => Ok((options, range)),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

fn time(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_nanos_opt();
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    date.and_time(NaiveTime::MIN).and_utc().timestamp_nanos_opt()
}

/// The schema of a source's stream: the system columns, then its own but for an event time column
/// named `ts`, which becomes the system's.
pub(super) fn stream_schema(
    name: &str,
    columns: &SchemaRef,
    options: &SourceOptions,
) -> Result<SchemaRef, Problem> {
    let event_time = options.event_time.as_str();
    let names: Vec<&str> =
        columns.fields().iter().map(|f| f.name().as_str()).filter(|n| !n.starts_with('_')).collect();
    let Ok(field) = columns.field_with_name(event_time) else {
        let problem = Problem::new(
            "event_time",
            format!("`{name}` has no column `{event_time}` to take the event time from"),
        );
        let known = names.join(", ");
        return Err(match crate::problem::nearest(event_time, &names) {
            Some(near) => problem.hint(format!("did you mean `{near}`? its columns: {known}")),
            None => problem.hint(format!("set `event_time` to one of its columns: {known}")),
        });
    };
    let t = field.data_type();
    let is_time =
        matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) || t.is_integer();
    if !is_time {
        return Err(Problem::new(
            "event_time",
            format!("column `{event_time}` is {}, not a time", type_name(t)),
        )
        .hint("an event time is a timestamp, a date, or an integer with `event_time_unit`"));
    }
    if event_time != row::TS && columns.field_with_name(row::TS).is_ok() {
        return Err(Problem::new(
            "event_time",
            format!("column `ts` would be hidden: `ts` is the event time, taken from `{event_time}`"),
        )
        .hint("leave `ts` out of the source's columns or rename it, or use `event_time: ts`"));
    }
    Ok(row::stream_schema(columns.fields()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_or_rfc_3339() {
        assert_eq!(time("1900-01-01"), Some(TS_MIN));
        assert_eq!(time("2200-01-01T00:00:00Z"), Some(TS_MAX));
        assert_eq!(time("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(time("yesterday"), None);
        assert_eq!(time("9999-01-01"), None);
    }
}
