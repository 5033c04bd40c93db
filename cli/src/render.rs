//! How things look on a terminal.

use std::io::IsTerminal;

pub mod block;
pub mod component;
pub mod fields;
pub mod plan;

/// Whether a stream should be coloured: it is a terminal, and the user has nothing against it.
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A number of things: `1 sink`, `2 sinks`.
pub fn count(n: usize, noun: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{s}")
}

/// The closing line of a list of problems.
pub fn count_problems(n: usize) -> String {
    count(n, "problem")
}
