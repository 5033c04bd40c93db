//! Reading messages: one line of what is wrong with one that can't be read.

use std::fmt;

use serde::Deserialize;

/// Reads a message, or a part of one.
///
/// # Errors
/// The first line of what the parser has to say: lowercase, with the place.
pub fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    sonic_rs::from_slice(bytes).map_err(|e| first_line(&e))
}

/// A parser's message without its picture of the text.
pub fn first_line(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let mut line = text.lines().next().unwrap_or_default().trim_end_matches(['.', ' ']).to_owned();
    if let Some(first) = line.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    line
}
