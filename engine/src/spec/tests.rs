//! Reading graphs: what is read, where it stands, and the problems of broken ones.

use serde_json::json;

use super::*;

const GRAPH: &str = r#"
dataflow: momentum
version: 2
vars: { every: 1m, n: 14, brokers: "${BROKERS:-embedded}" }
sources:
  trades: { kind: kafka, with: { brokers: $brokers, topic: trades, password: "${PW}" } }
operators:
  bars: { kind: bars, from: trades, with: { every: $every, by: [venue, symbol] } }
  both: { kind: union, from: [bars, trades], with: { n: $n } }
sinks:
  out: { kind: "null", from: both }
checkpoints: { url: ./checkpoints, every: 5s }
state: { memory: 2GiB, spill: ./state }
tests:
  - name: rises
    given: { trades: [{ ts: 1, price: 2.5 }] }
    expect: { out: [] }
    unordered: true
"#;

fn env(name: &str) -> Option<String> {
    (name == "PW").then(|| "hunter2".to_owned())
}

fn broken(text: &str, sets: &[(&str, &str)]) -> Vec<String> {
    let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let (_, errors) = match Spec::parse_lenient(text, "g.yaml", &sets, &env) {
        Ok(read) => read,
        Err(errors) => {
            return errors
                .problems
                .iter()
                .map(|p| format!("{}:{} {}", p.line, p.column, p.problem))
                .collect();
        }
    };
    errors.problems.iter().map(|p| format!("{}:{} {}", p.line, p.column, p.problem)).collect()
}

#[test]
fn a_graph_is_read_whole() {
    let spec = Spec::parse(GRAPH, "dir/g.yaml", &[], &env).unwrap();
    assert_eq!(
        (spec.dataflow.as_str(), spec.version, spec.base.as_path()),
        ("momentum", 2, Path::new("dir"))
    );
    let names: Vec<&str> = spec.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["trades", "bars", "both", "out"]);
    let trades = spec.node("trades").unwrap();
    assert_eq!(trades.with, json!({"brokers": "embedded", "topic": "trades", "password": "hunter2"}));
    let written = json!({"brokers": "${BROKERS:-embedded}", "topic": "trades", "password": "${PW}"});
    assert_eq!(trades.written, written);
    assert_eq!(spec.node("both").unwrap().from, ["bars", "trades"]);
    assert_eq!(spec.node("both").unwrap().with, json!({"n": 14}));
    assert_eq!(spec.checkpoints.url.as_deref(), Some("./checkpoints"));
    assert_eq!(spec.checkpoints.keep, 3);
    assert_eq!(spec.state.memory.map(|memory| memory.bytes()), Some(2 << 30));
    assert_eq!(spec.state.at(std::path::Path::new("/graphs")).spill.as_deref(), Some("/graphs/./state"));
    assert_eq!(spec.tests[0].given["trades"], [json!({"ts": 1, "price": 2.5})]);
    assert_eq!(spec.locate("operators.bars.with.by[1]"), Some((8, 72)));
    assert_eq!(spec.locate("operators.bars.with.nope"), spec.locate("operators.bars.with"));
}

#[test]
fn set_replaces_variables_and_keeps_their_types() {
    let sets = [("n", "21"), ("every", "5m")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let spec = Spec::parse(GRAPH, "g.yaml", &sets, &env).unwrap();
    assert_eq!(spec.node("both").unwrap().with, json!({"n": 21}));
    assert_eq!(spec.node("bars").unwrap().with["every"], "5m");
    assert_eq!(
        broken(GRAPH, &[("evry", "5m")]),
        ["4:1 vars: --set evry: the graph has no variable `evry` (did you mean `every`?)"]
    );
}

#[test]
fn what_is_wrong_is_all_said() {
    let text = "dataflow: My Job\nsource: {}\nsources:\n  a: { kind: x, form: b }\n  a: { kind: y }\noperators:\n  b: { from: [a, 1] }\n  c: hello\nsinks:\n  a: { kind: z, from: b, with: { p: $q } }\ntests: [{ name: t, expect: { zz: [] } }]\n";
    assert_eq!(
        broken(text, &[]),
        [
            "1:11 dataflow: `My Job` cannot be the name of a job (use lower-case letters, digits, `_` and `-`: `my_job`)",
            "2:1 source: unknown section `source` (did you mean `sources`?)",
            "4:17 sources.a.form: unknown field `form` (did you mean `from`?)",
            "5:3 sources.a: `a` is written twice; the first is on line 4 (rename or remove one of them)",
            "7:3 operators.b: the node has no `kind` (`tidemill components` lists the kinds)",
            "7:18 operators.b.from[1]: expected a node's name, found the number 1 (write `from: NAME` or `from: [NAME, NAME]`)",
            "8:6 operators.c: expected a node, found text `hello` (a node is `c: {kind: …, from: …, with: {…}}`)",
            "10:3 sinks.a: `a` is also the name of a source (rename one: names are unique over sources, operators and sinks (`sources.a`))",
            "10:37 sinks.a.with.p: unknown variable `q` (declare it under `vars:`, write `${q}` for an environment variable, or `$$` for a dollar sign)",
            "11:30 tests[0].expect.zz: the graph has no sink `zz` (one of: a)",
        ]
    );
    assert_eq!(
        broken("", &[]),
        [
            "1:1 : expected a graph, found nothing (a graph has `dataflow: NAME`, `sources:`, `operators:` and `sinks:`)"
        ]
    );
    assert_eq!(broken("a: [1\nb: 2", &[]).len(), 1);
}

#[test]
fn errors_show_the_line() {
    let (_, errors) = Spec::parse_lenient(&GRAPH.replace("$every", "$evry"), "g.yaml", &[], &env).unwrap();
    let shown = errors.to_string();
    assert_eq!(
        shown,
        "g.yaml:8:52: operators.bars.with.every: unknown variable `evry`\n  8 |   bars: { kind: bars, from: trades, with: { every: $evry, by: [venue, symbol] } }\n    |                                                    ^\n  hint: did you mean `$every`?"
    );
}

mod never_panics {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_text(text in "[a-z:{}\\[\\]\\n \\-$&*\"'|>#\t!%]{0,80}") {
            let _ = Spec::parse_lenient(&text, "g.yaml", &[], &env).map(|(_, e)| e.to_string());
        }

        #[test]
        fn whatever_is_cut_out(from in 0usize..700, len in 0usize..60) {
            let text: String = GRAPH.chars().enumerate().filter(|(i, _)| *i < from || *i >= from + len).map(|(_, c)| c).collect();
            let _ = Spec::parse_lenient(&text, "g.yaml", &[], &env).map(|(_, e)| e.to_string());
        }
    }
}
