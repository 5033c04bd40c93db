//! Paths into JSON messages: names and list positions joined by dots.

use serde_json::Value;

/// Where a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Path {
    /// From the row.
    Row(Vec<Box<str>>),
    /// From the message (`$.`).
    Message(Vec<Box<str>>),
    /// The time of receipt (`$(received)`).
    Received,
}

impl Path {
    pub fn parse(text: &str) -> Result<Self, String> {
        let split = |text: &str| -> Result<Vec<Box<str>>, String> {
            let parts: Vec<Box<str>> = text.split('.').map(Into::into).collect();
            match parts.iter().any(|p| p.is_empty()) {
                true => Err(format!("`{text}` is no path: write names joined by dots, such as data.0.price")),
                false => Ok(parts),
            }
        };
        match text {
            "$(received)" => Ok(Self::Received),
            "$" => Ok(Self::Message(Vec::new())),
            _ => match text.strip_prefix("$.") {
                Some(rest) => Ok(Self::Message(split(rest)?)),
                None => Ok(Self::Row(split(text)?)),
            },
        }
    }

    /// The value it leads to, if there is one.
    pub fn find<'a>(&self, message: &'a Value, row: &'a Value) -> Option<&'a Value> {
        let (start, parts) = match self {
            Self::Row(parts) => (row, parts),
            Self::Message(parts) => (message, parts),
            Self::Received => return None,
        };
        parts.iter().try_fold(start, |at, part| match at {
            Value::Object(fields) => fields.get(&**part),
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Whether it can be followed before the rows of a message are known.
    pub fn is_of_message(&self) -> bool {
        matches!(self, Self::Message(_))
    }
}
