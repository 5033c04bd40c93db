//! Limits of size and exposure, for an order that moves the worst case further out.

use super::exposure::{Change, Reach, Totals, Unknown, marked_value, totals, unit_value, with_order};
use super::limits::{Known, Limits};
use super::params::{GateParams, Whole};
use super::{OrderIntent, Refusal, View};
use crate::money::{Decimal, from_f64};
use crate::order::Side;

/// Looks at `order.*`, `position.*`, `sector`, `venue`, `gross`, `net`, `leverage` and `concentration.max`, in this order.
///
/// Limits of the whole book refuse what raises the worst case beyond them: an order that leaves a book as large as it was passes, even where prices
/// have carried that beyond a limit.
pub(super) fn check(
    params: &GateParams,
    limits: &Limits,
    order: &OrderIntent,
    reduces: bool,
    view: &dyn View,
) -> Result<(), Refusal> {
    let Some(known) = limits.get(order.instrument) else { return Ok(()) };
    let rule = Rule { known, order, reduces, view };
    rule.quantities()?;
    let whole_book = params.gross.is_some()
        || params.net.is_some()
        || params.leverage.is_some()
        || params.concentration.is_some()
        || known.sector.is_some_and(|sector| sector.max.is_some())
        || known.venue.is_some_and(|venue| venue.max.is_some());
    if known.order.max_notional.is_none() && known.position.max_notional.is_none() && !whole_book {
        return Ok(());
    }
    let first = first_rule(params, known);
    let unknown = |unknown: Unknown| Refusal::new(first, unknown.to_string());
    let at_price = unit_value(known, order.instrument, order.price, view).map_err(unknown)?;
    let unit = marked_value(known, order.instrument, view).map_or(at_price, |marked| marked.max(at_price));
    rule.notionals(at_price, unit)?;
    if !whole_book {
        return Ok(());
    }
    let totals = totals(limits, order, known, unit, view).map_err(unknown)?;
    rule.groups(limits, &totals)?;
    rule.book(params, &totals)
}

/// Which rule is named where exposure cannot be told: the first that needs it.
fn first_rule(params: &GateParams, known: &Known) -> &'static str {
    let rules = [
        ("order.max_notional", known.order.max_notional.is_some()),
        ("position.max_notional", known.position.max_notional.is_some()),
        ("sector", known.sector.is_some_and(|sector| sector.max.is_some())),
        ("venue", known.venue.is_some_and(|venue| venue.max.is_some())),
        ("gross", params.gross.is_some()),
        ("net", params.net.is_some()),
        ("leverage", params.leverage.is_some()),
    ];
    rules.into_iter().find(|(_, there)| *there).map_or("concentration.max", |(name, _)| name)
}

struct Rule<'a> {
    known: &'a Known,
    order: &'a OrderIntent,
    /// Its own size does not matter, only what it adds to others.
    reduces: bool,
    view: &'a dyn View,
}

impl Rule<'_> {
    /// The end that the order moves, in units: what the position would be if all of its side were filled.
    fn end(&self) -> Option<Decimal> {
        let position = self.view.position(self.order.instrument);
        let working = with_order(&self.view.working(self.order.instrument), self.order)?;
        Some(Reach::of(position, &working)?.end(self.order.side))
    }

    fn quantities(&self) -> Result<(), Refusal> {
        let symbol = &self.known.symbol;
        if let Some(max) = self.known.order.max_quantity
            && self.order.quantity > max.0
            && !self.reduces
        {
            let detail =
                format!("order of {} {symbol}, the limit is {}", short(self.order.quantity), short(max.0));
            return Err(Refusal::new("order.max_quantity", detail));
        }
        if let Some(max) = self.known.position.max_quantity {
            let end = self.end().ok_or_else(|| too_large("position.max_quantity"))?;
            if end > max.0 {
                let detail =
                    format!("position of {symbol} would be {}, the limit is {}", short(end), short(max.0));
                return Err(Refusal::new("position.max_quantity", detail));
            }
        }
        Ok(())
    }

    fn notionals(&self, at_price: Decimal, unit: Decimal) -> Result<(), Refusal> {
        let (symbol, currency) = (&self.known.symbol, self.view.currency());
        if let Some(max) = self.known.order.max_notional.filter(|_| !self.reduces) {
            let value = self.order.quantity.checked_mul(at_price);
            let value = value.ok_or_else(|| too_large("order.max_notional"))?;
            if value > max.0 {
                let (value, max) = (short(value), short(max.0));
                let detail = format!("order of {symbol} is worth {value} {currency}, the limit is {max}");
                return Err(Refusal::new("order.max_notional", detail));
            }
        }
        if let Some(max) = self.known.position.max_notional {
            let value = self.end().and_then(|end| end.checked_mul(unit));
            let value = value.ok_or_else(|| too_large("position.max_notional"))?;
            if value > max.0 {
                let (value, max) = (short(value), short(max.0));
                let detail = format!("position of {symbol} would be {value} {currency}, the limit is {max}");
                return Err(Refusal::new("position.max_notional", detail));
            }
        }
        Ok(())
    }

    fn groups(&self, limits: &Limits, totals: &Totals) -> Result<(), Refusal> {
        let currency = self.view.currency();
        if let Some(sector) = self.known.sector
            && let Some(max) = sector.max
            && raised_beyond(totals.sector, max)
        {
            let (name, value) = (limits.sector_name(sector), short(totals.sector.after));
            let detail = format!(
                "positions of sector {name} would be {value} {currency}, the limit is {}",
                short(max)
            );
            return Err(Refusal::new("sector", detail));
        }
        if let Some(venue) = self.known.venue
            && let Some(max) = venue.max
            && raised_beyond(totals.venue, max)
        {
            let (name, value) = (limits.venue_name(venue), short(totals.venue.after));
            let detail =
                format!("positions at venue {name} would be {value} {currency}, the limit is {}", short(max));
            return Err(Refusal::new("venue", detail));
        }
        Ok(())
    }

    fn book(&self, params: &GateParams, totals: &Totals) -> Result<(), Refusal> {
        let currency = self.view.currency();
        if let Some(max) = params.gross
            && raised_beyond(totals.gross, max.0)
        {
            let (value, max) = (short(totals.gross.after), short(max.0));
            let detail = format!("gross exposure would be {value} {currency}, the limit is {max}");
            return Err(Refusal::new("gross", detail));
        }
        if let Some(max) = params.net {
            let (net, after) = match self.order.side {
                Side::Buy => (totals.net_high, totals.net_high.after),
                Side::Sell => (negated(totals.net_low), totals.net_low.after),
            };
            if raised_beyond(net, max.0) {
                let (value, max) = (short(after), short(max.0));
                let detail =
                    format!("net exposure would be {value} {currency}, the limit is {max} either way");
                return Err(Refusal::new("net", detail));
            }
        }
        if let Some(max) = params.leverage {
            let equity = self.equity("leverage")?;
            let allowed = max.0.checked_mul(equity).ok_or_else(|| too_large("leverage"))?;
            if raised_beyond(totals.gross, allowed) {
                let times = ratio(totals.gross.after, equity);
                let (gross, equity, max) = (short(totals.gross.after), short(equity), short(max.0));
                let detail = format!(
                    "gross exposure would be {gross} {currency}, {times} times the equity of {equity}, the limit is {max}"
                );
                return Err(Refusal::new("leverage", detail));
            }
        }
        self.concentration(params, totals)
    }

    fn concentration(&self, params: &GateParams, totals: &Totals) -> Result<(), Refusal> {
        const RULE: &str = "concentration.max";
        let Some(rule) = &params.concentration else { return Ok(()) };
        let (whole, name) = match rule.of {
            Whole::Equity => (self.equity(RULE)?, "equity"),
            Whole::Gross => {
                let gross = totals.others.checked_add(totals.own.after).ok_or_else(|| too_large(RULE))?;
                (gross, "gross exposure")
            }
        };
        let allowed = rule.max.0.checked_mul(whole).ok_or_else(|| too_large(RULE))?;
        if raised_beyond(totals.own, allowed) {
            let part = ratio(totals.own.after, whole);
            let (own, whole, max) = (short(totals.own.after), short(whole), short(rule.max.0));
            let (symbol, currency) = (&self.known.symbol, self.view.currency());
            let detail = format!(
                "position of {symbol} would be {own} {currency}, {part} of the {name} of {whole}, the limit is {max}"
            );
            return Err(Refusal::new(RULE, detail));
        }
        Ok(())
    }

    fn equity(&self, rule: &'static str) -> Result<Decimal, Refusal> {
        let equity = self.view.equity();
        let unknown = || Refusal::new(rule, format!("equity is {equity}, so nothing can be held against it"));
        from_f64(equity).filter(|equity| *equity > Decimal::ZERO).ok_or_else(unknown)
    }
}

fn raised_beyond(change: Change, max: Decimal) -> bool {
    change.after > max && change.after > change.before
}

fn negated(change: Change) -> Change {
    Change { before: -change.before, after: -change.after }
}

fn too_large(rule: &'static str) -> Refusal {
    Refusal::new(rule, Unknown::TooLarge.to_string())
}

/// For people: no zeros at the end, no more than eight digits after the point.
pub(super) fn short(value: Decimal) -> String {
    value.round_dp(8).normalize().to_string()
}

fn ratio(part: Decimal, whole: Decimal) -> String {
    part.checked_div(whole)
        .map_or_else(|| "very many".into(), |ratio| ratio.round_dp(4).normalize().to_string())
}
