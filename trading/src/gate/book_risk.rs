//! What the book would be like with the order: value at risk and correlation, from sampled returns.

use tidemill_risk::distribution::normal_quantile;
use tidemill_risk::performance::benchmark::correlation;
use tidemill_risk::performance::tail::quantile;
use tidemill_risk::var::moments::Moments;

use super::exposure::{Unknown, marked_value, unit_value};
use super::limits::Limits;
use super::params::{CorrelationLimit, GateParams, VarLimit, VarMethod, With};
use super::rules::short;
use super::{OrderIntent, Refusal, View};
use crate::history::{History, Returns};
use crate::market::InstrumentId;
use crate::money::{Decimal, to_f64};
use crate::order::Side;

/// Values in the account's currency, by instrument; none is zero.
type Book = Vec<(InstrumentId, f64)>;

/// Looks at `var` and `correlation`, for an order that can make a position larger.
pub(super) fn check(
    params: &GateParams,
    limits: &Limits,
    order: &OrderIntent,
    view: &dyn View,
) -> Result<(), Refusal> {
    if let Some(var) = &params.var {
        check_var(var, limits, order, view)?;
    }
    match &params.correlation {
        Some(correlation) => check_correlation(correlation, limits, order, view),
        None => Ok(()),
    }
}

fn check_var(rule: &VarLimit, limits: &Limits, order: &OrderIntent, view: &dyn View) -> Result<(), Refusal> {
    let name = if rule.amount.is_some() { "var.amount" } else { "var.fraction" };
    let history = history(name, view)?;
    let (allowed, said) = match (rule.amount, rule.fraction) {
        (Some(amount), _) => (to_f64(amount.0), format!("{} {}", short(amount.0), view.currency())),
        (None, fraction) => {
            let fraction = fraction.map_or(Decimal::ZERO, |fraction| fraction.0);
            let equity = view.equity();
            if equity.is_nan() {
                return Err(Refusal::new(name, "equity is not known, so nothing can be held against it"));
            }
            let allowed = to_f64(fraction) * equity.max(0.0);
            (allowed, format!("{allowed:.2} {} ({} of equity)", view.currency(), short(fraction)))
        }
    };
    let unknown = |unknown: Unknown| Refusal::new(name, unknown.to_string());
    let few = |samples: usize| {
        let detail = format!(
            "value at risk is not known yet: {samples} of {} samples that all symbols of the book have",
            rule.min_samples
        );
        Refusal::new(name, detail)
    };
    let reckon = |book: &Book| value_at_risk(rule, book, history).map_err(few);
    for all in [false, true] {
        let after = reckon(&book(limits, order, view, all, true).map_err(unknown)?)?;
        let before = reckon(&book(limits, order, view, all, false).map_err(unknown)?)?;
        if beyond(after, allowed) && (after > before || after.is_infinite()) {
            let percent = rule.level * 100.0;
            let with = if all { " with all working orders filled" } else { "" };
            let detail = format!(
                "value at risk at {percent} % would be {after:.2} {}{with}, the limit is {said}",
                view.currency()
            );
            return Err(Refusal::new(name, detail));
        }
    }
    Ok(())
}

/// Sums of floats: what differs by rounding alone is not beyond.
fn beyond(value: f64, limit: f64) -> bool {
    value > limit * (1.0 + 1e-12)
}

fn history<'a>(rule: &'static str, view: &'a dyn View) -> Result<&'a History, Refusal> {
    view.history().ok_or_else(|| Refusal::new(rule, "no history of returns is kept"))
}

/// What is held, and the order filled (`with`), and all working orders filled (`all`).
fn book(
    limits: &Limits,
    order: &OrderIntent,
    view: &dyn View,
    all: bool,
    with: bool,
) -> Result<Book, Unknown> {
    let mut book = Book::new();
    for (instrument, known) in limits.iter() {
        let mut units = Some(view.position(instrument));
        if all {
            let working = view.working(instrument);
            units = units
                .and_then(|units| units.checked_add(working.buys))
                .and_then(|units| units.checked_sub(working.sells));
        }
        let ours = instrument == order.instrument;
        if ours && with {
            units = units.and_then(|units| units.checked_add(order.quantity * order.side.sign()));
        }
        let units = units.ok_or(Unknown::TooLarge)?;
        if units.is_zero() {
            continue;
        }
        let unit = match marked_value(known, instrument, view) {
            Err(Unknown::Price(_)) if ours => unit_value(known, instrument, order.price, view)?,
            unit => unit?,
        };
        book.push((instrument, to_f64(units) * to_f64(unit)));
    }
    Ok(book)
}

/// What the book loses at most, above zero where it loses. `Err`: the samples that there are, too few.
fn value_at_risk(rule: &VarLimit, book: &Book, history: &History) -> Result<f64, usize> {
    if book.is_empty() {
        return Ok(0.0);
    }
    let profits = profits(book, history);
    if profits.len() < rule.min_samples {
        return Err(profits.len());
    }
    let periods = rule.horizon.map_or(1.0, |horizon| horizon.ns() as f64 / history.every_ns() as f64);
    // What is not a number passes no limit.
    let loss = match rule.method {
        VarMethod::Historical => quantile(&profits, 1.0 - rule.level).map(|q| -q * periods.sqrt()),
        VarMethod::Parametric => Moments::of(&profits)
            .map(|m| -(m.mean * periods + normal_quantile(1.0 - rule.level) * m.deviation * periods.sqrt())),
    };
    Ok(loss.unwrap_or(f64::INFINITY))
}

/// What the book would have gained at each sample that all its instruments have.
fn profits(book: &Book, history: &History) -> Vec<f64> {
    let instruments: Vec<InstrumentId> = book.iter().map(|(instrument, _)| *instrument).collect();
    let returns = history.common(&instruments);
    let mut profits = vec![0.0; returns.first().map_or(0, |r| r.len())];
    for ((_, value), returns) in book.iter().zip(returns) {
        for (profit, r) in profits.iter_mut().zip(returns) {
            *profit += value * simple(*r, history);
        }
    }
    profits
}

fn simple(r: f64, history: &History) -> f64 {
    match history.kind() {
        Returns::Simple => r,
        Returns::Log => r.exp_m1(),
    }
}

fn check_correlation(
    rule: &CorrelationLimit,
    limits: &Limits,
    order: &OrderIntent,
    view: &dyn View,
) -> Result<(), Refusal> {
    const RULE: &str = "correlation.max";
    let history = history(RULE, view)?;
    let mut others =
        book(limits, order, view, false, false).map_err(|u| Refusal::new(RULE, u.to_string()))?;
    others.retain(|(instrument, _)| *instrument != order.instrument);
    let books: Vec<Book> = match rule.with {
        With::Portfolio if others.is_empty() => Vec::new(),
        With::Portfolio => vec![others],
        With::Positions => others.into_iter().map(|one| vec![one]).collect(),
    };
    let direction = match order.side {
        Side::Buy => 1.0,
        Side::Sell => -1.0,
    };
    for book in books {
        let with = match (rule.with, book.first()) {
            (With::Positions, Some((instrument, _))) => limits.symbol(*instrument),
            _ => "the other positions",
        };
        let symbol = limits.symbol(order.instrument);
        let theirs = profits(&book, history);
        let ours = profits(&vec![(order.instrument, direction)], history);
        let samples = theirs.len().min(ours.len());
        if samples < rule.min_samples {
            let detail = format!(
                "correlation of {symbol} with {with} is not known yet: {samples} of {} samples",
                rule.min_samples
            );
            return Err(Refusal::new(RULE, detail));
        }
        // Zero where one of them does not move.
        let value =
            correlation(&ours[ours.len() - samples..], &theirs[theirs.len() - samples..]).unwrap_or(0.0);
        if value > rule.max + 1e-12 {
            let detail =
                format!("correlation of {symbol} with {with} is {value:.4}, the limit is {}", rule.max);
            return Err(Refusal::new(RULE, detail));
        }
    }
    Ok(())
}
