//! The list of kinds, and a kind's manual page, from doc comments and JSON Schemas.

use std::fmt::Write;

use tidemill_engine::registry::{Entry, Role};

use super::block::{more, of_fields};
use super::fields::{prose, table, trim_lines};

/// Every kind with its summary, by role.
pub fn list(entries: &[&Entry]) -> String {
    let mut out = String::new();
    for role in [Role::Source, Role::Operator, Role::Sink] {
        let mut table = table();
        for entry in entries.iter().filter(|entry| entry.role == role) {
            table.add_row([entry.kind.to_owned(), entry.summary()]);
        }
        if table.row_count() > 0 {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{}\n{}\n", role.section(), trim_lines(&table));
        }
    }
    out.push_str("`tidemill components KIND` documents one of them\n");
    out
}

/// A kind's page: what it does, its example, its fields.
pub fn page(entry: &Entry) -> String {
    let schema = (entry.schema)();
    let mut out = format!("{} ({})\n\n{}\n", entry.kind, entry.role.noun(), prose(&entry.doc()));
    let fields = of_fields(&schema, &schema, &[]);
    if fields.row_count() > 0 {
        let _ = write!(out, "\nwith:\n{}\n", trim_lines(&fields));
    }
    if entry.role == Role::Source {
        let options = tidemill_engine::spec::source_options_schema();
        let _ =
            write!(out, "\nwith, as every source:\n{}\n", trim_lines(&of_fields(&options, &options, &[])));
    }
    out.push_str(&more(&schema, &schema, entry.kind));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_page() {
        let registry = crate::registry::registry();
        for entry in registry.iter() {
            let page = page(entry);
            assert!(page.starts_with(entry.kind) && !page.contains("```"), "{page}");
        }
    }

    #[test]
    fn a_page_says_which_settings_have_one() {
        let registry = crate::registry::registry();
        let entry = registry.get(Role::Operator, "execution").unwrap();
        let page = page(entry);
        let more = page.split("`tidemill components execution.NAME`").nth(1).unwrap();
        for name in ["account", "risk", "sizing", "venue", "order", "protect", "instruments", "history"] {
            assert!(more.contains(name), "{name}: {page}");
        }
        assert!(!more.contains("signals") && !more.contains("flat_before"), "{more}");
    }
}
