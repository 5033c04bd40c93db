//! Tables of a report.

use std::fmt::Write;

use super::text::escape;

/// A table under construction.
#[derive(Debug)]
pub struct Table {
    html: String,
    left: Vec<bool>,
}

impl Table {
    /// A table with these heads; those that begin with `<` are aligned to the left.
    pub fn new(heads: &[&str]) -> Self {
        let left: Vec<bool> = heads.iter().map(|h| h.starts_with('<')).collect();
        let mut html = String::from("<div class=\"scroll\"><table><thead><tr>");
        for head in heads {
            let class = if head.starts_with('<') { " class=\"l\"" } else { "" };
            let _ = write!(html, "<th{class}>{}</th>", escape(head.trim_start_matches('<')));
        }
        html.push_str("</tr></thead><tbody>");
        Self { html, left }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[Cell]) {
        self.html.push_str("<tr>");
        for (i, cell) in cells.iter().enumerate() {
            let mut classes = Vec::new();
            if self.left.get(i) == Some(&true) {
                classes.push("l");
            }
            classes.extend(cell.class);
            let class =
                if classes.is_empty() { String::new() } else { format!(" class=\"{}\"", classes.join(" ")) };
            let _ = write!(self.html, "<td{class}>{}</td>", escape(&cell.text));
        }
        self.html.push_str("</tr>");
    }

    /// The whole table.
    pub fn html(mut self) -> String {
        self.html.push_str("</tbody></table></div>");
        self.html
    }
}

/// A cell: its text, and how it looks.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    class: Option<&'static str>,
}

impl Cell {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), class: None }
    }

    /// Text that may break into lines.
    pub fn wrapped(text: impl Into<String>) -> Self {
        Self { text: text.into(), class: Some("wrap") }
    }

    /// Text in the colour of a gain or a loss.
    pub fn signed(value: f64, text: String) -> Self {
        let class = if value > 0.0 {
            Some("pos")
        } else if value < 0.0 {
            Some("neg")
        } else {
            None
        };
        Self { text, class }
    }
}

/// A table whose cells are coloured by value: red below zero, green above (or by rank in the range, without a zero).
pub struct Heat<'a> {
    /// What the rows' names are.
    pub corner: &'a str,
    /// Names of columns.
    pub columns: Vec<String>,
    /// Rows: name and values.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
    /// How a value is shown.
    pub format: fn(f64) -> String,
}

/// Columns from which on values stand in hover texts only, and not every column's name is shown: there is no room for more.
const COLUMNS_SHOWN: usize = 16;

impl Heat<'_> {
    /// The table.
    pub fn html(&self) -> String {
        let values =
            || self.rows.iter().flat_map(|r| r.1.iter().flatten().copied()).filter(|v| v.is_finite());
        let most = values().fold(0.0f64, |most, v| most.max(v.abs()));
        let every = self.columns.len().div_ceil(COLUMNS_SHOWN).max(1);
        let class = if every > 1 { "heat thin" } else { "heat" };
        let mut out = format!(
            "<div class=\"scroll\"><table class=\"{class}\"><thead><tr><th class=\"l\">{}</th>",
            escape(self.corner)
        );
        for (i, name) in self.columns.iter().enumerate() {
            let _ = write!(out, "<th>{}</th>", if i % every == 0 { escape(name) } else { String::new() });
        }
        out.push_str("</tr></thead><tbody>");
        for (name, row) in &self.rows {
            let _ = write!(out, "<tr><th class=\"l\">{}</th>", escape(name));
            for (i, value) in row.iter().enumerate() {
                let Some(value) = value.filter(|v| v.is_finite()) else {
                    out.push_str("<td></td>");
                    continue;
                };
                let strength = if most > 0.0 { 0.08 + 0.72 * (value.abs() / most).sqrt() } else { 0.0 };
                let colour = if value < 0.0 { "196,61,51" } else { "18,128,92" };
                let text = (self.format)(value);
                let column = self.columns.get(i).map_or("", String::as_str);
                let _ = write!(
                    out,
                    "<td style=\"background:rgba({colour},{strength:.2})\" title=\"{}, {}: {}\">{}</td>",
                    escape(name),
                    escape(column),
                    escape(&text),
                    if every > 1 { String::new() } else { escape(&text) }
                );
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div>");
        out
    }
}
