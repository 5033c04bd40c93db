//! What is wrong with a graph: a list of problems, each with its place, a reason and a hint.

use std::fmt;

/// One thing wrong with a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// YAML path, such as `operators.bars.with.every`; while a component reports it, the path
    /// within its own `with:` block (`every`, `by[1]`), which the planner makes whole.
    pub path: String,
    /// What is wrong: lowercase, no full stop.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether it is the name at `path` that is wrong, not the value.
    pub at_key: bool,
}

impl Problem {
    /// A problem at `path`.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into(), hint: None, at_key: false }
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that it is the name at the path that is wrong, not the value: the name is pointed at.
    pub fn at_key(mut self) -> Self {
        self.at_key = true;
        self
    }

    /// Adds a hint naming the nearest of `names`, or all of them where none is near.
    pub fn hint_names<'a>(self, got: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        match nearest(got, &names) {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None if names.is_empty() => self,
            None => self.hint(format!("one of: {}", names.join(", "))),
        }
    }

    /// The same problem with its path put under `prefix`.
    pub fn under(mut self, prefix: &str) -> Self {
        self.path = match (prefix.is_empty(), self.path.is_empty()) {
            (true, _) => self.path,
            (false, true) => prefix.to_owned(),
            (false, false) if self.path.starts_with('[') => format!("{prefix}{}", self.path),
            (false, false) => format!("{prefix}.{}", self.path),
        };
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// The name nearest to `got`, if one is near enough to be meant.
pub fn nearest<'a>(got: &str, names: &[&'a str]) -> Option<&'a str> {
    names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(got, name), *name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= 1 + (name.len().max(got.len()).max(1) - 1) / 4)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_gets_the_nearest_name_and_a_stranger_gets_them_all() {
        let hint = |got| Problem::new("kind", "?").hint_names(got, ["kafka", "parquet"]).hint;
        assert_eq!(hint("kafak").as_deref(), Some("did you mean `kafka`?"));
        assert_eq!(hint("zzz").as_deref(), Some("one of: kafka, parquet"));
    }

    #[test]
    fn paths_nest() {
        assert_eq!(Problem::new("by[1]", "x").under("operators.a.with").path, "operators.a.with.by[1]");
        assert_eq!(Problem::new("", "x").under("operators.a").path, "operators.a");
        assert_eq!(Problem::new("[0]", "x").under("tests").path, "tests[0]");
    }
}
