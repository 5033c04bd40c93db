//! The shipped graphs: each is valid as it is, and its own tests pass.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use tidemill_engine::runtime::RunOptions;
use tidemill_engine::spec::Spec;
use tidemill_engine::testing;
use tidemill_tests::{plan_text, registry, root};

#[test]
fn every_shipped_graph_is_valid_and_passes_its_own_tests() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let registry = registry();
    let graphs_in = |folder: &str| {
        let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|e| e.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect::<Vec<_>>()
    };
    let mut graphs = [graphs_in("dataflows"), graphs_in("dataflows/strategies")].concat();
    graphs.sort();
    assert!(graphs.len() >= 10);
    for path in graphs {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let planned = tokio.block_on(plan_text(&text, &name, &root(), &registry));
        let (spec, _) = planned.unwrap_or_else(|e| panic!("{}", e.render(false)));
        assert!(!spec.tests.is_empty(), "{name} has no tests");
        for test in &spec.tests {
            let sets: Vec<(String, String)> = test
                .set
                .iter()
                .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
                .collect();
            let spec =
                Spec::parse(&text, &name, &sets, &|_| None).unwrap_or_else(|e| panic!("{}", e.render(false)));
            let plan =
                tokio.block_on(tidemill_engine::plan::plan(&spec, &registry, root(), Default::default()));
            let plan = plan.unwrap_or_else(|problems| panic!("{}", spec.errors(problems).render(false)));
            for workers in [1, 2] {
                let options = RunOptions { workers, ..RunOptions::default() };
                testing::run(&plan, test, &options, tokio.handle()).unwrap_or_else(|failure| {
                    panic!("{name}: {} on {workers} workers:\n{failure}", test.name)
                });
            }
        }
    }
}
