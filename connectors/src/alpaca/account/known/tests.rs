//! Every event of the stream of trade updates, every status of an order: what is told of it, and that it is told once.

use serde_json::{Value, json};

use super::*;

const NAME: &str = "00112233445566778899aabbccddeeff";

/// What is known, as it is after the reports that were made.
struct Account {
    known: Known,
    n: u64,
}

fn order(more: Value) -> Value {
    let mut order = json!({ "id": "v-1", "client_order_id": NAME, "symbol": "SPY", "side": "buy", "type": "limit", "qty": "10",
        "filled_qty": "0", "limit_price": "99.5", "time_in_force": "gtc", "status": "new", "updated_at": "2026-03-02T15:00:00Z" });
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    order
}

impl Account {
    /// One that tells of everything.
    fn begun() -> Self {
        let mut account = Self { known: Known::default(), n: 0 };
        account.learn(vec![Report::new(Event::SnapshotEnd, None)]);
        account
    }

    /// One with a working order `v-1`.
    fn with_order() -> Self {
        let mut account = Self::begun();
        assert_eq!(account.hear("new", json!({}), json!({})), [format!("accepted {NAME}")]);
        account
    }

    fn learn(&mut self, news: Vec<Report>) {
        for report in news {
            self.n += 1;
            let report = Report { ts: self.n as i64, ..report };
            self.known.apply(&Logged { n: self.n, journal: None, hidden: false, report });
        }
    }

    fn take(&mut self, news: Vec<Report>) -> Vec<String> {
        let shown = news.iter().map(|r| {
            let number = |name: &str, d: Option<Decimal>| d.map(|d| format!(" {name} {}", d.normalize()));
            let numbers = [
                number("of", r.fill_quantity),
                number("at", r.fill_price),
                number("filled", r.filled),
                number("quantity", r.quantity.filter(|_| r.event == Event::Replaced)),
                number("price", r.price),
            ];
            let words = r.reason.as_ref().map(|reason| format!(": {reason}"));
            let name = r.order_id.clone().unwrap_or_default();
            let all: String = numbers.into_iter().chain([words]).flatten().collect();
            format!("{} {name}{all}", r.event.name())
        });
        let shown = shown.collect();
        self.learn(news);
        shown
    }

    fn try_hear(&mut self, event: &str, of: Value, more: Value) -> Result<Vec<String>, String> {
        let mut update = json!({ "event": event, "timestamp": "2026-03-02T15:00:00.5Z", "order": order(of) });
        update.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let update = serde_json::from_value(update).unwrap();
        self.known.update(&update).map(|news| self.take(news))
    }

    fn hear(&mut self, event: &str, of: Value, more: Value) -> Vec<String> {
        self.try_hear(event, of, more).unwrap()
    }

    /// The order as the venue has it when it is asked.
    fn ask(&mut self, of: Value) -> Vec<String> {
        let order = serde_json::from_value(order(of)).unwrap();
        let news = self.known.order(&order);
        self.take(news)
    }
}

/// What is told of an order that works, when this event comes; and whether the order is over then.
#[test]
fn each_event_of_a_working_order_tells_what_it_means() {
    let second = json!({ "id": "v-2", "replaces": "v-1", "client_order_id": format!("{NAME}-1f"), "qty": "12", "limit_price": "98" });
    let nothing = json!({});
    for (event, of, said, over) in [
        ("new", nothing.clone(), None, false),
        ("accepted", nothing.clone(), None, false),
        ("pending_new", nothing.clone(), None, false),
        ("held", nothing.clone(), None, false),
        ("restated", nothing.clone(), None, false),
        ("pending_cancel", json!({ "status": "pending_cancel" }), None, false),
        ("pending_replace", json!({ "status": "pending_replace" }), None, false),
        ("stopped", json!({ "status": "stopped" }), None, false),
        ("suspended", json!({ "status": "suspended" }), None, false),
        ("calculated", json!({ "status": "calculated" }), None, false),
        ("done_for_day", json!({ "status": "done_for_day" }), None, false),
        // What it is now, the order that took its place says.
        ("replaced", json!({ "status": "replaced", "replaced_by": "v-2" }), None, false),
        ("new", second.clone(), Some("replaced NAME quantity 12 price 98"), true),
        ("canceled", json!({ "status": "canceled" }), Some("canceled NAME"), true),
        ("expired", json!({ "status": "expired" }), Some("expired NAME"), true),
        (
            "rejected",
            json!({ "status": "rejected" }),
            Some("rejected NAME: alpaca rejected the order after it was taken"),
            true,
        ),
        // The replacement is not to be; the order stands.
        (
            "rejected",
            second.clone(),
            Some(
                "change_rejected NAME: alpaca rejected the replacement; the order stands as it was, or is filled",
            ),
            false,
        ),
        (
            "order_replace_rejected",
            nothing.clone(),
            Some("change_rejected NAME: alpaca rejected the change"),
            false,
        ),
        (
            "order_cancel_rejected",
            nothing.clone(),
            Some("change_rejected NAME: alpaca rejected the cancel"),
            false,
        ),
        (
            "trade_bust",
            nothing.clone(),
            Some(
                "alert NAME: alpaca took an execution back or corrected it (trade_bust): compare the account",
            ),
            false,
        ),
        (
            "trade_correct",
            nothing.clone(),
            Some(
                "alert NAME: alpaca took an execution back or corrected it (trade_correct): compare the account",
            ),
            false,
        ),
    ] {
        let mut account = Account::with_order();
        let expected: Vec<String> = said.iter().map(|said: &&str| said.replace("NAME", NAME)).collect();
        assert_eq!(account.hear(event, of.clone(), json!({})), expected, "{event}");
        assert_eq!(account.known.is_over("v-1"), over, "{event}");
        // A second time it is news only where nothing remembers it.
        let again = matches!(
            event,
            "order_replace_rejected" | "order_cancel_rejected" | "trade_bust" | "trade_correct"
        );
        let twice = account.hear(event, of, json!({}));
        if again {
            assert_eq!(twice, expected, "{event}");
        } else if event != "rejected" {
            assert_eq!(twice, [""; 0], "{event}");
        }
    }
}

/// The same of an order of which nothing was heard before.
#[test]
fn each_event_of_an_unknown_order_tells_that_it_is_there() {
    for (event, said) in [
        ("new", vec!["accepted"]),
        ("accepted", vec!["accepted"]),
        ("pending_new", vec!["accepted"]),
        ("held", vec!["accepted"]),
        ("restated", vec!["accepted"]),
        ("canceled", vec!["accepted", "canceled"]),
        ("expired", vec!["accepted", "expired"]),
        ("rejected", vec!["rejected"]),
        ("replaced", vec![]),
        ("done_for_day", vec![]),
        ("pending_cancel", vec![]),
        ("pending_replace", vec![]),
        ("stopped", vec![]),
        ("suspended", vec![]),
        ("calculated", vec![]),
    ] {
        let mut account = Account::begun();
        let told = account.hear(event, json!({}), json!({}));
        let events: Vec<&str> = told.iter().filter_map(|t| t.split(' ').next()).collect();
        assert_eq!(events, said, "{event}");
        assert_eq!(account.hear(event, json!({}), json!({})), [""; 0], "{event}");
    }
    let mut account = Account::begun();
    assert_eq!(account.try_hear("exploded", json!({}), json!({})), Err("unknown event `exploded`".into()));
    let bare = account.try_hear("fill", json!({}), json!({}));
    assert_eq!(bare, Err("an execution without price or quantity".into()));
}

#[test]
fn a_replacement_counts_once_it_is_new_and_fills_go_on_in_it() {
    let second = |more: Value| {
        let mut all = json!({ "id": "v-2", "replaces": "v-1", "client_order_id": format!("{NAME}-1f"), "qty": "12", "limit_price": "98" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let mut account = Account::with_order();
    let part = json!({ "price": "99.5", "qty": "4", "execution_id": "e-1" });
    assert_eq!(
        account.hear("partial_fill", json!({ "filled_qty": "4" }), part.clone()),
        [format!("filled {NAME} of 4 at 99.5 filled 4")]
    );
    assert_eq!(account.hear("partial_fill", json!({ "filled_qty": "4" }), part), [""; 0]);
    // It may still be rejected.
    for event in ["accepted", "pending_new", "held", "restated"] {
        assert_eq!(account.hear(event, second(json!({})), json!({})), [""; 0], "{event}");
    }
    // Its quantity has the filled part in it, or, where the venue counts anew, gets it.
    assert_eq!(
        account.hear("new", second(json!({})), json!({})),
        [format!("replaced {NAME} quantity 16 price 98")]
    );
    let rest = json!({ "price": "98", "qty": "12", "execution_id": "e-2" });
    let whole = second(json!({ "filled_qty": "12", "status": "filled" }));
    assert_eq!(account.hear("fill", whole.clone(), rest), [format!("filled {NAME} of 12 at 98 filled 12")]);
    assert!(account.known.working().is_empty());
    // The history has the same execution under another id.
    let activity = json!({ "id": "20260302150000500::e-2", "activity_type": "FILL", "order_id": "v-2", "price": "98", "qty": "12",
        "cum_qty": "12", "transaction_time": "2026-03-02T15:00:00.5Z" });
    assert!(account.known.knows_fill(&serde_json::from_value(activity).unwrap()));
}

/// What asking for an order tells: its executions come from the history.
#[test]
fn each_status_of_an_order_that_was_asked_for_tells_what_was_missed() {
    let second = json!({ "id": "v-2", "replaces": "v-1", "client_order_id": format!("{NAME}-1f") });
    for (status, of, known, said) in [
        ("new", json!({}), false, "accepted"),
        ("partially_filled", json!({}), false, "accepted"),
        ("filled", json!({}), false, "accepted"),
        ("accepted", json!({}), false, "accepted"),
        ("pending_new", json!({}), false, "accepted"),
        ("accepted_for_bidding", json!({}), false, "accepted"),
        ("held", json!({}), false, "accepted"),
        ("stopped", json!({}), false, "accepted"),
        ("suspended", json!({}), false, "accepted"),
        ("calculated", json!({}), false, "accepted"),
        ("pending_cancel", json!({}), false, "accepted"),
        ("pending_replace", json!({}), false, "accepted"),
        ("suspended", json!({}), true, ""),
        ("calculated", json!({}), true, ""),
        ("filled", json!({}), true, ""),
        ("replaced", json!({}), true, ""),
        ("canceled", json!({}), true, "canceled"),
        ("canceled", json!({}), false, "accepted canceled"),
        ("expired", json!({}), true, "expired"),
        ("rejected", json!({}), true, "rejected"),
        ("done_for_day", json!({}), true, ""),
        ("done_for_day", json!({ "time_in_force": "day" }), true, "expired"),
        ("accepted", second.clone(), true, ""),
        ("pending_new", second.clone(), true, ""),
        ("held", second.clone(), true, ""),
        ("pending_replace", second.clone(), true, ""),
        ("rejected", second.clone(), true, ""),
        ("new", second, true, "replaced"),
    ] {
        let mut account = if known { Account::with_order() } else { Account::begun() };
        let mut of = of;
        of["status"] = json!(status);
        let told = account.ask(of.clone());
        let events: Vec<&str> = told.iter().filter_map(|t| t.split(' ').next()).collect();
        assert_eq!(events.join(" "), said, "{status}");
        assert_eq!(account.ask(of), [""; 0], "{status}");
    }
}

#[test]
fn bookings_that_were_told_are_remembered() {
    let mut account = Account::begun();
    let all: Vec<Activity> = serde_json::from_value(json!([
        { "id": "1", "activity_type": "FEE", "date": "2026-03-02", "net_amount": "-0.02" },
        { "id": "2", "activity_type": "SPLIT", "symbol": "SPY", "date": "2026-03-02", "qty": "-10" },
        { "id": "3", "activity_type": "SPLIT", "symbol": "SPY", "date": "2026-03-02", "qty": "30" },
        { "id": "4", "activity_type": "SPIN", "symbol": "NEW", "date": "2026-03-02", "qty": "1" },
    ]))
    .unwrap();
    let booked = account.known.booked(&all, 0);
    let told = account.take(booked.news);
    let events: Vec<&str> = told.iter().filter_map(|t| t.split(' ').next()).collect();
    assert_eq!(events, ["cash", "split", "alert"]);
    assert_eq!(account.known.booked(&all, 0), Booked::default());
}

fn filled(account: &mut Account, id: &str, units: &str, at: i64) {
    let mut fill = Report::new(Event::Filled, Some(at));
    fill.order_id = Some(NAME.into());
    fill.venue_order_id = Some(id.into());
    fill.filled = units.parse().ok();
    fill.quantity = fill.filled;
    account.n = account.n.max(at as u64);
    account.learn(vec![fill]);
}

fn execution(id: &str, units: &str) -> Activity {
    serde_json::from_value(json!({ "id": "1", "order_id": id, "cum_qty": units, "qty": units, "price": "1" }))
        .unwrap()
}

#[test]
fn an_execution_that_is_read_again_is_known_however_long_ago_it_was() {
    const DAY: i64 = 86_400_000_000_000;
    let mut account = Account::begun();
    let last = 10 * DAY;
    filled(&mut account, "old", "5", last - 2 * OVERLAP_NS);
    filled(&mut account, "within", "5", last - OVERLAP_NS / 2);
    filled(&mut account, "last", "5", last);
    // Ten quiet days, and many orders that do nothing.
    account.n = (20 * DAY) as u64;
    for n in 0..1001 {
        let mut accepted = Report::new(Event::Accepted, None);
        (accepted.order_id, accepted.venue_order_id) = (Some(NAME.into()), Some(format!("o-{n}")));
        account.learn(vec![accepted]);
    }
    let knows = |id: &str| account.known.knows_fill(&execution(id, "5"));
    assert_eq!((knows("old"), knows("within"), knows("last")), (false, true, true));
}

#[test]
fn an_order_is_behind_while_the_venue_has_filled_more_of_it_than_was_told() {
    let shown = |of: Value| serde_json::from_value::<Order>(order(of)).unwrap();
    let part = json!({ "price": "99.5", "qty": "4", "execution_id": "e-1" });
    let mut account = Account::with_order();
    assert!(!account.known.is_behind(&shown(json!({}))));
    assert!(account.known.is_behind(&shown(json!({ "filled_qty": "4" }))));
    account.hear("partial_fill", json!({ "filled_qty": "4" }), part);
    assert!(!account.known.is_behind(&shown(json!({ "filled_qty": "4" }))));
    assert!(account.known.is_behind(&shown(json!({ "filled_qty": "6" }))));
    // A replacement counts what was filled before it, or does not.
    let second = |filled: &str| {
        shown(
            json!({ "id": "v-2", "replaces": "v-1", "client_order_id": format!("{NAME}-1f"), "filled_qty": filled }),
        )
    };
    assert!(!account.known.is_behind(&second("4")) && account.known.is_behind(&second("5")));
    // What the first snapshot has was before anything was told.
    let mut account = Account { known: Known::default(), n: 0 };
    let old = shown(json!({ "filled_qty": "3" }));
    assert!(account.known.is_behind(&old));
    let row = account.known.open(&old);
    account.learn(vec![row, Report::new(Event::SnapshotEnd, None)]);
    assert!(!account.known.is_behind(&old));
    assert!(
        account.known.knows_fill(&execution("v-1", "3")) && !account.known.knows_fill(&execution("v-1", "4"))
    );
}
