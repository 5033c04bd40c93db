//! Variables, environment and secrets in a graph's values.
//!
//! - `$name` and `${name}`: a variable of the graph. Alone in a value, it keeps the variable's type.
//! - `${NAME}` and `${NAME:-default}`: the environment (the default where it is unset or empty).
//! - `$$`: a dollar sign. A `$` before anything but a letter, `_` or `{` is one too.
//! - `file:PATH`: the trimmed content of a file; only in fields whose name says that they hold a
//!   secret (password, secret, token, key) and anywhere inside `options:`.
//!
//! Every value is kept twice: resolved, for the component, and as written, for whatever is
//! printed or stored: there, what came from the environment or a file stays a reference.

use std::path::Path;

use serde_json::{Map, Value};

use crate::problem::{Problem, nearest};

/// A value for the component and a value for the eye.
#[derive(Clone, Debug, Default)]
pub(super) struct Expanded {
    pub resolved: Value,
    pub written: Value,
    /// It holds something that could not be resolved.
    pub poisoned: bool,
}

/// What names mean.
pub(super) struct Scope<'a> {
    pub vars: Vec<(String, Expanded)>,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub base: &'a Path,
}

/// What an expansion finds.
#[derive(Default)]
pub(super) struct Findings {
    pub problems: Vec<Problem>,
    /// Paths of values that could not be resolved.
    pub poisoned: Vec<String>,
}

/// What is known of the place of a value.
#[derive(Clone, Copy, Default)]
pub(super) struct At {
    /// Its field's name says that it is a secret.
    pub secret: bool,
    /// It belongs to an operator, which does no IO: what comes from the environment there is a
    /// setting, decides what is in the state, and so must be seen by whoever compares two graphs.
    pub open: bool,
}

impl At {
    fn field(self, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let secret = ["password", "secret", "token", "key", "options"].iter().any(|word| name.contains(word));
        Self { secret: self.secret || secret, ..self }
    }
}

impl Scope<'_> {
    /// Resolves every text in `value`, which stands at `path`.
    pub fn expand(&self, value: &Value, path: &str, at: At, findings: &mut Findings) -> Expanded {
        match value {
            Value::String(text) => {
                let mut expanded = self.text(text, path, findings);
                if at.secret && !expanded.poisoned {
                    self.read_file(&mut expanded, path, findings);
                }
                if expanded.poisoned {
                    findings.poisoned.push(path.to_owned());
                } else if at.open && !at.secret {
                    expanded.written = expanded.resolved.clone();
                }
                expanded
            }
            Value::Array(items) => {
                let mut all = (Vec::new(), Vec::new(), false);
                for (i, item) in items.iter().enumerate() {
                    let item = self.expand(item, &format!("{path}[{i}]"), at, findings);
                    all.0.push(item.resolved);
                    all.1.push(item.written);
                    all.2 |= item.poisoned;
                }
                Expanded { resolved: all.0.into(), written: all.1.into(), poisoned: all.2 }
            }
            Value::Object(fields) => {
                let mut all = (Map::new(), Map::new(), false);
                for (name, field) in fields {
                    let field = self.expand(field, &format!("{path}.{name}"), at.field(name), findings);
                    all.0.insert(name.clone(), field.resolved);
                    all.1.insert(name.clone(), field.written);
                    all.2 |= field.poisoned;
                }
                Expanded { resolved: all.0.into(), written: all.1.into(), poisoned: all.2 }
            }
            other => Expanded { resolved: other.clone(), written: other.clone(), poisoned: false },
        }
    }

    fn text(&self, text: &str, path: &str, findings: &mut Findings) -> Expanded {
        let (mut resolved, mut written, mut poisoned) = (String::new(), String::new(), false);
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            resolved.push_str(&rest[..dollar]);
            written.push_str(&rest[..dollar]);
            let after = &rest[dollar + 1..];
            let (reference, tail) = match after.chars().next() {
                Some('{') => match after.find('}') {
                    Some(end) => (&after[1..end], &after[end + 1..]),
                    None => {
                        let problem =
                            Problem::new(path, "`${` is not closed").hint("write `$$` for a dollar sign");
                        findings.problems.push(problem);
                        poisoned = true;
                        ("", "")
                    }
                },
                Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                    let end =
                        after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                    (&after[..end], &after[end..])
                }
                next => {
                    resolved.push('$');
                    written.push('$');
                    rest = if next == Some('$') { &after[1..] } else { after };
                    continue;
                }
            };
            let braced = after.starts_with('{');
            let whole = dollar == 0 && rest.len() == text.len() && tail.is_empty();
            rest = tail;
            if reference.is_empty() && poisoned {
                break;
            }
            match self.look_up(reference, braced) {
                Ok(value) if whole => return value,
                Ok(value) => match (plain_text(&value.resolved), plain_text(&value.written)) {
                    (Some(r), Some(w)) => {
                        resolved.push_str(&r);
                        written.push_str(&w);
                        poisoned |= value.poisoned;
                    }
                    _ => {
                        let problem = Problem::new(path, format!("`${reference}` is not a single value"))
                            .hint("a list or fields can only be a whole value, not part of a text");
                        findings.problems.push(problem);
                        poisoned = true;
                    }
                },
                Err(problem) => {
                    findings.problems.push(problem.under(path));
                    poisoned = true;
                }
            }
        }
        resolved.push_str(rest);
        written.push_str(rest);
        Expanded { resolved: resolved.into(), written: written.into(), poisoned }
    }

    fn look_up(&self, reference: &str, braced: bool) -> Result<Expanded, Problem> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if let Some((_, value)) = self.vars.iter().find(|(n, _)| n == name) {
            return Ok(value.clone());
        }
        let written: Value = format!("${{{reference}}}").into();
        if braced {
            let value = (self.env)(name).filter(|v| default.is_none() || !v.is_empty());
            if let Some(value) = value.or_else(|| default.map(str::to_owned)) {
                return Ok(Expanded { resolved: value.into(), written, poisoned: false });
            }
        }
        let vars: Vec<&str> = self.vars.iter().map(|(name, _)| name.as_str()).collect();
        let near = nearest(name, &vars);
        Err(match near {
            Some(near) => Problem::new("", format!("unknown variable `{name}`")).hint(format!("did you mean `${near}`?")),
            None if braced => Problem::new("", format!("environment variable `{name}` is not set"))
                .hint(format!("set it, or write a default: `${{{name}:-value}}`")),
            None => Problem::new("", format!("unknown variable `{name}`")).hint(format!(
                "declare it under `vars:`, write `${{{name}}}` for an environment variable, or `$$` for a dollar sign"
            )),
        })
    }

    fn read_file(&self, expanded: &mut Expanded, path: &str, findings: &mut Findings) {
        let Some(file) = expanded.resolved.as_str().and_then(|text| text.strip_prefix("file:")) else {
            return;
        };
        let file = self.base.join(file.strip_prefix("//").unwrap_or(file));
        match std::fs::read_to_string(&file) {
            Ok(content) => expanded.resolved = content.trim().into(),
            Err(error) => {
                let problem =
                    Problem::new(path, format!("cannot read the secret from {}: {error}", file.display()));
                findings.problems.push(problem.hint("`file:PATH` is replaced by what the file holds"));
                expanded.poisoned = true;
            }
        }
    }
}

fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Pairs of a secret and its reference in one value: what must not be seen in a message.
pub(crate) fn secrets(resolved: &Value, written: &Value, found: &mut Vec<(String, String)>) {
    match (resolved, written) {
        (Value::String(r), Value::String(w)) if r != w && !r.is_empty() => found.push((r.clone(), w.clone())),
        (Value::Array(r), Value::Array(w)) => r.iter().zip(w).for_each(|(r, w)| secrets(r, w, found)),
        (Value::Object(r), Value::Object(w)) => {
            r.values().zip(w.values()).for_each(|(r, w)| secrets(r, w, found))
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope<'a>(base: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Scope<'a> {
        let var = |name: &str, r: Value, w: Value| {
            (name.to_owned(), Expanded { resolved: r, written: w, poisoned: false })
        };
        let vars = vec![
            var("n", json!(14), json!(14)),
            var("by", json!(["a"]), json!(["a"])),
            var("archive", json!("/data"), json!("${ARCHIVE}")),
        ];
        Scope { vars, env, base }
    }

    fn env(name: &str) -> Option<String> {
        match name {
            "USER_NAME" => Some("ada".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_and_stay_references_to_the_eye() {
        let scope = scope(Path::new("."), &env);
        let check = |text: &str, resolved: Value, written: Value| {
            let mut findings = Findings::default();
            let got = scope.expand(&json!(text), "p", At::default(), &mut findings);
            assert!(findings.problems.is_empty(), "{text}: {:?}", findings.problems);
            assert_eq!((got.resolved, got.written), (resolved, written), "{text}");
        };
        check("$n", json!(14), json!(14));
        check("${n}", json!(14), json!(14));
        check("$by", json!(["a"]), json!(["a"]));
        check("rsi_$n", json!("rsi_14"), json!("rsi_14"));
        check("$archive/bars", json!("/data/bars"), json!("${ARCHIVE}/bars"));
        check("${USER_NAME}", json!("ada"), json!("${USER_NAME}"));
        check("${EMPTY:-x}${NONE:-y}", json!("xy"), json!("${EMPTY:-x}${NONE:-y}"));
        check("${NONE:-}", json!(""), json!("${NONE:-}"));
        check("$$n costs $5, ^a$", json!("$n costs $5, ^a$"), json!("$n costs $5, ^a$"));
        check("é$n€", json!("é14€"), json!("é14€"));
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        let scope = scope(Path::new("."), &env);
        let check = |text: &str, message: &str| {
            let mut findings = Findings::default();
            assert!(scope.expand(&json!(text), "p", At::default(), &mut findings).poisoned);
            assert_eq!(findings.problems[0].to_string(), message);
        };
        check("$archve/x", "p: unknown variable `archve` (did you mean `$archive`?)");
        check(
            "${NOPE_NOPE}",
            "p: environment variable `NOPE_NOPE` is not set (set it, or write a default: `${NOPE_NOPE:-value}`)",
        );
        check("x${n", "p: `${` is not closed (write `$$` for a dollar sign)");
        check(
            "x$by",
            "p: `$by` is not a single value (a list or fields can only be a whole value, not part of a text)",
        );
    }

    #[test]
    fn secrets_come_from_files_only_where_a_secret_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pw"), "hunter2\n").unwrap();
        let scope = scope(folder.path(), &env);
        let mut findings = Findings::default();
        let value = json!({"sasl_password": "file:pw", "url": "file:pw", "options": {"ssl.ca": "file:pw"}, "token": "file:no"});
        let got = scope.expand(&value, "with", At::default(), &mut findings);
        assert_eq!(got.resolved["sasl_password"], "hunter2");
        assert_eq!(got.resolved["url"], "file:pw");
        assert_eq!(got.resolved["options"]["ssl.ca"], "hunter2");
        assert!(!got.written.to_string().contains("hunter2"));
        assert_eq!(findings.poisoned, ["with.token"]);
        let mut found = Vec::new();
        secrets(&got.resolved, &got.written, &mut found);
        assert!(found.contains(&("hunter2".into(), "file:pw".into())));
    }

    #[test]
    fn an_operators_settings_show_their_values() {
        let scope = scope(Path::new("."), &env);
        let at = At { open: true, ..At::default() };
        let got = scope.expand(
            &json!({"every": "${NONE:-1m}", "token": "${USER_NAME}"}),
            "with",
            at,
            &mut Findings::default(),
        );
        assert_eq!(got.written, json!({"every": "1m", "token": "${USER_NAME}"}));
    }
}
