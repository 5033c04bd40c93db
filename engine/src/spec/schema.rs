//! One JSON Schema of the whole graph, for editors: completion, documentation and squiggles.
//!
//! A node's `with:` depends on its `kind:`, so each role's node is a list of if/then. Wherever a
//! number or a truth value is due, a text with a `$` is let through: variables resolve later.

use serde_json::{Map, Value, json};

use super::read::SECTIONS;
use super::{CheckpointOptions, SourceOptions, TestSpec};
use crate::registry::{Registry, Role};
use crate::state_memory::StateOptions;

/// The JSON Schema of a graph whose kinds are those of `registry`.
pub fn json_schema(registry: &Registry) -> Value {
    let mut defs = Map::new();
    let name = json!({"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"});
    for role in [Role::Source, Role::Operator, Role::Sink] {
        let node = node(registry, role, &mut defs);
        defs.insert(role.noun().into(), node);
    }
    let checkpoints = take::<CheckpointOptions>("checkpoints", &mut defs);
    let state = take::<StateOptions>("state", &mut defs);
    let test = take::<TestSpec>("test", &mut defs);
    let mut properties = Map::new();
    for (section, text) in SECTIONS {
        let mut schema = match section {
            "dataflow" => name.clone(),
            "version" => json!({"type": "integer", "minimum": 0}),
            "description" => json!({"type": "string"}),
            "vars" => {
                json!({"type": "object", "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}})
            }
            "checkpoints" => checkpoints.clone(),
            "state" => state.clone(),
            "tests" => json!({"type": "array", "items": test}),
            nodes => {
                let role = if nodes == "sources" { "source" } else { nodes.trim_end_matches('s') };
                let target = format!("#/$defs/{role}");
                json!({"type": "object", "propertyNames": name, "additionalProperties": {"$ref": target}})
            }
        };
        schema["description"] = text.into();
        properties.insert(section.into(), schema);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidemill graph",
        "type": "object",
        "required": ["dataflow", "sources", "sinks"],
        "additionalProperties": false,
        "properties": properties,
        "$defs": defs,
    })
}

/// The JSON Schema of the `with:` fields that every source has.
pub fn source_options_schema() -> Value {
    schemars::schema_for!(SourceOptions).to_value()
}

fn take<P: schemars::JsonSchema>(name: &str, defs: &mut Map<String, Value>) -> Value {
    let mut schema = schemars::schema_for!(P).to_value();
    embed(&mut schema, name, defs);
    schema
}

/// Adds the fields under their former names, as deprecated.
fn with_former_names(mut schema: Value) -> Value {
    for (former, now) in super::FORMER_NAMES {
        if let Some(mut field) = schema["properties"].get(now).cloned() {
            field["deprecated"] = true.into();
            field["description"] = format!("The former name of `{now}`.").into();
            schema["properties"][former] = field;
        }
    }
    schema
}

/// The schema of a role's nodes.
fn node(registry: &Registry, role: Role, defs: &mut Map<String, Value>) -> Value {
    let options =
        (role == Role::Source).then(|| with_former_names(take::<SourceOptions>("source_options", defs)));
    let mut kinds = Vec::new();
    let mut cases = Vec::new();
    for entry in registry.iter().filter(|entry| entry.role == role) {
        let name = format!("{}_{}", role.noun(), entry.kind);
        let mut with = (entry.schema)();
        embed(&mut with, &name, defs);
        if let Some(options) = &options {
            // One closed list of fields: two schemas that both refuse unknown fields would refuse all.
            let theirs = with.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
            let mut fields = options["properties"].as_object().cloned().unwrap_or_default();
            fields.extend(theirs);
            with["properties"] = fields.into();
        }
        let required = with.get("required").and_then(Value::as_array).is_some_and(|r| !r.is_empty());
        let mut then = json!({"properties": {"with": {"$ref": format!("#/$defs/{name}")}}});
        if required {
            then["required"] = json!(["with"]);
        }
        cases.push(json!({"if": {"properties": {"kind": {"const": entry.kind}}}, "then": then}));
        kinds.push(json!({"const": entry.kind, "description": entry.summary()}));
        defs.insert(name, with);
    }
    let mut properties = json!({
        "kind": {"description": "What it does: `tidemill components` lists the kinds.", "oneOf": kinds},
        "id": {
            "description": "The name under which checkpoints and sinks remember it; default: its name. A node that is renamed keeps its \
                            state with its former name here.",
            "type": "string",
        },
        "with": {"description": "The settings of its kind.", "type": "object"},
    });
    if role != Role::Source {
        let name = json!({"type": "string"});
        properties["from"] = json!({
            "description": "The nodes whose rows it takes.",
            "anyOf": [name, {"type": "array", "items": name, "minItems": 1}],
        });
    }
    json!({
        "type": "object",
        "required": ["kind"],
        "additionalProperties": false,
        "properties": properties,
        "allOf": cases,
    })
}

/// Moves a schema's own definitions to `defs` under names that begin with `prefix`, and lets
/// variables stand for its scalars.
fn embed(schema: &mut Value, prefix: &str, defs: &mut Map<String, Value>) {
    let own = schema.as_object_mut().and_then(|fields| {
        fields.remove("$schema");
        fields.remove("$defs")
    });
    rewrite(schema, prefix, true);
    if let Some(Value::Object(own)) = own {
        for (name, mut definition) in own {
            rewrite(&mut definition, prefix, false);
            defs.insert(format!("{prefix}.{name}"), definition);
        }
    }
}

fn rewrite(at: &mut Value, prefix: &str, top: bool) {
    match at {
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, prefix, false)),
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/$defs/")
            {
                *target = format!("#/$defs/{prefix}.{name}");
            }
            for (key, value) in
                fields.iter_mut().filter(|(key, _)| !["default", "examples", "enum"].contains(&key.as_str()))
            {
                if key == "properties" {
                    // The names in here are fields, not keywords.
                    value
                        .as_object_mut()
                        .into_iter()
                        .flat_map(|p| p.values_mut())
                        .for_each(|v| rewrite(v, prefix, false));
                } else {
                    rewrite(value, prefix, false);
                }
            }
            let scalar = match fields.get("type") {
                Some(Value::String(name)) => is_scalar(name),
                Some(Value::Array(names)) => {
                    names.iter().filter_map(Value::as_str).any(is_scalar)
                        && !names.iter().any(|n| n == "string")
                }
                _ => false,
            };
            if scalar && !top {
                let description = fields.get("description").cloned();
                let own = Value::Object(std::mem::take(fields));
                fields.insert("anyOf".into(), json!([own, {"type": "string", "pattern": "\\$"}]));
                if let Some(description) = description {
                    fields.insert("description".into(), description);
                }
            }
        }
        _ => {}
    }
}

fn is_scalar(name: &str) -> bool {
    matches!(name, "integer" | "number" | "boolean")
}
