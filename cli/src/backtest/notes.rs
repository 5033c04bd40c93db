//! What a reader of a backtest must know beside its figures: the same list in the terminal, the report and JSON.

use serde_json::Value;

use super::account::Account;
use super::curve::DAY;
use super::summary::Summary;
use crate::report::text;

/// Days of history below which figures a year say little.
const DAYS_MIN: f64 = 90.0;

/// All of them; `changed` are those of the graph's own change for the backtest, `free` what trading did not cost.
pub fn notes(changed: &[String], free: &[&str], account: &Account, summary: &Summary) -> Vec<String> {
    let mut notes = changed.to_vec();
    if !free.is_empty() && !account.fills.is_empty() {
        notes.push(format!(
            "Costs: this account paid no {}, which no market gives. Set them on the `execution` node, or the figures are too good.",
            listed(free)
        ));
    }
    let days = (summary.range.1 - summary.range.0) as f64 / DAY as f64;
    if days < DAYS_MIN && !account.curve.is_empty() {
        notes.push(format!(
            "The history has {} days: figures a year (CAGR, Sharpe, turnover, …) are extrapolated from very little.",
            text::number(days, 1)
        ));
    }
    let unknown = account.fills.iter().filter(|fill| fill.value.is_nan()).count();
    if unknown > 0 {
        notes.push(format!(
            "{unknown} fills are in currencies whose rate was not known then: they are neither in the value traded nor in the profit of round trips."
        ));
    }
    let times = |code: &str| account.alerts.get(code).copied().unwrap_or(0);
    if times("liquidated") > 0 {
        notes.push(format!(
            "The account was liquidated ({} times): its equity fell to the maintenance margin, and all positions were closed.",
            times("liquidated")
        ));
    }
    if times("ruined") > 0 || account.curve.last().is_some_and(|last| last.equity <= 0.0) {
        notes.push("The account is ruined: it has lost more than all that was in it. Figures from returns mean nothing beyond that point.".into());
    }
    notes
}

/// What trading costs nothing of, by an `execution` node's `with:` block: some of fees, slippage and delay (latency).
pub fn free(with: &Value) -> Vec<&'static str> {
    let given = |at: &Value, name: &str| {
        at.get(name).is_some_and(|value| !(value.is_null() || value == "none" || value == 0 || value == "0s"))
    };
    let part = |name: &str| with.get(name).unwrap_or(&Value::Null);
    let listed = part("instruments").as_array().into_iter().flatten();
    let mut instruments = listed.chain(with.get("default_instrument"));
    let fees = given(part("account"), "fees") || instruments.any(|instrument| given(instrument, "fees"));
    let venue = part("venue");
    [("fees", fees), ("slippage", given(venue, "slippage")), ("delay (latency)", given(venue, "latency"))]
        .into_iter()
        .filter_map(|(name, paid)| (!paid).then_some(name))
        .collect()
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and no {last}", most.join(", no ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_costs_nothing_is_listed() {
        assert_eq!(free(&json!({})), ["fees", "slippage", "delay (latency)"]);
        let paid = json!({
            "account": { "fees": { "bps": 1 } }, "venue": { "kind": "paper", "slippage": { "ticks": 1 }, "latency": "50ms" }
        });
        assert!(free(&paid).is_empty());
        let by_instrument =
            json!({ "instruments": [{ "symbol": "A", "fees": { "bps": 1 } }], "venue": { "latency": "0s" } });
        assert_eq!(listed(&free(&by_instrument)), "slippage and no delay (latency)");
        assert_eq!(listed(&["fees", "slippage", "delay"]), "fees, no slippage and no delay");
    }
}
