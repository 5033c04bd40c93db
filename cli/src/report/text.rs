//! Numbers and times as people read them, and text as HTML holds it.

use chrono::DateTime;

/// What stands where there is no number.
pub const NONE: &str = "–";

/// Text with nothing in it that HTML would take for its own.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Other control characters are not allowed in a document.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// `1,234,567.89`.
pub fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return NONE.into();
    }
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    // No minus before a zero.
    if value < 0.0 && text.bytes().any(|b| (b'1'..=b'9').contains(&b)) { format!("-{out}") } else { out }
}

/// A fraction as `12.34%`.
pub fn percent(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{}%", number(value * 100.0, decimals)) } else { NONE.into() }
}

/// `2013-10-07 14:30:05`.
pub fn time(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// `2013-10-07 14:30`.
pub fn minute(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).format("%Y-%m-%d %H:%M").to_string()
}

/// `3d 4h`, `2h 5m`, `12s`: two units at most.
pub fn span(ns: i64) -> String {
    const UNITS: [(&str, i64); 4] =
        [("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000)];
    let mut left = ns.max(0);
    let mut parts = Vec::new();
    for (unit, size) in UNITS {
        if left >= size || (unit == "s" && parts.is_empty()) {
            parts.push(format!("{}{unit}", left / size));
            left %= size;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

/// A number for an attribute of an SVG: one decimal is a tenth of a pixel.
pub fn pixel(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_times_and_spans() {
        assert_eq!(number(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(number(-999.6, 0), "-1,000");
        assert_eq!(number(-0.001, 2), "0.00");
        assert_eq!(number(f64::NAN, 2), "–");
        assert_eq!(percent(-0.12345, 2), "-12.35%");
        assert_eq!(span(90_061_000_000_000), "1d 1h");
        assert_eq!(span(3_605_000_000_000), "1h");
        assert_eq!(span(59_000_000_000), "59s");
        assert_eq!(span(0), "0s");
        assert_eq!(time(1_381_156_205_000_000_000), "2013-10-07 14:30:05");
    }

    #[test]
    fn nothing_breaks_out_of_a_document() {
        assert_eq!(escape("<b a='\"'>&\u{1}"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;\u{fffd}");
    }
}
