use super::*;

const H: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * H;

/// Runs one step and returns what the machine must do, in words.
fn step(gate: &mut Gate, run: impl FnOnce(&mut Gate, &mut Vec<Action>)) -> Vec<String> {
    let mut actions = Vec::new();
    run(gate, &mut actions);
    let words = actions.into_iter().map(|action| match action {
        Action::State { state, reason } => format!("{state:?}: {reason}").to_lowercase(),
        Action::CancelOpening => "cancel opening".into(),
        Action::CancelAll => "cancel all".into(),
        Action::Flatten => "flatten".into(),
    });
    words.collect()
}

fn mark(gate: &mut Gate, now: i64, equity: f64) -> Vec<String> {
    step(gate, |gate, out| gate.mark(now, equity, out))
}

fn control(gate: &mut Gate, control: Control) -> Vec<String> {
    step(gate, |gate, out| gate.control(0, control, "", out))
}

#[test]
fn drawdown_with_a_cool_down_worked_by_hand() {
    let mut gate = gate(r#"{"drawdown": {"max": 0.1, "cool_down": "2h", "action": "flatten"}}"#);
    let book = Book::new(3);
    let none: [&str; 0] = [];
    assert_eq!(mark(&mut gate, 0, 100_000.0), none);
    assert_eq!(mark(&mut gate, H, 120_000.0), none);
    // The peak is 120000; a tenth below it is 108000, which is met, not passed.
    assert_eq!(mark(&mut gate, 2 * H, 108_000.0), none);
    assert_eq!(gate.next_due(), i64::MAX);
    assert_eq!(
        mark(&mut gate, 3 * H, 107_000.0),
        [
            "halted: drawdown.max: equity 107000.00 is 10.8333 % below its peak of 120000.00, the limit is 10 %",
            "cancel all",
            "flatten"
        ]
    );
    assert_eq!(gate.next_due(), 5 * H);
    let refusal = gate.check(4 * H, &buy(0, "1"), &book).unwrap_err();
    assert_eq!(refusal.rule, "drawdown.max");
    assert!(refusal.detail.starts_with("trading is halted: equity 107000.00 is 10.8333 %"), "{refusal}");
    // While it holds nothing more is told, and no new peak is taken.
    assert_eq!(mark(&mut gate, 4 * H, 90_000.0), none);
    assert_eq!(step(&mut gate, |gate, out| gate.advance(5 * H - 1, out)), none);
    assert_eq!(step(&mut gate, |gate, out| gate.advance(5 * H, out)), ["normal: nothing holds it any more"]);
    assert_eq!(verdict(&mut gate, &book, buy(0, "1")), "");
    // The peak begins anew: 90000.
    assert_eq!(mark(&mut gate, 6 * H, 90_000.0), none);
    assert_eq!(mark(&mut gate, 7 * H, 81_000.0), none);
    assert_eq!(mark(&mut gate, 7 * H, 80_999.0).len(), 3);
}

#[test]
fn without_a_cool_down_a_person_resumes() {
    let mut gate = gate(r#"{"drawdown": {"max": 0.1}}"#);
    mark(&mut gate, 0, 100.0);
    assert_eq!(mark(&mut gate, 1, 89.0)[1], "cancel all");
    assert_eq!(gate.next_due(), i64::MAX);
    assert_eq!(control(&mut gate, Control::Resume), ["normal: nothing holds it any more"]);
    assert!(mark(&mut gate, 2, 81.0).is_empty());
    assert_eq!(mark(&mut gate, 3, 80.0).len(), 2);
}

#[test]
fn a_day_s_loss_holds_until_the_day_ends() {
    let mut gate = gate(r#"{"daily_loss": {"amount": 1000, "action": "reduce"}}"#);
    let mut book = Book::new(3);
    book.position[0] = d("10");
    let none: [&str; 0] = [];
    assert_eq!(mark(&mut gate, 23 * H, 50_000.0), none);
    // The day before ended at 50000.
    assert_eq!(mark(&mut gate, DAY, 49_500.0), none);
    assert_eq!(mark(&mut gate, DAY + H, 49_000.0), none);
    let told = mark(&mut gate, DAY + 2 * H, 48_999.5);
    let reason =
        "reducing: daily_loss.amount: 1000.50 lost since the day's start at 50000.00, the limit is 1000.00";
    assert_eq!(told, [reason, "cancel opening"]);
    assert_eq!(gate.state(), TradingState::Reducing);
    let order = gate.check(DAY + 3 * H, &buy(0, "1"), &book).unwrap_err();
    assert_eq!(order.rule, "daily_loss.amount");
    assert!(
        order.detail.starts_with("only orders that make positions smaller pass: 1000.50 lost"),
        "{order}"
    );
    assert_eq!(gate.check(DAY + 3 * H, &sell(0, "10"), &book), Ok(()));
    assert!(gate.check(DAY + 3 * H, &sell(0, "11"), &book).is_err());
    // It recovers, but the day is over only at midnight.
    assert_eq!(mark(&mut gate, DAY + 4 * H, 60_000.0), none);
    assert_eq!(gate.next_due(), 2 * DAY);
    // The next mark comes after midnight, and against the last of that day.
    assert_eq!(mark(&mut gate, 2 * DAY + H, 59_000.0), ["normal: nothing holds it any more"]);
    assert_eq!(mark(&mut gate, 2 * DAY + 2 * H, 58_999.0).len(), 2);
}

#[test]
fn a_day_s_loss_as_a_fraction_in_a_zone() {
    let rules = r#"{"daily_loss": {"fraction": 0.02, "zone": "America/New_York"}}"#;
    let mut gate = gate(rules);
    // 1970-01-01 00:00 UTC is 19:00 in New York: that day ends at 05:00 UTC.
    assert!(mark(&mut gate, 0, 1000.0).is_empty());
    assert!(mark(&mut gate, H, 980.0).is_empty());
    let told = mark(&mut gate, 2 * H, 979.0);
    let reason =
        "halted: daily_loss.fraction: 21.00 lost since the day's start at 1000.00, the limit is 20.00 (2 %)";
    assert_eq!(told, [reason, "cancel all"]);
    assert_eq!(gate.next_due(), 5 * H);
}

#[test]
fn commands() {
    let mut gate = gate("{}");
    let mut book = Book::new(3);
    book.position[0] = d("10");
    let none: [&str; 0] = [];
    assert_eq!(
        control(&mut gate, Control::Reduce),
        ["reducing: control.reduce: commanded", "cancel opening"]
    );
    assert_eq!(verdict(&mut gate, &book, buy(0, "1")), "control.reduce");
    assert_eq!(verdict(&mut gate, &book, sell(0, "1")), "");
    assert_eq!(control(&mut gate, Control::Halt), ["halted: control.halt: commanded", "cancel all"]);
    assert_eq!(verdict(&mut gate, &book, sell(0, "1")), "control.halt");
    assert_eq!(verdict(&mut gate, &book, OrderIntent { reduce_only: true, ..sell(0, "1") }), "control.halt");
    assert_eq!(control(&mut gate, Control::Halt), none);
    // A weaker one lifts nothing.
    assert_eq!(control(&mut gate, Control::Reduce), none);
    assert_eq!(control(&mut gate, Control::Flatten), ["cancel all", "flatten"]);
    assert_eq!(verdict(&mut gate, &book, sell(0, "1")), "control.flatten");
    assert_eq!(control(&mut gate, Control::Resume), ["normal: nothing holds it any more"]);
    assert_eq!(verdict(&mut gate, &book, buy(0, "1")), "");
}

#[test]
fn the_graph_s_own_state_holds_whatever_is_commanded() {
    let mut held = gate(r#"{"state": "halted"}"#);
    let book = Book::new(3);
    assert_eq!(held.next_due(), i64::MIN);
    assert_eq!(verdict(&mut held, &book, buy(0, "1")), "state");
    let told = step(&mut held, |gate, out| gate.advance(0, out));
    assert_eq!(told, ["halted: state: the graph says so", "cancel all"]);
    assert_eq!(held.next_due(), i64::MAX);
    assert!(control(&mut held, Control::Resume).is_empty());
    assert_eq!(verdict(&mut held, &book, buy(0, "1")), "state");
    // Restarted without it, it is over; with it, it begins.
    let mut normal = gate("{}");
    normal.restore(held.save());
    let told = step(&mut normal, |gate, out| gate.advance(1, out));
    assert_eq!(told, ["normal: nothing holds it any more"]);
    held.restore(normal.save());
    assert_eq!(step(&mut held, |gate, out| gate.advance(2, out)).len(), 2);
}

#[test]
fn two_breakers_at_once_do_what_the_stricter_says() {
    let rules = r#"{"daily_loss": {"amount": 5, "action": "reduce"}, "drawdown": {"max": 0.05}}"#;
    let mut gate = gate(rules);
    mark(&mut gate, 0, 100.0);
    let told = mark(&mut gate, 1, 90.0);
    assert_eq!(told[1..], ["cancel all"]);
    assert_eq!(gate.state(), TradingState::Halted);
    // The drawdown is lifted with the rest by a person.
    assert_eq!(control(&mut gate, Control::Resume), ["normal: nothing holds it any more"]);
}

#[test]
fn equity_that_is_no_number_is_passed_over() {
    let mut gate = gate(r#"{"drawdown": {"max": 0.1}, "daily_loss": {"fraction": 0.1}}"#);
    for equity in [f64::NAN, 100.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(mark(&mut gate, 0, equity).is_empty());
    }
    assert_eq!(mark(&mut gate, 1, -5.0).len(), 2);
}

#[test]
fn what_is_transferred_is_neither_lost_nor_earned() {
    let mut gate = gate(r#"{"drawdown": {"max": 0.1}, "daily_loss": {"amount": 1000}}"#);
    let none: [&str; 0] = [];
    assert_eq!(mark(&mut gate, 0, 10_000.0), none);
    gate.transferred(-5_000.0);
    assert_eq!(mark(&mut gate, H, 5_000.0), none);
    // The day began with 10000, and 4900 of what is left of it are there at midnight.
    assert_eq!(mark(&mut gate, H, 4_900.0), none);
    gate.transferred(f64::NAN);
    gate.transferred(45_000.0);
    assert_eq!(mark(&mut gate, DAY, 49_900.0), none);
    assert_eq!(mark(&mut gate, DAY, 48_900.0), none);
    assert!(mark(&mut gate, DAY, 48_899.0)[0].contains("1001.00 lost since the day's start at 49900.00"));
    // What it is worth is known anew.
    step(&mut gate, |gate, out| gate.control(DAY, Control::Resume, "", out));
    gate.begin_anew();
    assert_eq!(mark(&mut gate, DAY, 10.0), none);
}
