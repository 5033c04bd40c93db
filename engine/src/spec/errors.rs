//! Problems with their places in a file, and how they are shown.

use std::fmt;
use std::sync::Arc;

use super::yaml::Place;
use crate::problem::Problem;

/// A problem and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What is wrong.
    pub problem: Problem,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
}

impl Placed {
    pub(super) fn new(problem: Problem, (line, column): Place) -> Self {
        Self { problem, line, column }
    }
}

/// Everything that is wrong with one file.
#[derive(Clone, Debug)]
pub struct SpecErrors {
    /// The file, as it was named.
    pub file: String,
    /// The problems.
    pub problems: Vec<Placed>,
    pub(super) text: Arc<str>,
}

impl std::error::Error for SpecErrors {}

/// Longest piece of a line that is shown.
const EXCERPT_MAX: usize = 120;

impl SpecErrors {
    pub(super) fn new(file: &str, text: Arc<str>, problems: Vec<Placed>) -> Self {
        let mut errors = Self { file: file.to_owned(), problems, text };
        errors.sort();
        errors
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds what is wrong besides.
    pub fn extend(&mut self, more: SpecErrors) {
        self.problems.extend(more.problems);
        self.sort();
    }

    fn sort(&mut self) {
        self.problems
            .sort_by(|a, b| (a.line, a.column, &a.problem.path).cmp(&(b.line, b.column, &b.problem.path)));
        self.problems.dedup();
    }

    /// The text for a terminal: each problem with its place, the line it is on and its hint.
    pub fn render(&self, colours: bool) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out, colours);
        out
    }

    fn write(&self, out: &mut impl fmt::Write, colours: bool) -> fmt::Result {
        let (bold, red, dim, end) =
            if colours { ("\x1b[1m", "\x1b[31m", "\x1b[2m", "\x1b[0m") } else { ("", "", "", "") };
        for (i, Placed { problem, line, column }) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
            writeln!(out, "{bold}{}:{line}:{column}: {path}{end}{}", self.file, problem.reason)?;
            if let Some((text, offset)) = self.excerpt(*line, *column) {
                let number = line.to_string();
                let gap = " ".repeat(number.len());
                writeln!(out, "{dim}  {number} |{end} {text}")?;
                writeln!(out, "{dim}  {gap} |{end} {}{red}^{end}", " ".repeat(offset))?;
            }
            if let Some(hint) = &problem.hint {
                writeln!(out, "  hint: {hint}")?;
            }
        }
        Ok(())
    }

    /// A line, or the part of a long one around `column`, and where in it the column is.
    fn excerpt(&self, line: usize, column: usize) -> Option<(String, usize)> {
        let chars: Vec<char> = self.text.lines().nth(line.checked_sub(1)?)?.trim_end().chars().collect();
        let at = column.saturating_sub(1).min(chars.len());
        let start = if chars.len() <= EXCERPT_MAX { 0 } else { at.saturating_sub(EXCERPT_MAX / 2) };
        let end = chars.len().min(start + EXCERPT_MAX);
        let mut shown: String = if start > 0 { "… ".into() } else { String::new() };
        let offset = shown.chars().count() + at - start;
        // A caret lines up only under characters one column wide.
        shown.extend(chars[start..end].iter().map(|c| if c.is_control() { ' ' } else { *c }));
        if end < chars.len() {
            shown.push_str(" …");
        }
        Some((shown, offset))
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text, false)?;
        f.write_str(text.trim_end())
    }
}
