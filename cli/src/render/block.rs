//! Pages of what is inside a kind's settings: `execution.risk.drawdown` and the like.
//!
//! A path goes through lists, maps and optional values by itself: after `instruments` comes a field of an instrument. A choice's
//! variants are steps too, by their name (`sizing.volatility`) or by the value of their tag (`venue.paper`).

use std::fmt::Write;

use comfy_table::Table;
use serde_json::Value;
use tidemill_engine::problem::nearest;

use super::fields::{
    WIDTH, choices, default_of, description, doc, find, is_span, names, plain, prose, required, resolve,
    table, trim_lines, type_of,
};

/// Blocks inside blocks that are followed.
const DEPTH_MAX: usize = 8;
/// Places that an error lists.
const PLACES_MAX: usize = 5;

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    root: &'a Value,
    /// As its parent declares it.
    field: &'a Value,
    required: bool,
}

impl<'a> Block<'a> {
    /// All settings of a kind.
    pub fn whole(root: &'a Value) -> Self {
        Self { root, field: root, required: false }
    }

    /// The setting at `path`, or where the path ends: the place up to there, and the step that is not there.
    pub fn at(self, path: &str) -> Result<Self, (Self, &str, &str)> {
        let mut at = self;
        let mut done = 0;
        for step in path.split('.') {
            match at.step(step) {
                Some(next) => at = next,
                None => return Err((at, path[..done].trim_end_matches('.'), step)),
            }
            done += step.len() + 1;
        }
        Ok(at)
    }

    fn step(self, name: &str) -> Option<Self> {
        let (body, _) = body(self.root, self.field);
        if let Some((field, required)) = find(self.root, body, name) {
            return Some(Self { field, required, ..self });
        }
        let variant = variants(self.root, body).into_iter().find(|variant| match Variant::of(variant) {
            Variant::Value(value) => value == name,
            Variant::Tagged(_, value) => value == name,
            Variant::Named(_) | Variant::Other => false,
        })?;
        Some(Self { field: variant, required: false, ..self })
    }

    /// Its schema, with what it refers to.
    pub fn schema(self) -> Value {
        let mut schema = self.field.clone();
        if let (Some(fields), Some(defs)) = (schema.as_object_mut(), self.root.get("$defs")) {
            fields.insert("$defs".into(), defs.clone());
        }
        schema
    }

    /// Its page.
    pub fn page(self, path: &str) -> String {
        let root = self.root;
        let (body, each) = body(root, self.field);
        let mut out = format!("{path}\n\n");
        let mut texts = vec![doc(root, self.field)];
        let inner = doc(root, body);
        if !texts.contains(&inner) {
            texts.push(inner);
        }
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            let _ = write!(out, "{}\n\n", prose(text));
        }
        if !is_block(root, body) || !each.is_empty() {
            let _ = writeln!(out, "type: {}", type_of(root, self.field));
        }
        match default_of(root, self.field) {
            _ if self.required => out.push_str("default: none, it must be given\n"),
            default if !default.is_empty() => {
                let _ = writeln!(out, "default: {default}");
            }
            _ => {}
        }
        if out.ends_with("\n\n") {
            out.pop();
        }
        out.push_str(&self.inside(body, each));
        out.push_str(&more(root, body, path));
        out
    }

    /// Its fields, or what it chooses from.
    fn inside(self, body: &Value, each: &str) -> String {
        let (root, mut out) = (self.root, String::new());
        if body.get("properties").is_some() {
            let fields = of_fields(root, body, &[]);
            let _ = write!(out, "\nfields{each}:\n{}\n", trim_lines(&fields));
            return out;
        }
        let variants = variants(root, body);
        if variants.is_empty() {
            return out;
        }
        let _ = writeln!(out, "\none of{each}:");
        let mut plain_ones = table();
        let mut blocks = String::new();
        for variant in variants {
            let text = description(root, variant);
            let fields = match Variant::of(variant) {
                Variant::Value(value) => {
                    plain_ones.add_row([value, text]);
                    continue;
                }
                Variant::Named(name) => {
                    let inner = find(root, variant, &name).map_or(variant, |(field, _)| field);
                    let (inside, _) = self::body(root, inner);
                    if inside.get("properties").is_none() {
                        plain_ones.add_row([format!("{name}: {}", type_of(root, inner)), text]);
                        continue;
                    }
                    let _ = writeln!(blocks, "\n {name}: {}", said(&text));
                    of_fields(root, inside, &[])
                }
                Variant::Tagged(tag, value) => {
                    let _ = writeln!(blocks, "\n {tag}: {value} {}", said(&text));
                    of_fields(root, resolve(root, variant), &[&tag])
                }
                Variant::Other => {
                    let (inside, _) = self::body(root, variant);
                    if inside.get("properties").is_none() {
                        plain_ones.add_row([type_of(root, variant), text]);
                        continue;
                    }
                    let _ = writeln!(blocks, "\n fields {}", said(&text));
                    of_fields(root, inside, &[])
                }
            };
            if fields.row_count() > 0 {
                let lines = trim_lines(&fields).replace('\n', "\n  ");
                let _ = writeln!(blocks, "  {lines}");
            }
        }
        if plain_ones.row_count() > 0 {
            let _ = writeln!(out, "{}", trim_lines(&plain_ones));
        }
        out + &blocks
    }

    /// Why there is no `step` at `path` of `kind`, and what there is.
    pub fn unknown(self, kind: &str, path: &str, step: &str) -> String {
        let (root, here) = (self.root, joined(kind, path));
        let (body, _) = body(root, self.field);
        let mut known = names(root, body);
        for variant in variants(root, body) {
            if let Variant::Value(name) | Variant::Tagged(_, name) = Variant::of(variant) {
                known.push(name);
            }
        }
        let elsewhere: Vec<String> = all(root)
            .into_iter()
            .filter(|(path, _)| path.rsplit('.').next() == Some(step))
            .map(|(path, _)| format!("`{}`", joined(kind, &path)))
            .collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let what = match known.is_empty() {
            true => format!("`{here}` has nothing inside: it is {}", type_of(root, self.field)),
            false => format!("there is no `{step}` in `{here}`"),
        };
        match (nearest(step, &known), elsewhere.is_empty()) {
            (_, false) => format!("{what}: there is {}", list(&elsewhere)),
            (Some(near), _) => format!("{what}: did you mean `{}`?", joined(&here, near)),
            (None, _) if known.is_empty() => what,
            (None, _) => format!("{what}: it has {}", known.join(", ")),
        }
    }
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("({})", text.trim_end_matches('.')) }
}

fn list(places: &[String]) -> String {
    let shown = places[..places.len().min(PLACES_MAX)].join(", ");
    match places.len().saturating_sub(PLACES_MAX) {
        0 => shown,
        left => format!("{shown} and {left} more"),
    }
}

fn joined(path: &str, step: &str) -> String {
    if step.is_empty() { path.to_owned() } else { format!("{path}.{step}") }
}

/// How a variant is written.
enum Variant {
    /// A value: `pessimistic`.
    Value(String),
    /// A name and a value: `{ ticks: 1 }`.
    Named(String),
    /// Fields with one that tells: `{ kind: paper, … }`.
    Tagged(String, String),
    Other,
}

impl Variant {
    fn of(variant: &Value) -> Self {
        if let Some(value) = variant.get("const").or_else(|| only(variant.get("enum")?)) {
            return Self::Value(plain(value));
        }
        let Some(fields) = variant.get("properties").and_then(Value::as_object) else { return Self::Other };
        if let Some((tag, value)) = fields.iter().find_map(|(name, field)| Some((name, field.get("const")?)))
        {
            return Self::Tagged(tag.clone(), plain(value));
        }
        match fields.keys().next() {
            Some(name) if fields.len() == 1 && required(variant) == [name] => Self::Named(name.clone()),
            _ => Self::Other,
        }
    }
}

fn only(values: &Value) -> Option<&Value> {
    values.as_array().filter(|values| values.len() == 1)?.first()
}

/// What a choice chooses from.
fn variants<'a>(root: &'a Value, body: &'a Value) -> Vec<&'a Value> {
    if body.get("properties").is_some() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for part in choices(body) {
        // A variant may be a choice itself: a type that is written in two ways.
        let inside = resolve(root, part);
        match !is_span(part) && part.get("$ref").is_some() && choices(inside).len() > 1 {
            true => found.extend(choices(inside)),
            false => found.push(if is_span(part) { part } else { inside }),
        }
    }
    if found.len() > 1 { found } else { Vec::new() }
}

/// What is behind references, options, lists and maps; and how a page speaks of each of many.
fn body<'a>(root: &'a Value, field: &'a Value) -> (&'a Value, &'static str) {
    let (mut at, mut each) = (field, "");
    for _ in 0..DEPTH_MAX {
        if is_span(at) {
            break;
        }
        let here = resolve(root, at);
        at = here;
        if here.get("properties").is_some() {
            break;
        }
        let choices = choices(here);
        if let [one] = choices[..] {
            at = one;
        } else if !choices.is_empty() {
            break;
        } else if let Some(items) = here.get("items") {
            (at, each) = (items, " of each");
        } else if let Some(values) = here.get("additionalProperties").filter(|v| v.is_object()) {
            (at, each) = (values, " of each");
        } else {
            break;
        }
    }
    (at, each)
}

/// Whether there is something to tell of what is inside.
fn is_block(root: &Value, body: &Value) -> bool {
    if is_span(body) {
        return false;
    }
    body.get("properties").is_some()
        || variants(root, body)
            .iter()
            .any(|v| v.get("properties").is_some() || v.get("description").is_some())
}

/// A table of fields, but those named in `without`.
pub fn of_fields(root: &Value, at: &Value, without: &[&str]) -> Table {
    let mut table = table();
    for name in names(root, at).iter().filter(|name| !without.contains(&name.as_str())) {
        let Some((field, _)) = find(root, at, name) else { continue };
        let default = match required(at).contains(&name.as_str()) {
            true => "required".to_owned(),
            false => default_of(root, field),
        };
        if table.row_count() == 0 {
            table.set_header(["FIELD", "TYPE", "DEFAULT", ""]);
        }
        table.add_row([name.clone(), type_of(root, field), default, description(root, field)]);
    }
    table
}

/// Which fields of `at` have a page of their own, where any does.
pub fn more(root: &Value, at: &Value, path: &str) -> String {
    let mut steps: Vec<String> = Vec::new();
    let mut add = |under: &str, at: &Value| {
        for name in names(root, at) {
            if find(root, at, &name).is_some_and(|(field, _)| is_block(root, body(root, field).0)) {
                steps.push(joined_under(under, &name));
            }
        }
    };
    match variants(root, at) {
        none if none.is_empty() => add("", at),
        variants => {
            for variant in variants {
                match Variant::of(variant) {
                    // Its fields are on the page already.
                    Variant::Named(name) => {
                        let inner =
                            find(root, variant, &name).map_or(variant, |(field, _)| body(root, field).0);
                        match inner.get("properties") {
                            Some(_) => add(&name, inner),
                            None => add("", variant),
                        }
                    }
                    _ => add("", body(root, variant).0),
                }
            }
        }
    }
    if steps.is_empty() {
        return String::new();
    }
    let mut out = format!("\n`tidemill components {path}.NAME` documents more of these:");
    let mut room = 0;
    for (i, step) in steps.iter().enumerate() {
        let text = if i + 1 < steps.len() { format!("{step},") } else { step.clone() };
        if text.len() + 1 > room {
            out.push('\n');
            room = usize::from(WIDTH);
        }
        out.push(' ');
        out.push_str(&text);
        room = room.saturating_sub(text.len() + 1);
    }
    out + "\n"
}

fn joined_under(under: &str, name: &str) -> String {
    if under.is_empty() { name.to_owned() } else { format!("{under}.{name}") }
}

/// Every setting, with its path.
fn all(root: &Value) -> Vec<(String, Block<'_>)> {
    fn walk<'a>(at: Block<'a>, path: &str, depth: usize, found: &mut Vec<(String, Block<'a>)>) {
        let (body, _) = body(at.root, at.field);
        if depth >= DEPTH_MAX {
            return;
        }
        for name in names(at.root, body) {
            let Some(next) = at.step(&name) else { continue };
            let path = joined_under(path, &name);
            found.push((path.clone(), next));
            walk(next, &path, depth + 1, found);
        }
    }
    let mut found = Vec::new();
    walk(Block::whole(root), "", 0, &mut found);
    found
}

#[cfg(test)]
mod tests;
