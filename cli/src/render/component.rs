//! The list of kinds, and a kind's manual page, from doc comments and JSON Schemas.

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use tidemill_engine::params::properties;
use tidemill_engine::registry::{Entry, Role};

/// Width of tables where the terminal's is not known.
const WIDTH: u16 = 100;

fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(WIDTH);
    }
    table
}

/// Every kind with its summary, by role.
pub fn list(entries: &[&Entry]) -> String {
    let mut out = String::new();
    for role in [Role::Source, Role::Operator, Role::Sink] {
        let mut table = table();
        for entry in entries.iter().filter(|entry| entry.role == role) {
            table.add_row([entry.kind.to_owned(), entry.summary()]);
        }
        if table.row_count() > 0 {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{}\n{}\n", role.section(), trim_lines(&table));
        }
    }
    out.push_str("`tidemill components KIND` documents one of them\n");
    out
}

/// A kind's page: what it does, its example, its fields.
pub fn page(entry: &Entry) -> String {
    let schema = (entry.schema)();
    let mut out = format!("{} ({})\n\n{}\n", entry.kind, entry.role.noun(), prose(&entry.doc()));
    let fields = fields(&schema);
    if fields.row_count() > 1 {
        let _ = write!(out, "\nwith:\n{}\n", trim_lines(&fields));
    }
    if entry.role == Role::Source {
        let options = tidemill_engine::spec::source_options_schema();
        let _ = write!(out, "\nwith, as every source:\n{}\n", trim_lines(&self::fields(&options)));
    }
    out
}

/// Doc comments as text: examples indented instead of fenced.
fn prose(doc: &str) -> String {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in doc.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            lines.push(format!("    {line}").trim_end().to_owned());
        } else {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n")
}

fn fields(schema: &Value) -> Table {
    let mut table = table();
    table.set_header(["FIELD", "TYPE", "DEFAULT", ""]);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let written: Vec<&String> =
        schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|p| p.keys()).collect();
    let mut names = properties(schema);
    // As declared; what comes from a part of the schema (a flattened struct) comes after.
    names.sort_by_key(|name| written.iter().position(|w| *w == name).unwrap_or(usize::MAX));
    for name in names {
        let Some(field) = find(schema, schema, &name) else {
            continue;
        };
        let default = match field.get("default") {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        table.add_row([name.clone(), type_of(schema, field, 0), default, description(schema, field)]);
    }
    table
}

fn resolve<'a>(root: &'a Value, at: &'a Value) -> &'a Value {
    let target = at.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.trim_start_matches('#')));
    target.unwrap_or(at)
}

fn parts(at: &Value) -> impl Iterator<Item = &Value> {
    ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|k| at.get(k)?.as_array()).flatten()
}

fn find<'a>(root: &'a Value, at: &'a Value, name: &str) -> Option<&'a Value> {
    let at = resolve(root, at);
    at.get("properties")
        .and_then(|p| p.get(name))
        .or_else(|| parts(at).find_map(|part| find(root, part, name)))
}

fn description(root: &Value, field: &Value) -> String {
    let own = |s: &Value| s.get("description").and_then(Value::as_str).map(str::to_owned);
    let text = own(field).or_else(|| own(resolve(root, field))).unwrap_or_default();
    text.split("```").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A type in a few words.
fn type_of(root: &Value, field: &Value, depth: usize) -> String {
    if let Some(name) = field.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next())
        && name == "Span"
    {
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
    let choices: Vec<String> = parts(at)
        .filter(|part| part.get("type").is_none_or(|t| t != "null"))
        .map(|part| type_of(root, part, depth + 1))
        .collect();
    if !choices.is_empty() {
        return join(choices.into_iter());
    }
    let names: Vec<&str> = match at.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).filter(|n| *n != "null").collect()
        }
        _ => vec!["any"],
    };
    join(names.into_iter().map(|name| {
        match name {
            "string" => "text".to_owned(),
            "integer" => "whole number".into(),
            "boolean" => "true | false".into(),
            "array" => match at.get("items") {
                Some(items) => format!("list of {}", type_of(root, items, depth + 1)),
                None => "list".into(),
            },
            // A choice with a value, such as `{dead_letter: NAME}`.
            "object" => match at.get("properties").and_then(Value::as_object) {
                Some(fields) if fields.len() == 1 => fields
                    .iter()
                    .map(|(name, value)| format!("{{{name}: {}}}", type_of(root, value, depth + 1)))
                    .collect(),
                _ => "fields".into(),
            },
            other => other.into(),
        }
    }))
}

fn plain(value: &Value) -> String {
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

/// Tables pad every cell; ends of lines need none.
fn trim_lines(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_said_in_a_users_words() {
        let root = json!({"$defs": {"Span": {"type": ["string", "integer"]}}});
        let of = |field: Value| type_of(&root, &field, 0);
        assert_eq!(of(json!({"type": ["integer", "null"]})), "whole number");
        assert_eq!(of(json!({"anyOf": [{"$ref": "#/$defs/Span"}, {"type": "null"}]})), "span of time");
        assert_eq!(of(json!({"type": "array", "items": {"type": "string"}})), "list of text");
        let choice = json!({"oneOf": [{"type": "string", "enum": ["fail", "skip"]}, {"type": "object", "properties": {"dead_letter": {"type": "string"}}}]});
        assert_eq!(of(choice), "fail | skip | {dead_letter: text}");
    }

    #[test]
    fn every_kind_has_a_page() {
        let registry = crate::registry::registry();
        for entry in registry.iter() {
            let page = page(entry);
            assert!(page.starts_with(entry.kind) && !page.contains("```"), "{page}");
        }
    }
}
