//! Bookings of the account's history as reports: cash, splits, and units that came or went in other ways. Pure.
//!
//! A split is two entries of one day and symbol: the old units go, the new ones come, minutes later at times. It is told when both are there,
//! with the ratio of their units. Until then the account has no such position, so no snapshot should be told of it ([`Booked::half`]).
//! What else moves units (mergers, spin-offs, name changes, transfers, assignments) is told as an alert: the snapshot has what came of it.
//!
//! Types: <https://docs.alpaca.markets/docs/account-activities#activity-types>; legs of splits: <https://docs.alpaca.markets/docs/activity-sse>.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_trading::Decimal;

use crate::alpaca::trading::wire::{Activity, time};
use crate::broker::reports::{Event, Report};

/// A leg of a split whose other one has not come for so long after it was booked stands alone.
const HALF_NS: i64 = 3_600_000_000_000;
/// The same where the venue tells only its day.
const HALF_DAY_NS: i64 = 86_400_000_000_000;
/// Decimals of a ratio.
const RATIO_DIGITS: u32 = 18;

/// What bookings bring.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Booked {
    /// What is new.
    pub news: Vec<Report>,
    /// One leg of a split is there, and the other is to come.
    pub half: bool,
}

/// What of `all` is not among those that were `told`, by their id; cash is in `currency`.
pub(super) fn booked(all: &[Activity], told: &BTreeSet<String>, now: i64, currency: &str) -> Booked {
    let mut groups: BTreeMap<String, Vec<&Activity>> = BTreeMap::new();
    let stands = |a: &&Activity| !matches!(a.status.as_deref(), Some("canceled" | "pending"));
    for leg in all.iter().filter(stands).filter(|a| is_split(a)) {
        groups.entry(action(leg)).or_default().push(leg);
    }
    let mut booked = Booked::default();
    for entry in all.iter().filter(stands).filter(|a| !told.contains(&a.id)) {
        let cash = entry.net_amount.filter(|cash| !cash.is_zero());
        let units = entry.qty.filter(|units| !units.is_zero());
        let report = match (cash, units) {
            (Some(cash), _) => Report {
                reason: Some(cash_reason(&entry.activity_type).into()),
                cash: Some(cash),
                currency: Some(currency.to_owned()),
                ..report(Event::Cash, entry)
            },
            (None, None) => continue,
            (None, Some(units)) if is_split(entry) => {
                let legs = groups.get(&action(entry)).map(Vec::as_slice).unwrap_or_default();
                match (split(legs), legs.len()) {
                    (Some(split), _) if split.added.id == entry.id => Report {
                        quantity: Some(split.ratio),
                        reason: Some(format!(
                            "alpaca booked a split: {} units became {}",
                            split.removed.normalize(),
                            units.abs().normalize()
                        )),
                        ..report(Event::Split, entry)
                    },
                    (Some(_), _) => continue,
                    (None, 1) if is_fresh(entry, now) => {
                        booked.half = true;
                        continue;
                    }
                    (None, _) => moved(entry, units),
                }
            }
            (None, Some(units)) => moved(entry, units),
        };
        booked.news.push(report);
    }
    booked
}

fn report(event: Event, entry: &Activity) -> Report {
    Report {
        symbol: entry.symbol.clone().filter(|s| !s.is_empty()),
        fill_id: Some(entry.id.clone()),
        ..Report::new(event, day(entry))
    }
}

/// Units came or went, and nothing but a snapshot says what that is.
fn moved(entry: &Activity, units: Decimal) -> Report {
    let kind = entry.activity_sub_type.as_deref().filter(|sub| !sub.is_empty());
    let reason = format!(
        "alpaca booked {} {} of {}: the account's next snapshot has it; stops, wishes and working orders of it are as they were",
        kind.unwrap_or(&entry.activity_type),
        units.normalize(),
        entry.symbol.as_deref().unwrap_or("?")
    );
    Report { reason: Some(reason), ..report(Event::Alert, entry) }
}

fn day(entry: &Activity) -> Option<i64> {
    entry.date.as_deref().and_then(|day| time(Some(&format!("{day}T00:00:00Z"))))
}

/// Whether the other leg of a split may still come.
fn is_fresh(leg: &Activity, now: i64) -> bool {
    match time(leg.created_at.as_deref()) {
        Some(at) => at > now.saturating_sub(HALF_NS),
        None => day(leg).is_some_and(|day| day > now.saturating_sub(HALF_DAY_NS)),
    }
}

/// `SSP` was the word for it before.
fn is_split(entry: &Activity) -> bool {
    matches!(entry.activity_type.as_str(), "SPLIT" | "SSP")
}

/// What the legs of one split have in common.
fn action(leg: &Activity) -> String {
    match leg.group_id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => id.to_owned(),
        None => {
            format!(
                "{} {}",
                leg.symbol.as_deref().unwrap_or_default(),
                leg.date.as_deref().unwrap_or_default()
            )
        }
    }
}

struct Split<'a> {
    /// The leg of the new units.
    added: &'a Activity,
    /// Old units.
    removed: Decimal,
    /// New units for an old one.
    ratio: Decimal,
}

/// The split that two legs are. Nothing where they are something else: units that fall apart into several symbols, say.
fn split<'a>(legs: &[&'a Activity]) -> Option<Split<'a>> {
    let [one, two] = *legs else { return None };
    if one.symbol != two.symbol || one.activity_sub_type.as_deref() == Some("USPLIT") {
        return None;
    }
    let (a, b) = (one.qty?, two.qty?);
    if a.is_zero() || b.is_zero() || a.is_sign_positive() == b.is_sign_positive() {
        return None;
    }
    let says = |leg: &Activity, word: &str| leg.description.as_deref().is_some_and(|d| d.starts_with(word));
    let first_goes = if says(one, "REMOVE") || says(two, "ADD") {
        true
    } else if says(two, "REMOVE") || says(one, "ADD") {
        false
    } else {
        match one.activity_sub_type.as_deref() {
            Some("FSPLIT") => a.abs() < b.abs(),
            Some("RSPLIT") => a.abs() > b.abs(),
            // Of a long position the old units go.
            _ => a.is_sign_negative(),
        }
    };
    let (removed, added, new) = if first_goes { (a.abs(), two, b.abs()) } else { (b.abs(), one, a.abs()) };
    let ratio = new.checked_div(removed)?.round_dp(RATIO_DIGITS);
    (ratio > Decimal::ZERO).then_some(Split { added, removed, ratio })
}

/// What cash moved for.
fn cash_reason(activity_type: &str) -> &'static str {
    match activity_type {
        "FEE" | "CFEE" | "DIVFEE" | "PTC" | "PTR" => "fee",
        "INT" | "INTNRA" | "INTTW" | "MARGIN_INT" => "borrow",
        t if t.starts_with("DIV") => "dividend",
        "CSD" | "CSW" | "ACATC" | "JNL" | "JNLC" | "TRANS" => "transfer",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// 2026-03-02, midnight.
    const NOW: i64 = 1_772_409_600_000_000_000;

    fn news(entries: &[Value]) -> (Vec<String>, bool) {
        let all: Vec<Activity> =
            entries.iter().map(|entry| serde_json::from_value(entry.clone()).unwrap()).collect();
        let booked = booked(&all, &BTreeSet::from(["told".to_owned()]), NOW, "USD");
        let shown = |r: &Report| {
            let number = |d: Option<Decimal>| d.map_or("-".into(), |d| d.normalize().to_string());
            let reason = r.reason.clone().unwrap_or_default();
            let of = r.symbol.as_deref().unwrap_or("-");
            format!("{} {of} {} {} {reason}", r.event.name(), number(r.quantity), number(r.cash))
        };
        (booked.news.iter().map(shown).collect(), booked.half)
    }

    fn leg(id: &str, qty: &str, more: Value) -> Value {
        let mut leg = json!({ "id": id, "activity_type": "SPLIT", "symbol": "SF", "date": "2026-02-27", "qty": qty,
            "net_amount": "0", "status": "executed" });
        leg.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        leg
    }

    #[test]
    fn both_legs_of_a_split_are_one_report_with_its_ratio() {
        let (remove, add) = (
            json!({ "description": "REMOVE, From QTY:-25, To QTY:1.67" }),
            json!({ "description": "ADD, From QTY:-25" }),
        );
        for (legs, expected) in [
            // The examples of the venue's documents: forward, reverse.
            (
                [
                    leg("a", "-0.54796447", json!({ "activity_sub_type": "FSPLIT" })),
                    leg("b", "0.821946705", json!({ "activity_sub_type": "FSPLIT" })),
                ],
                "1.5 - alpaca booked a split: 0.54796447 units became 0.821946705",
            ),
            (
                [leg("a", "-33", json!({})), leg("b", "1.65", json!({}))],
                "0.05 - alpaca booked a split: 33 units became 1.65",
            ),
            // In any order, and by what they share.
            (
                [
                    leg("b", "30", json!({ "group_id": "g" })),
                    leg("a", "-10", json!({ "group_id": "g", "date": "2026-02-26" })),
                ],
                "3 - alpaca booked a split: 10 units became 30",
            ),
            // A short position: what goes is above zero.
            (
                [leg("a", "25", remove), leg("b", "-2.5", add)],
                "0.1 - alpaca booked a split: 25 units became 2.5",
            ),
            (
                [
                    leg("a", "4", json!({ "activity_sub_type": "FSPLIT" })),
                    leg("b", "-8", json!({ "activity_sub_type": "FSPLIT" })),
                ],
                "2 - alpaca booked a split: 4 units became 8",
            ),
            (
                [
                    leg("a", "-2", json!({ "activity_sub_type": "RSPLIT", "activity_type": "SSP" })),
                    leg("b", "20", json!({ "activity_sub_type": "RSPLIT", "activity_type": "SSP" })),
                ],
                "0.1 - alpaca booked a split: 20 units became 2",
            ),
            // As many decimals as a row holds.
            (
                [leg("a", "-7", json!({})), leg("b", "2.333333333", json!({}))],
                "0.333333333285714286 - alpaca booked a split: 7 units became 2.333333333",
            ),
        ] {
            assert_eq!(news(&legs), (vec![format!("split SF {expected}")], false), "{legs:?}");
        }
    }

    #[test]
    fn half_a_split_waits_for_its_other_leg() {
        let yesterday = json!({ "date": "2026-03-01", "created_at": "2026-03-01T23:30:00Z" });
        let half = leg("a", "-10", yesterday.clone());
        assert_eq!(news(std::slice::from_ref(&half)), (vec![], true));
        let coming = leg("b", "30", json!({ "date": "2026-03-01", "status": "pending" }));
        assert_eq!(news(&[half.clone(), coming]), (vec![], true));
        let (told, waits) = news(&[half, leg("b", "30", yesterday)]);
        assert!(told[0].starts_with("split SF 3 ") && !waits, "{told:?}");
        // It does not come any more.
        for late in [
            json!({ "date": "2026-02-28" }),
            json!({ "date": "2026-03-01", "created_at": "2026-03-01T22:30:00Z" }),
        ] {
            let (told, waits) = news(&[leg("a", "-10", late)]);
            assert!(told[0].starts_with("alert SF - - alpaca booked SPLIT -10 of SF") && !waits, "{told:?}");
        }
        assert_eq!(news(&[leg("a", "-10", json!({ "date": "2026-03-02" }))]), (vec![], true));
        // A split that was told is not told again.
        assert_eq!(news(&[leg("a", "-10", json!({})), leg("told", "30", json!({}))]), (vec![], false));
    }

    #[test]
    fn other_bookings_of_units_are_alerts() {
        let parts = json!({ "activity_sub_type": "USPLIT", "group_id": "g" });
        let mut other = leg("c", "8", parts.clone());
        other["symbol"] = json!("INFQ");
        let (told, half) = news(&[leg("b", "-8", parts), other]);
        assert!(
            told.iter().all(|t| t.starts_with("alert ") && t.contains("booked USPLIT")) && !half,
            "{told:?}"
        );
        for activity_type in ["SPIN", "MA", "NC", "REORG", "ACATS", "JNLS", "OPASN", "SC"] {
            let entry = json!({ "id": "x", "activity_type": activity_type, "symbol": "RNA", "date": "2026-02-27", "qty": "0.2" });
            let (told, _) = news(&[entry]);
            let words = format!(
                "alert RNA - - alpaca booked {activity_type} 0.2 of RNA: the account's next snapshot"
            );
            assert!(told[0].starts_with(&words), "{told:?}");
        }
    }

    #[test]
    fn cash_is_told_by_what_it_moved_for() {
        for (activity_type, reason) in [
            ("FEE", "fee"),
            ("CFEE", "fee"),
            ("DIVFEE", "fee"),
            ("PTC", "fee"),
            ("PTR", "fee"),
            ("INT", "borrow"),
            ("INTNRA", "borrow"),
            ("INTTW", "borrow"),
            ("DIV", "dividend"),
            ("DIVNRA", "dividend"),
            ("DIVROC", "dividend"),
            ("CSD", "transfer"),
            ("CSW", "transfer"),
            ("ACATC", "transfer"),
            ("JNL", "transfer"),
            ("JNLC", "transfer"),
            ("TRANS", "transfer"),
            ("REORG", "other"),
            ("SOMETHING_NEW", "other"),
        ] {
            // A dividend has the units that it was paid for; only its cash counts.
            let entry = json!({ "id": "x", "activity_type": activity_type, "symbol": "T", "date": "2019-08-01", "net_amount": "1.02",
                "qty": "2", "per_share_amount": "0.51" });
            assert_eq!(news(&[entry]), (vec![format!("cash T - 1.02 {reason}")], false));
        }
        let none = |more: Value| {
            let mut entry =
                json!({ "id": "x", "activity_type": "FEE", "date": "2019-08-01", "net_amount": "-0.02" });
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            news(&[entry])
        };
        assert_eq!(none(json!({})), (vec!["cash - - -0.02 fee".into()], false));
        for nothing in [
            json!({ "id": "told" }),
            json!({ "net_amount": "0" }),
            json!({ "net_amount": null }),
            json!({ "status": "canceled" }),
            json!({ "status": "pending" }),
        ] {
            assert_eq!(none(nothing.clone()), (vec![], false), "{nothing}");
        }
    }
}
