//! Places in the text of a query.

/// Where in a text: line and column count from 1, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// How many characters it is about.
    pub width: usize,
}

/// The place of a byte.
pub(super) fn line_column(sql: &str, at: usize) -> Place {
    let before = &sql[..at.min(sql.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Place { line, column, width: 1 }
}

/// The byte at a line and column.
pub(super) fn offset(sql: &str, line: usize, column: usize) -> Option<usize> {
    let start: usize = sql.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let rest = sql.get(start..)?;
    let within = rest.char_indices().nth(column.checked_sub(1)?).map_or(rest.len(), |(at, _)| at);
    Some(start + within)
}

/// How many characters the word at that byte has.
pub(super) fn word_at(sql: &str, at: usize) -> usize {
    sql[at..].chars().take_while(|c| is_word(*c)).count().max(1)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Takes ` at Line: 1, Column: 8` off a message.
pub(super) fn cut(text: &str) -> (String, Option<(usize, usize)>) {
    let Some((before, after)) = text.rsplit_once(" at Line: ") else {
        return (text.to_owned(), None);
    };
    let digits = |s: &str| s.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    let line = digits(after);
    let column = after.split_once("Column: ").and_then(|(_, c)| digits(c));
    (before.to_owned(), line.zip(column).filter(|(l, c)| *l > 0 && *c > 0))
}

/// What a message quotes in backticks: names and pieces of the query.
pub(super) fn quoted_in(message: &str) -> Vec<&str> {
    let quoted = message.split('`').skip(1).step_by(2).filter(|n| !n.is_empty());
    quoted.chain(names_in(message)).collect()
}

/// Names that a message quotes.
pub(super) fn names_in(message: &str) -> Vec<&str> {
    let quoted = |q: char| message.split(q).skip(1).step_by(2);
    let names = quoted('`').chain(quoted('\''));
    names.filter(|n| !n.is_empty() && n.chars().all(|c| is_word(c) || c == '.')).collect()
}

/// Where a name stands in a text as a word of its own, outside of quotes and comments.
pub(super) fn find_word(sql: &str, name: &str) -> Option<Place> {
    let lower = sql.to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    let try_find = |name: &str, texts: bool| {
        let mut from = 0;
        while let Some(at) = lower[from..].find(name).map(|at| at + from) {
            let before = lower[..at].chars().next_back();
            let after = lower[at + name.len()..].chars().next();
            let edge = |c: Option<char>| c.is_none_or(|c| !is_word(c));
            // A name within a text is no name, but the text itself may be meant: '1 parsec'.
            let text = before == Some('\'');
            if edge(before)
                && edge(after)
                && text == texts
                && (!text || after == Some('\''))
                && !in_comment(&lower, at)
            {
                return Some(Place { width: name.chars().count(), ..line_column(sql, at) });
            }
            from = at + name.len();
        }
        None
    };
    let last = || name.rsplit_once('.').and_then(|(_, last)| try_find(last, false));
    try_find(&name, false).or_else(last).or_else(|| try_find(&name, true))
}

fn in_comment(sql: &str, at: usize) -> bool {
    let line = &sql[sql[..at].rfind('\n').map_or(0, |n| n + 1)..at];
    line.contains("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_whole_and_outside_of_comments() {
        let sql = "SELECT prices -- price\n, price FROM t";
        assert_eq!(find_word(sql, "price"), Some(Place { line: 2, column: 3, width: 5 }));
        assert_eq!(find_word(sql, "t.price").map(|p| p.line), Some(2));
        assert_eq!(find_word(sql, "nothing"), None);
    }

    #[test]
    fn the_parsers_place_is_cut_off() {
        assert_eq!(cut("Expected: x, found: y at Line: 3, Column: 14").1, Some((3, 14)));
        assert_eq!(cut("no place"), ("no place".to_owned(), None));
        assert_eq!(offset("ab\ncd", 2, 2), Some(4));
    }
}
