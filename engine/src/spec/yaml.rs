//! YAML text to JSON values, remembering where each value stands.
//!
//! Built on saphyr's event stream rather than its tree, because a graph must refuse what a tree
//! hides: keys written twice, and aliases that unfold without bound.

use std::collections::BTreeMap;

use saphyr::{Scalar, ScanError};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use serde_json::{Map, Value};

use super::errors::Placed;
use crate::problem::Problem;

/// Values a file may hold, aliases unfolded.
const VALUES_MAX: usize = 1_000_000;
/// Levels a value may be nested.
const DEPTH_MAX: usize = 64;

/// A place in a file: line and column, both from 1.
pub type Place = (usize, usize);

#[derive(Clone, Copy, Debug)]
struct Mark {
    key: Option<Place>,
    value: Place,
    scalar: bool,
}

/// Where each YAML path stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(BTreeMap<String, Mark>);

impl Marks {
    /// The place of `path`, else of the nearest path around it. Points at the key where `at_key`
    /// says so, where the value is more than a scalar, and where `path` itself is not written.
    pub fn locate(&self, path: &str, at_key: bool) -> Option<Place> {
        let mut at = path;
        loop {
            if let Some(mark) = self.0.get(at) {
                let to_key = at_key || !mark.scalar || at != path;
                return Some(if to_key { mark.key.unwrap_or(mark.value) } else { mark.value });
            }
            if at.is_empty() {
                return None;
            }
            at = &at[..at.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

/// A parsed file.
#[derive(Debug)]
pub(super) struct Document {
    pub value: Value,
    pub marks: Marks,
    /// What is wrong but does not keep the rest from being read.
    pub problems: Vec<Placed>,
}

/// Reads one YAML document.
pub(super) fn parse(text: &str) -> Result<Document, Placed> {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        marks: Marks::default(),
        problems: Vec::new(),
        anchors: BTreeMap::new(),
        values: 0,
    };
    let mut value = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) | Event::Alias(_) => {
                if value.is_some() {
                    let problem = Problem::new("", "a second YAML document begins here")
                        .hint("a file holds one graph: put the other into a file of its own");
                    return Err(Placed::new(problem, place(&span.start)));
                }
                value = Some(reader.value(event, span, "", None, 0)?);
            }
            _ => {}
        }
    }
    let value = value.unwrap_or(Value::Null);
    Ok(Document { value, marks: reader.marks, problems: reader.problems })
}

/// The value of text as an unquoted YAML scalar.
pub(crate) fn scalar(text: &str) -> Value {
    json(Scalar::parse_from_cow(text.into()))
}

fn json(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(b) => b.into(),
        Scalar::Integer(i) => i.into(),
        // JSON has no NaN and no infinity: they stay words.
        Scalar::FloatingPoint(f) if f.is_nan() => "NaN".into(),
        Scalar::FloatingPoint(f) if f.is_infinite() => if *f > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Scalar::FloatingPoint(f) => f.into_inner().into(),
        Scalar::String(s) => s.into_owned().into(),
    }
}

fn place(marker: &Marker) -> Place {
    (marker.line(), marker.col() + 1)
}

struct Reader<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    marks: Marks,
    problems: Vec<Placed>,
    anchors: BTreeMap<usize, (Value, usize)>,
    values: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Placed> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(plain(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn value(
        &mut self,
        event: Event<'a>,
        span: Span,
        path: &str,
        key: Option<Place>,
        depth: usize,
    ) -> Result<Value, Placed> {
        let start = place(&span.start);
        let before = self.values;
        self.values += 1;
        if let Event::Alias(id) = event {
            self.values += self.anchors.get(&id).map_or(0, |(_, size)| *size);
        }
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            let problem = if depth > DEPTH_MAX {
                Problem::new(path, format!("nested more than {DEPTH_MAX} levels deep"))
            } else {
                Problem::new(path, format!("the file unfolds to more than {VALUES_MAX} values"))
                    .hint("look for an alias (`*name`) that repeats other aliases")
            };
            return Err(Placed::new(problem, start));
        }
        let scalar = matches!(event, Event::Scalar(..) | Event::Alias(_));
        self.marks.0.insert(path.to_owned(), Mark { key, value: start, scalar });
        let (value, anchor) = match event {
            Event::Alias(id) => (self.anchors.get(&id).map_or(Value::Null, |(v, _)| v.clone()), 0),
            Event::Scalar(text, style, anchor, tag) => {
                let plain_style = style == ScalarStyle::Plain;
                let scalar = if plain_style && text.is_empty() {
                    Some(Scalar::Null)
                } else {
                    Scalar::parse_from_cow_and_metadata(text.clone(), style, tag.as_ref())
                };
                let value = scalar.map(json).unwrap_or_else(|| {
                    let problem = Problem::new(path, format!("`{text}` does not fit its tag"));
                    self.problems.push(Placed::new(problem, start));
                    Value::Null
                });
                (value, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(path, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(path, depth)?, anchor),
            _ => (Value::Null, 0),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), self.values - before));
        }
        Ok(value)
    }

    fn sequence(&mut self, path: &str, depth: usize) -> Result<Value, Placed> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd | Event::StreamEnd) {
                return Ok(Value::Array(items));
            }
            let at = format!("{path}[{}]", items.len());
            items.push(self.value(event, span, &at, None, depth + 1)?);
        }
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Result<Value, Placed> {
        let mut fields = Map::new();
        loop {
            let (event, span) = self.next()?;
            let key_place = place(&span.start);
            let name = match event {
                Event::MappingEnd | Event::StreamEnd => return Ok(Value::Object(fields)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => {
                    let problem = Problem::new(path, "a key must be plain text, not a list or fields")
                        .hint("text that begins with `{` or `[` needs quotes");
                    return Err(Placed::new(problem, key_place));
                }
            };
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let (event, span) = self.next()?;
            if fields.contains_key(&name) {
                let first = self.marks.0.get(&at).and_then(|m| m.key).map_or(0, |(line, _)| line);
                let problem =
                    Problem::new(&at, format!("`{name}` is written twice; the first is on line {first}"))
                        .hint("rename or remove one of them");
                self.problems.push(Placed::new(problem, key_place));
                // Read on under a path that cannot be written, so that its places don't replace the first's.
                self.value(event, span, &format!("\u{0}{at}"), Some(key_place), depth + 1)?;
                continue;
            }
            let value = self.value(event, span, &at, Some(key_place), depth + 1)?;
            fields.insert(name, value);
        }
    }
}

/// The parser's error in plain words.
fn plain(error: &ScanError) -> Placed {
    let info = error.info();
    let quote =
        "text that holds `: ` or ` #`, or begins with one of `[{}]*&!|>%@` or a backquote, needs quotes";
    let colon = "text that holds `: ` needs quotes; or this line is indented more than its neighbours";
    let (reason, hint) = if info.contains("tab") {
        ("a tab is used as indentation".to_owned(), "YAML is indented by spaces")
    } else if info.contains("did not find expected key")
        || info.contains("indentation") && !info.contains("flow")
    {
        (
            "this line does not fit the lines above it".to_owned(),
            "fields of one level start in the same column",
        )
    } else if info.contains("mapping values are not allowed") || info.contains("illegal placement of ':'") {
        ("a `:` is not allowed here".to_owned(), colon)
    } else if info.contains("flow mapping") || info.contains("expected ',' or '}'") {
        ("expected `,` or `}`".to_owned(), "a `{` before this place is not closed, or a comma is missing")
    } else if info.contains("flow sequence") || info.contains("expected ',' or ']'") {
        ("expected `,` or `]`".to_owned(), "a `[` before this place is not closed, or a comma is missing")
    } else if info.contains("end of stream") || info.contains("unexpected eof") {
        ("the file ends too early".to_owned(), "a quote or bracket is not closed")
    } else if info.contains("simple key") {
        (
            "expected `key: value`".to_owned(),
            "a `:` with a space after it is missing, or a quote or bracket is not closed",
        )
    } else if info.contains("unknown anchor") {
        ("this alias has no anchor".to_owned(), "`*name` repeats a value marked `&name` above it")
    } else {
        (format!("YAML syntax: {}", info.to_lowercase()), quote)
    };
    Placed::new(Problem::new("", reason).hint(hint), place(error.marker()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_types_and_places() {
        let text = "a: 1\nb:\n  c: [x, 2.5, \"3\", ~, true]\n  d: {e: f}\n";
        let document = parse(text).unwrap();
        assert_eq!(document.value, json!({"a": 1, "b": {"c": ["x", 2.5, "3", null, true], "d": {"e": "f"}}}));
        let at = |path| document.marks.locate(path, false);
        assert_eq!(at("a"), Some((1, 4)));
        assert_eq!(document.marks.locate("a", true), Some((1, 1)));
        assert_eq!(at("b.c[1]"), Some((3, 10)));
        assert_eq!(at("b.d.e"), Some((4, 10)));
        assert_eq!(at("b.d"), Some((4, 3)), "of more than a scalar, the key");
        assert_eq!(at("b.d.missing"), Some((4, 3)), "of what is not there, the key of what is around it");
    }

    #[test]
    fn twice_written_keys_are_found_and_reading_goes_on() {
        let document = parse("a: 1\nb: 2\na: {b: 3}\n").unwrap();
        assert_eq!(document.value, json!({"a": 1, "b": 2}));
        let [twice] = document.problems.as_slice() else { panic!("{:?}", document.problems) };
        assert_eq!((twice.line, twice.column), (3, 1));
        assert_eq!(twice.problem.reason, "`a` is written twice; the first is on line 1");
    }

    #[test]
    fn aliases_unfold_within_bounds() {
        assert_eq!(parse("a: &x [1]\nb: *x\n").unwrap().value, json!({"a": [1], "b": [1]}));
        let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for i in 1..9 {
            let prev = format!("*a{},", i - 1).repeat(10);
            bomb += &format!("a{i}: &a{i} [{}]\n", prev.trim_end_matches(','));
        }
        assert!(parse(&bomb).unwrap_err().problem.reason.contains("unfolds"));
        assert!(parse(&"[".repeat(200)).is_err());
    }

    #[test]
    fn syntax_errors_are_placed_and_plain() {
        let error = |text| {
            let e = parse(text).unwrap_err();
            (e.line, e.problem.reason)
        };
        assert_eq!(error("a:\n\tb: 1\n"), (2, "a tab is used as indentation".into()));
        assert_eq!(error("a: {b: 1\nc: 2\n").1, "expected `,` or `}`");
        assert_eq!(error("a: b: c\n"), (1, "a `:` is not allowed here".into()));
        assert_eq!(error("a: 1\n---\nb: 2\n"), (3, "a second YAML document begins here".into()));
    }
}
