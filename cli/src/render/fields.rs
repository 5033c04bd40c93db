//! What a JSON Schema says of a field, in a user's words.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value};

/// Width of tables where the terminal's is not known.
pub const WIDTH: u16 = 100;

/// How deep schemas are followed.
const DEPTH_MAX: usize = 8;

/// A table without lines.
pub fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(WIDTH);
    }
    table
}

/// Tables pad every cell; ends of lines need none.
pub fn trim_lines(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Doc comments as text: examples indented instead of fenced, links without their brackets.
pub fn prose(doc: &str) -> String {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in doc.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            lines.push(format!("    {line}").trim_end().to_owned());
        } else {
            lines.push(unlinked(line));
        }
    }
    lines.join("\n")
}

fn unlinked(text: &str) -> String {
    text.replace("[`", "`").replace("`]", "`")
}

/// What `at` refers to.
pub fn resolve<'a>(root: &'a Value, at: &'a Value) -> &'a Value {
    let target = at.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.trim_start_matches('#')));
    target.unwrap_or(at)
}

/// The schemas that `at` is made of or chooses from.
pub fn parts(at: &Value) -> impl Iterator<Item = &Value> {
    ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|k| at.get(k)?.as_array()).flatten()
}

/// The same without the one that says that nothing may be there.
pub fn choices(at: &Value) -> Vec<&Value> {
    parts(at).filter(|part| part.get("type").is_none_or(|t| t != "null")).collect()
}

/// Names of all fields, as declared; what comes from a part (a flattened struct, a variant) comes after.
pub fn names(root: &Value, at: &Value) -> Vec<String> {
    fn collect(root: &Value, at: &Value, names: &mut Vec<String>, depth: usize) {
        let at = resolve(root, at);
        for name in at.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if depth < DEPTH_MAX {
            parts(at).for_each(|part| collect(root, part, names, depth + 1));
        }
    }
    let mut found = Vec::new();
    collect(root, at, &mut found, 0);
    found
}

/// A field by its name, and whether it must be there.
pub fn find<'a>(root: &'a Value, at: &'a Value, name: &str) -> Option<(&'a Value, bool)> {
    fn search<'a>(root: &'a Value, at: &'a Value, name: &str, depth: usize) -> Option<(&'a Value, bool)> {
        let at = resolve(root, at);
        if let Some(field) = at.get("properties").and_then(|p| p.get(name)) {
            return Some((field, required(at).contains(&name)));
        }
        (depth < DEPTH_MAX).then(|| parts(at).find_map(|part| search(root, part, name, depth + 1)))?
    }
    search(root, at, name, 0)
}

/// Fields that must be there.
pub fn required(at: &Value) -> Vec<&str> {
    at.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The text of a schema, or of what it refers to.
pub fn doc<'a>(root: &'a Value, field: &'a Value) -> &'a str {
    let own = |s: &'a Value| s.get("description").and_then(Value::as_str);
    own(field).or_else(|| own(resolve(root, field))).unwrap_or_default()
}

/// That text in one line, without examples.
pub fn description(root: &Value, field: &Value) -> String {
    let text = doc(root, field).split("```").next().unwrap_or_default();
    unlinked(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Whether a field is a span of time.
pub fn is_span(field: &Value) -> bool {
    field.get("$ref").and_then(Value::as_str).is_some_and(|r| r.ends_with("/Span"))
}

/// A type in a few words.
pub fn type_of(root: &Value, field: &Value) -> String {
    words(root, field, 0)
}

fn words(root: &Value, field: &Value, depth: usize) -> String {
    if is_span(field) {
        return "span of time".into();
    }
    let at = resolve(root, field);
    if depth > 3 {
        return "…".into();
    }
    if let Some(values) = at.get("enum").and_then(Value::as_array) {
        return join(values.iter().map(plain));
    }
    if let Some(value) = at.get("const") {
        return plain(value);
    }
    let choices = choices(at);
    if !choices.is_empty() {
        return join(choices.into_iter().map(|part| words(root, part, depth + 1)));
    }
    let names: Vec<&str> = match at.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).filter(|n| *n != "null").collect()
        }
        _ => vec!["any"],
    };
    join(names.into_iter().map(|name| match name {
        "string" => "text".to_owned(),
        "integer" => "whole number".into(),
        "boolean" => "true | false".into(),
        "array" => match at.get("items") {
            Some(items) => format!("list of {}", words(root, items, depth + 1)),
            None => "list".into(),
        },
        "object" => object(root, at, depth),
        other => other.into(),
    }))
}

fn object(root: &Value, at: &Value, depth: usize) -> String {
    match at.get("properties").and_then(Value::as_object) {
        // A choice with a value, such as `{dead_letter: NAME}`.
        Some(fields) if fields.len() == 1 => fields
            .iter()
            .map(|(name, value)| format!("{{{name}: {}}}", words(root, value, depth + 1)))
            .collect(),
        Some(fields) => match fields.iter().find(|(_, value)| value.get("const").is_some()) {
            Some((tag, value)) => format!("{{{tag}: {}, …}}", words(root, value, depth + 1)),
            None => "fields".into(),
        },
        None => match at.get("additionalProperties").filter(|value| value.is_object()) {
            Some(value) => format!("{} by name", words(root, value, depth + 1)),
            None => "fields".into(),
        },
    }
}

/// A value as it is written in a graph.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn join(items: impl Iterator<Item = String>) -> String {
    let mut unique: Vec<String> = Vec::new();
    for item in items {
        if !unique.contains(&item) {
            unique.push(item);
        }
    }
    unique.join(" | ")
}

/// What a field is when it is left out: of a block, only what its own fields would not say.
pub fn default_of(root: &Value, field: &Value) -> String {
    match field.get("default") {
        None | Some(Value::Null) => String::new(),
        Some(Value::Object(fields)) => {
            let said = |name: &str, value: &Value| {
                find(root, field, name).is_some_and(|(own, required)| {
                    !required && own.get("default").unwrap_or(&Value::Null) == value
                })
            };
            let own: Map<String, Value> = fields
                .iter()
                .filter(|(name, value)| !said(name, value))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            Value::Object(own).to_string()
        }
        Some(other) => plain(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_said_in_a_users_words() {
        let root = json!({"$defs": {"Span": {"type": ["string", "integer"]}}});
        let of = |field: Value| type_of(&root, &field);
        assert_eq!(of(json!({"type": ["integer", "null"]})), "whole number");
        assert_eq!(of(json!({"anyOf": [{"$ref": "#/$defs/Span"}, {"type": "null"}]})), "span of time");
        assert_eq!(of(json!({"type": "array", "items": {"type": "string"}})), "list of text");
        let choice = json!({"oneOf": [{"type": "string", "enum": ["fail", "skip"]}, {"type": "object", "properties": {"dead_letter": {"type": "string"}}}]});
        assert_eq!(of(choice), "fail | skip | {dead_letter: text}");
        let tagged = json!({"type": "object", "properties": {"kind": {"const": "paper"}, "queue": {"type": "string"}}});
        assert_eq!(of(tagged), "{kind: paper, …}");
        let map = json!({"type": "object", "additionalProperties": {"type": "number"}});
        assert_eq!(of(map), "number by name");
    }

    #[test]
    fn a_blocks_default_is_what_its_fields_do_not_say() {
        let root = json!({});
        let block = json!({
            "type": "object",
            "properties": { "paths": {"type": "integer", "default": 100}, "seed": {"type": ["integer", "null"]}, "kind": {"const": "paper"} },
            "required": ["kind"],
            "default": { "paths": 100, "seed": null, "kind": "paper" },
        });
        assert_eq!(default_of(&root, &block), r#"{"kind":"paper"}"#);
    }
}
