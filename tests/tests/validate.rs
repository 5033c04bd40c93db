//! Broken graphs and what is said of them: `broken/NAME.yaml` beside `broken/NAME.txt`. The goldens
//! are rewritten by `UPDATE_EXPECT=1`; read them as a user would before committing them.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::path::PathBuf;

use tidemill_tests::{plan_text, registry, root};

fn graphs() -> Vec<PathBuf> {
    let folder = root().join("tests/broken");
    let mut graphs: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("tests/broken can be listed")
        .map(|entry| entry.expect("tests/broken can be listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    graphs.sort();
    graphs
}

#[tokio::test]
async fn messages_are_the_golden_ones() {
    let registry = registry();
    let graphs = graphs();
    assert!(graphs.len() >= 20);
    for graph in graphs {
        let text = std::fs::read_to_string(&graph).unwrap();
        let name = graph.file_name().unwrap().to_str().unwrap();
        let errors = match plan_text(&text, name, graph.parent().unwrap(), &registry).await {
            Ok(_) => panic!("{name} is not broken"),
            Err(errors) => errors,
        };
        // Paths on this machine are no part of a message's wording.
        let said = errors.render(false).replace(&root().display().to_string(), "ROOT");
        expect_test::expect_file![graph.with_extension("txt")].assert_eq(&said);
    }
}

/// The style of the house: where, what, and no full stop.
#[tokio::test]
async fn every_message_says_where_and_what() {
    let registry = registry();
    for graph in graphs() {
        let text = std::fs::read_to_string(&graph).unwrap();
        let Err(errors) = plan_text(&text, "g.yaml", graph.parent().unwrap(), &registry).await else {
            continue;
        };
        for placed in &errors.problems {
            let reason = &placed.problem.reason;
            let first = reason.chars().next().unwrap();
            assert!(!first.is_uppercase() && !reason.ends_with('.'), "{}: {reason}", graph.display());
            let lines = text.lines().count().max(1);
            assert!(
                (1..=lines + 1).contains(&placed.line) && placed.column >= 1,
                "{}: {reason}",
                graph.display()
            );
        }
    }
}
