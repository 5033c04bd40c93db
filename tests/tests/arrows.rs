//! The arrows of the house: which crate may depend on which (DESIGN.md, "The house").

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use tidemill_tests::root;

/// What each room may depend on. `tests` and `benches` see everything.
const ARROWS: [(&str, &[&str]); 13] = [
    ("span", &[]),
    ("engine", &["span"]),
    ("book", &[]),
    ("risk", &[]),
    ("trading", &["span", "risk"]),
    ("archive", &["engine"]),
    ("models", &["engine"]),
    ("operators", &["engine", "book", "risk", "trading", "models"]),
    ("connectors", &["engine", "book", "trading", "archive"]),
    ("sinks", &["engine", "trading", "connectors", "archive"]),
    ("sql", &["engine", "archive", "operators"]),
    ("server", &["engine", "archive", "operators", "connectors", "sinks", "models", "sql"]),
    (
        "cli",
        &[
            "engine",
            "archive",
            "operators",
            "connectors",
            "sinks",
            "models",
            "sql",
            "server",
            "risk",
            "trading",
        ],
    ),
];

#[test]
fn crates_depend_along_the_arrows_only() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut rooms: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let room = |name: &Value| name.as_str().and_then(|n| n.strip_prefix("tidemill-")).map(str::to_owned);
        let name =
            room(&package["name"]).unwrap_or_else(|| panic!("{} is not named tidemill-*", package["name"]));
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        // What only a crate's tests use does not bind the crate.
        let real = dependencies.filter(|d| d["kind"] != "dev").filter_map(|d| room(&d["name"]));
        rooms.insert(name, real.collect());
    }
    for (room, used) in &rooms {
        if matches!(room.as_str(), "tests" | "benches") {
            continue;
        }
        let (_, allowed) =
            ARROWS.iter().find(|(name, _)| name == room).unwrap_or_else(|| panic!("no arrows for {room}"));
        for other in used {
            assert!(allowed.contains(&other.as_str()), "{room} must not depend on {other}");
        }
    }
    assert!(rooms.contains_key("engine") && rooms.contains_key("cli"));
}
