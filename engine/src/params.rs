//! Reads a component's `with:` block into its parameters, finding every error at once.
//!
//! Serde stops at the first error; so unknown and missing fields are found first, against the JSON
//! Schema, and after each other error the offending field is replaced by a placeholder and reading
//! goes on. Serde's words are turned into a user's.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::component::Problems;
use crate::problem::Problem;

/// Errors after which reading one block gives up.
const PROBLEMS_MAX: usize = 32;

/// Reads `with` as a `P`, whose JSON Schema is `schema`.
///
/// Text that reads as a number or as true or false is taken as one where that is expected: values
/// from the environment are text.
pub fn parse<P: DeserializeOwned>(with: Value, schema: &Value) -> Result<P, Problems> {
    let fields = match with {
        Value::Null => Map::new(),
        Value::Object(fields) => fields,
        other => {
            return Err(vec![Problem::new("", format!("expected fields, found {}", describe(&other)))]);
        }
    };
    let mut reader = Reader { fields, schema, problems: Problems::new(), replaced: BTreeSet::new() };
    reader.unknown_fields();
    reader.missing_fields();
    let mut coerced: BTreeSet<String> = BTreeSet::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, P>(Value::Object(reader.fields.clone())) {
            Ok(params) if reader.problems.is_empty() => return Ok(params),
            Ok(_) => return Err(reader.problems),
            Err(error) => error,
        };
        let path = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        let message = tidy(error.inner().to_string());
        if wants_scalar(&message) && coerced.insert(path.clone()) && reader.coerce(&path) {
            continue;
        }
        if !reader.report(&path, &message) || reader.problems.len() >= PROBLEMS_MAX {
            return Err(reader.problems);
        }
    }
}

struct Reader<'a> {
    fields: Map<String, Value>,
    schema: &'a Value,
    problems: Problems,
    /// Fields whose value has been replaced: problems with them are not the user's doing.
    replaced: BTreeSet<String>,
}

impl Reader<'_> {
    fn unknown_fields(&mut self) {
        let known = properties(self.schema);
        let closed = self.schema.get("additionalProperties") == Some(&Value::Bool(false));
        if known.is_empty() && !closed {
            return;
        }
        let unknown: Vec<String> = self.fields.keys().filter(|k| !known.contains(k)).cloned().collect();
        for name in unknown {
            self.fields.shift_remove(&name);
            let problem = Problem::new(name.clone(), format!("unknown field `{name}`")).at_key();
            self.problems.push(problem.hint_names(&name, known.iter().map(String::as_str)));
        }
    }

    fn missing_fields(&mut self) {
        let required = self.schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if self.fields.get(name).is_none_or(Value::is_null) {
                // A field left empty (`every:`) is pointed at; one that is not there, its block is.
                let at = if self.fields.contains_key(name) { name } else { "" };
                let problem = Problem::new(at, format!("missing field `{name}`"));
                self.problems.push(self.with_description(problem, name));
                self.replace(name);
            }
        }
    }

    /// Notes an error; whether it makes sense to read on.
    fn report(&mut self, path: &str, message: &str) -> bool {
        let top = path.split(['.', '[']).next().unwrap_or_default().to_owned();
        if self.replaced.contains(&top) {
            return false;
        }
        if let Some(name) = message.strip_prefix("missing field `").and_then(|r| r.split('`').next())
            && path.is_empty()
            && self.replaced.contains(name)
        {
            return false;
        }
        let problem = self.plain(path, message);
        self.problems.push(problem);
        if top.is_empty() || !self.fields.contains_key(&top) {
            return false;
        }
        self.replace(&top);
        true
    }

    fn replace(&mut self, name: &str) {
        let required = self.schema.get("required").and_then(Value::as_array);
        let required = required.is_some_and(|names| names.iter().any(|n| n == name));
        match self.find(name).filter(|_| required) {
            Some(schema) => self.fields.insert(name.to_owned(), placeholder(self.schema, schema, 0)),
            None => self.fields.shift_remove(name),
        };
        self.replaced.insert(name.to_owned());
    }

    /// Turns text into the number or truth value it reads as; whether it was one.
    fn coerce(&mut self, path: &str) -> bool {
        let mut segments = segments(path);
        let Some(value) = segments.next().and_then(|top| self.fields.get_mut(top)) else {
            return false;
        };
        let value = segments.try_fold(value, |value, segment| match value {
            Value::Object(fields) => fields.get_mut(segment),
            Value::Array(items) => items.get_mut(segment.parse::<usize>().ok()?),
            _ => None,
        });
        let Some(value) = value else { return false };
        let read = value.as_str().map(crate::spec::scalar);
        match read {
            Some(read @ (Value::Number(_) | Value::Bool(_))) => {
                *value = read;
                true
            }
            _ => false,
        }
    }

    /// A message in a user's words.
    fn plain(&self, path: &str, message: &str) -> Problem {
        let quoted = |prefix: &str| {
            let rest = message.strip_prefix(prefix)?.strip_prefix('`')?;
            let (name, rest) = rest.split_once('`')?;
            // What follows lists what was expected, each in backquotes.
            Some((name.to_owned(), rest.split('`').skip(1).step_by(2).collect::<Vec<_>>()))
        };
        if let Some((name, known)) = quoted("unknown variant ") {
            return Problem::new(path, format!("unknown value `{name}`")).hint_names(&name, known);
        }
        if let Some((name, known)) = quoted("unknown field ") {
            let problem = Problem::new(path, format!("unknown field `{name}`")).at_key();
            return if known.is_empty() {
                problem.hint("it takes none")
            } else {
                problem.hint_names(&name, known)
            };
        }
        if let Some((name, _)) = quoted("missing field ") {
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            return self.with_description(Problem::new(path, message), &at);
        }
        if message.contains("unit variant, expected newtype variant") {
            // `on_error: dead_letter` where `on_error: {dead_letter: …}` is due.
            let (at, name) = path.rsplit_once('.').unwrap_or(("", path));
            let field = at.rsplit('.').next().unwrap_or(at);
            return Problem::new(at, format!("`{name}` needs a value"))
                .hint(format!("write `{field}: {{{name}: …}}`"));
        }
        let invalid =
            message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
        if let Some((found, expected)) = invalid.and_then(|rest| rest.rsplit_once(", expected ")) {
            let problem =
                Problem::new(path, format!("expected {}, found {}", plain_name(expected), got(found)));
            return match expected {
                "a string"
                    if found.starts_with("integer")
                        || found.starts_with("float")
                        || found.starts_with("bool") =>
                {
                    problem.hint("put it in quotes to make it text")
                }
                _ => self.with_description(problem, path),
            };
        }
        if message.starts_with("data did not match any variant") {
            return self.with_description(Problem::new(path, "not a value that this field takes"), path);
        }
        self.with_description(Problem::new(path, message), path)
    }

    /// Adds what the field's documentation says first.
    fn with_description(&self, problem: Problem, path: &str) -> Problem {
        let mut at = path;
        while !at.is_empty() {
            if let Some(text) = self.find(at).and_then(|s| description(self.schema, s)) {
                let name = at.rsplit(['.', ']']).next().filter(|n| !n.is_empty()).unwrap_or(at);
                return problem.hint(format!("{name}: {text}"));
            }
            at = &at[..at.rfind(['.', '[']).unwrap_or(0)];
        }
        problem
    }

    /// The schema of the field at `path`.
    fn find(&self, path: &str) -> Option<&Value> {
        segments(path).try_fold(self.schema, |at, segment| child(self.schema, at, segment, 0))
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[']).map(|s| s.trim_end_matches(']')).filter(|s| !s.is_empty())
}

fn resolve<'a>(root: &'a Value, at: &'a Value) -> &'a Value {
    let target = at.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.trim_start_matches('#')));
    target.unwrap_or(at)
}

fn parts(at: &Value) -> impl Iterator<Item = &Value> {
    ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|k| at.get(k)?.as_array()).flatten()
}

fn child<'a>(root: &'a Value, at: &'a Value, name: &str, depth: usize) -> Option<&'a Value> {
    if depth > 8 {
        return None;
    }
    let at = resolve(root, at);
    let own = at
        .get("properties")
        .and_then(|p| p.get(name))
        .or_else(|| if name.bytes().all(|b| b.is_ascii_digit()) { at.get("items") } else { None });
    own.or_else(|| parts(at).find_map(|part| child(root, part, name, depth + 1)))
        .or_else(|| at.get("additionalProperties").filter(|v| v.is_object()))
}

/// The first sentence of a field's documentation.
fn description(root: &Value, schema: &Value) -> Option<String> {
    let own = |s: &Value| s.get("description").and_then(Value::as_str).map(str::to_owned);
    let text = own(schema)
        .or_else(|| own(resolve(root, schema)))
        .or_else(|| parts(schema).find_map(|part| own(resolve(root, part))))?;
    let paragraph = text.split("\n\n").next()?.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = paragraph.split_inclusive(". ").next()?.trim().trim_end_matches('.').to_owned();
    (!sentence.is_empty()).then_some(sentence)
}

/// Some value that fits a schema, to read on behind a field that is wrong or missing.
fn placeholder(root: &Value, schema: &Value, depth: usize) -> Value {
    let at = resolve(root, schema);
    for from in [schema, at] {
        if let Some(value) = from.get("default").or_else(|| from.get("const")) {
            return value.clone();
        }
        if let Some(value) = ["examples", "enum"].iter().find_map(|k| from.get(*k)?.get(0)) {
            return value.clone();
        }
    }
    if depth < 4
        && let Some(part) = parts(at).next()
    {
        return placeholder(root, part, depth + 1);
    }
    let name = match at.get("type") {
        Some(Value::Array(names)) => names.first().and_then(Value::as_str),
        other => other.and_then(Value::as_str),
    };
    match name {
        Some("string") => json!("x"),
        Some("integer" | "number") => {
            at.get("minimum").filter(|m| m.as_i64() != Some(0)).cloned().unwrap_or(json!(1))
        }
        Some("boolean") => json!(false),
        Some("array") => json!([]),
        Some("object") => {
            let mut fields = Map::new();
            let required = at.get("required").and_then(Value::as_array);
            for name in required.into_iter().flatten().filter_map(Value::as_str) {
                if let Some(field) = at.get("properties").and_then(|p| p.get(name)).filter(|_| depth < 4) {
                    fields.insert(name.to_owned(), placeholder(root, field, depth + 1));
                }
            }
            Value::Object(fields)
        }
        _ => Value::Null,
    }
}

/// The fields a schema names at its top, through `$ref`, `allOf`, `anyOf` and `oneOf`.
pub fn properties(schema: &Value) -> Vec<String> {
    fn collect(root: &Value, at: &Value, names: &mut Vec<String>, depth: usize) {
        if depth > 8 {
            return;
        }
        let at = resolve(root, at);
        if let Some(fields) = at.get("properties").and_then(Value::as_object) {
            names.extend(fields.keys().cloned());
        }
        parts(at).for_each(|part| collect(root, part, names, depth + 1));
    }
    let mut names = Vec::new();
    collect(schema, schema, &mut names, 0);
    names.sort();
    names.dedup();
    names
}

/// A value as messages name it: text `x`, the number 5, a list.
pub fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(text) => format!("text `{text}`"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "fields".into(),
    }
}

/// Serde's words without its position suffix.
fn tidy(mut message: String) -> String {
    if let Some(end) = message.find(" at line ") {
        message.truncate(end);
    }
    message
}

fn wants_scalar(message: &str) -> bool {
    message.starts_with("invalid type: string")
        && message.rsplit_once(", expected ").is_some_and(|(_, expected)| {
            matches!(
                plain_name(expected),
                "a whole number" | "a whole number, zero or more" | "a number" | "true or false"
            )
        })
}

/// What serde expected, in a user's words.
fn plain_name(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, zero or more",
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => {
            "a whole number, one or more"
        }
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "string" => "text",
        "a sequence" => "a list",
        "a map" => "fields",
        "string or map" => "a name, or a name with a value",
        other if other.starts_with("struct ") => "fields",
        other => other,
    }
}

/// What serde found, in a user's words.
fn got(found: &str) -> String {
    let text = found.strip_prefix("string ").map(|t| t.trim_matches('"'));
    if let Some(text) = text {
        return format!("text `{text}`");
    }
    let number = found.strip_prefix("integer ").or_else(|| found.strip_prefix("floating point "));
    match (number, found) {
        (Some(number), _) => format!("the number {}", number.trim_matches('`')),
        (None, "null") => "nothing".into(),
        (None, "sequence") => "a list".into(),
        (None, "map") => "fields".into(),
        (None, "unit variant") => "only a name".into(),
        (None, other) => other.strip_prefix("boolean ").unwrap_or(other).trim_matches('`').into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::duration::Span;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct P {
        /// How long an interval is. Never zero.
        every: Span,
        /// Rows before the first.
        warmup: u32,
        #[serde(default)]
        by: Vec<String>,
        #[serde(default)]
        add: BTreeMap<String, Rsi>,
        #[serde(default)]
        mode: Mode,
        #[serde(default)]
        exact: Option<bool>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Rsi {
        /// Rows it looks back.
        period: usize,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        #[default]
        Exact,
        Fast,
    }

    fn problems(with: Value) -> Vec<String> {
        parse::<P>(with, &schemars::schema_for!(P).to_value())
            .unwrap_err()
            .iter()
            .map(|p| p.to_string())
            .collect()
    }

    #[test]
    fn every_error_is_found_at_once() {
        assert_eq!(
            problems(
                json!({"evry": 1, "every": "x", "by": ["a", 2], "mode": "fats", "add": {"rsi": {"perod": 1}}})
            ),
            [
                "evry: unknown field `evry` (did you mean `every`?)",
                ": missing field `warmup` (warmup: Rows before the first)",
                "every: `x` is not a span of time: write 250ms, 1m, 1h30m or 1d (every: How long an interval is)",
                "by[1]: expected text, found the number 2 (put it in quotes to make it text)",
                "mode: unknown value `fats` (did you mean `fast`?)",
                "add.rsi.perod: unknown field `perod` (did you mean `period`?)",
            ]
        );
        assert_eq!(problems(json!(null)).len(), 2, "both fields that must be there");
    }

    #[test]
    fn serdes_words_become_a_users() {
        let one = |field: &str, value: Value| {
            let mut with = json!({"every": "1m", "warmup": 1});
            with[field] = value;
            problems(with).join("; ")
        };
        assert_eq!(
            one("warmup", json!("many")),
            "warmup: expected a whole number, zero or more, found text `many` (warmup: Rows before the first)"
        );
        assert_eq!(
            one("warmup", json!(-1)),
            "warmup: expected a whole number, zero or more, found the number -1 (warmup: Rows before the first)"
        );
        assert_eq!(one("by", json!("a")), "by: expected a list, found text `a`");
        assert_eq!(
            one("every", json!(5)),
            "every: `5` has no unit: write 5s, 5ms, … (every: How long an interval is)"
        );
        assert_eq!(one("exact", json!("maybe")), "exact: expected true or false, found text `maybe`");
        assert_eq!(
            one("add", json!({"rsi": {}})),
            "add.rsi: missing field `period` (period: Rows it looks back)"
        );
    }

    #[test]
    fn text_from_the_environment_becomes_what_is_expected() {
        let with = json!({"every": "1m", "warmup": "14", "exact": "true", "add": {"rsi": {"period": "9"}}});
        let p: P = parse(with, &schemars::schema_for!(P).to_value()).unwrap();
        assert_eq!((p.warmup, p.exact, p.add["rsi"].period), (14, Some(true), 9));
    }
}
