use tidemill_engine::registry::Role;

use super::*;

fn schema(role: Role, kind: &str) -> Value {
    (crate::registry::registry().get(role, kind).unwrap().schema)()
}

fn page(path: &str) -> String {
    let schema = schema(Role::Operator, "execution");
    let inside = path.strip_prefix("execution.").unwrap();
    Block::whole(&schema).at(inside).unwrap_or_else(|(_, at, step)| panic!("{at} {step}")).page(path)
}

/// The text with all white space as one blank: lines break by width.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_block_has_its_text_its_fields_and_its_deeper_blocks() {
    let page = page("execution.risk");
    let text = flat(&page);
    assert!(page.starts_with("execution.risk\n\nThe gate before every order."), "{page}");
    assert!(text.contains("Rules that every order must pass before it is sent"), "{page}");
    assert!(text.contains("daily_loss: { fraction: 0.03, zone: America/New_York"), "{page}");
    assert!(text.contains("stale span of time Orders are refused"), "{page}");
    let more = page.split("`tidemill components execution.risk.NAME`").nth(1).unwrap();
    assert!(more.contains("drawdown") && more.contains("daily_loss") && !more.contains("stale"), "{page}");
}

#[test]
fn a_choice_has_its_variants_with_their_fields() {
    let text = flat(&page("execution.sizing"));
    assert!(text.contains("Not needed where signals bring their sizes"), "{text}");
    assert!(text.contains("fixed: number | text So many units"), "{text}");
    assert!(text.contains("volatility: (As large a part of equity as brings it to a volatility)"), "{text}");
    assert!(text.contains("max_leverage"), "{text}");
    let text = flat(&page("execution.order.algo"));
    for part in
        ["twap: (Equal parts at equal steps)", "slices whole number required", "iceberg: (Only a part"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = flat(&page("execution.venue"));
    assert!(
        text.contains("kind: paper (The paper venue") && text.contains("kind: external (A broker"),
        "{text}"
    );
    assert!(text.contains("stop_trigger last | quote | mark last The price that triggers stops"), "{text}");
    assert!(text.contains("`tidemill components execution.venue.NAME` documents more"), "{text}");
    let text = flat(&page("execution.venue.queue"));
    assert!(text.contains("default: pessimistic") && text.contains("exact Those that were there"), "{text}");
}

#[test]
fn paths_go_through_lists_maps_and_variants() {
    for (path, word) in [
        ("execution.account.fees", "rebate"),
        ("execution.account.fees.tiers", "30 days"),
        ("execution.instruments.session", "Time zone of the hours"),
        ("execution.risk.drawdown.cool_down", "Default: until a `resume` is commanded"),
        ("execution.venue.latency.series_ns", "Measured delays in nanoseconds"),
        ("execution.venue.paper", "participation"),
        ("execution.order.algo.twap.over", "span of time"),
        ("execution.risk.position.symbols", "max_notional"),
    ] {
        assert!(flat(&page(path)).contains(word), "{path}: {}", page(path));
    }
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let schema = schema(Role::Operator, "execution");
    let said = |path: &str| {
        let (at, done, step) = Block::whole(&schema).at(path).unwrap_err();
        at.unknown("execution", done, step)
    };
    assert_eq!(
        said("cool_down"),
        "there is no `cool_down` in `execution`: there is `execution.risk.drawdown.cool_down`"
    );
    assert_eq!(
        said("risk.drawdwon.max"),
        "there is no `drawdwon` in `execution.risk`: did you mean `execution.risk.drawdown`?"
    );
    assert_eq!(said("signals.zzz"), "`execution.signals` has nothing inside: it is text");
    assert_eq!(
        said("risk.drawdown.zzz"),
        "there is no `zzz` in `execution.risk.drawdown`: it has max, cool_down, action"
    );
    assert!(said("").starts_with("there is no `` in `execution`: it has signals, market"));
}

/// Whatever a kind takes can be read, whole, at its path.
#[test]
fn every_setting_of_every_kind_has_its_page() {
    let registry = crate::registry::registry();
    let mut pages = 0;
    for entry in registry.iter() {
        let schema = (entry.schema)();
        for (path, block) in all(&schema) {
            let found =
                Block::whole(&schema).at(&path).map_err(|(_, at, step)| format!("{at} {step}")).unwrap();
            let page = found.page(&path);
            assert!(std::ptr::eq(found.field, block.field), "{}: {path}", entry.kind);
            assert!(page.starts_with(&path) && !page.contains("```"), "{path}: {page}");
            let (body, _) = body(&schema, block.field);
            for name in body.get("properties").and_then(Value::as_object).into_iter().flat_map(|p| p.keys()) {
                assert!(page.contains(&format!(" {name}")), "{path}: {name}: {page}");
            }
            // Each is either said to be something, or has its fields and variants listed.
            assert!(["\ntype: ", "\nfields", "\none of"].iter().any(|w| page.contains(w)), "{path}: {page}");
            pages += 1;
        }
    }
    assert!(pages > 300, "{pages}");
}
