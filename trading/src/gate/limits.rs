//! The rules made ready: checked once, and looked up by an instrument's number.

use std::collections::BTreeMap;

use super::Wrong;
use super::params::{GateParams, SizeLimit, SizeLimits};
use crate::instrument::Instrument;
use crate::market::InstrumentId;
use crate::money::{Decimal, Exact};

/// The limits of all instruments.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    known: Vec<Known>,
    sectors: Vec<String>,
    venues: Vec<String>,
}

/// What the gate knows of one instrument.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) symbol: String,
    pub(super) multiplier: Decimal,
    pub(super) order: SizeLimit,
    pub(super) position: SizeLimit,
    pub(super) sector: Option<Group>,
    pub(super) venue: Option<Group>,
}

/// A sector or venue, and its limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) number: usize,
    pub(super) max: Option<Decimal>,
}

impl Limits {
    pub(super) fn add(&mut self, params: &GateParams, instrument: &Instrument) {
        let known = Known {
            symbol: instrument.symbol.clone(),
            multiplier: instrument.multiplier.0,
            order: size_limit(params.order.as_ref(), &instrument.symbol),
            position: size_limit(params.position.as_ref(), &instrument.symbol),
            sector: group(&mut self.sectors, instrument.sector.as_deref(), &params.sector),
            venue: group(&mut self.venues, instrument.venue.as_deref(), &params.venue),
        };
        self.known.push(known);
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, instrument: InstrumentId) -> Option<&Known> {
        self.known.get(instrument as usize)
    }

    /// All instruments, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (InstrumentId, &Known)> {
        (0..).zip(&self.known)
    }

    pub(super) fn sector_name(&self, group: Group) -> &str {
        &self.sectors[group.number]
    }

    pub(super) fn venue_name(&self, group: Group) -> &str {
        &self.venues[group.number]
    }

    pub(super) fn symbol(&self, instrument: InstrumentId) -> &str {
        self.get(instrument).map_or("?", |known| &known.symbol)
    }
}

fn size_limit(limits: Option<&SizeLimits>, symbol: &str) -> SizeLimit {
    let Some(limits) = limits else { return SizeLimit::default() };
    let own = limits.symbols.get(symbol).cloned().unwrap_or_default();
    SizeLimit {
        max_quantity: own.max_quantity.or(limits.max_quantity),
        max_notional: own.max_notional.or(limits.max_notional),
    }
}

fn group(names: &mut Vec<String>, name: Option<&str>, limits: &BTreeMap<String, Exact>) -> Option<Group> {
    let name = name?;
    let number = names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    });
    let max = limits.get(name).or_else(|| limits.get("*")).map(|max| max.0);
    Some(Group { number, max })
}

/// What is wrong with the numbers.
pub(super) fn check(params: &GateParams) -> Wrong {
    let mut wrong = Wrong::new();
    for (path, limits) in [("order", &params.order), ("position", &params.position)] {
        let Some(limits) = limits else { continue };
        not_negative(&mut wrong, &format!("{path}.max_quantity"), limits.max_quantity);
        not_negative(&mut wrong, &format!("{path}.max_notional"), limits.max_notional);
        for (symbol, own) in &limits.symbols {
            not_negative(&mut wrong, &format!("{path}.symbols.{symbol}.max_quantity"), own.max_quantity);
            not_negative(&mut wrong, &format!("{path}.symbols.{symbol}.max_notional"), own.max_notional);
        }
    }
    for (path, groups) in [("sector", &params.sector), ("venue", &params.venue)] {
        for (name, max) in groups {
            not_negative(&mut wrong, &format!("{path}.{name}"), Some(*max));
        }
    }
    not_negative(&mut wrong, "gross", params.gross);
    not_negative(&mut wrong, "net", params.net);
    not_negative(&mut wrong, "leverage", params.leverage);
    not_negative(&mut wrong, "concentration.max", params.concentration.as_ref().map(|c| c.max));
    not_negative(&mut wrong, "collar.bps", params.collar.as_ref().map(|c| c.bps));
    if let Some(rate) = &params.rate {
        if rate.orders == 0 {
            wrong.push((
                "rate.orders".into(),
                "no order could ever leave: write `state: halted` for that".into(),
            ));
        }
        if rate.per.ns() == 0 {
            wrong.push(("rate.per".into(), "a rate needs a span of time, such as 1s".into()));
        }
    }
    if let Some(daily) = &params.daily_loss {
        one_of(&mut wrong, "daily_loss", daily.amount, daily.fraction);
    }
    if let Some(drawdown) = &params.drawdown
        && !(drawdown.max.0 > Decimal::ZERO && drawdown.max.0 < Decimal::ONE)
    {
        let reason = format!("{} is not a fraction between 0 and 1", drawdown.max.0);
        wrong.push(("drawdown.max".into(), reason));
    }
    if let Some(var) = &params.var {
        one_of(&mut wrong, "var", var.amount, var.fraction);
        if !(var.level > 0.5 && var.level < 1.0) {
            wrong.push(("var.level".into(), format!("{} is not a level such as 0.95 or 0.99", var.level)));
        }
        if var.horizon.is_some_and(|h| h.ns() == 0) {
            wrong.push(("var.horizon".into(), "a horizon needs a span of time, such as 1d".into()));
        }
        enough(&mut wrong, "var.min_samples", var.min_samples);
    }
    if let Some(correlation) = &params.correlation {
        if !(-1.0..=1.0).contains(&correlation.max) {
            wrong.push(("correlation.max".into(), format!("{} is not between -1 and 1", correlation.max)));
        }
        enough(&mut wrong, "correlation.min_samples", correlation.min_samples);
    }
    wrong
}

fn not_negative(wrong: &mut Wrong, path: &str, value: Option<Exact>) {
    if let Some(Exact(value)) = value
        && value < Decimal::ZERO
    {
        wrong.push((path.into(), format!("{value} is below zero")));
    }
}

fn one_of(wrong: &mut Wrong, path: &str, amount: Option<Exact>, fraction: Option<Exact>) {
    match (amount, fraction) {
        (Some(_), Some(_)) => {
            wrong.push((path.into(), "has both `amount` and `fraction`: write one of them".into()));
        }
        (None, None) => wrong.push((path.into(), "needs `amount` or `fraction`".into())),
        _ => {}
    }
    not_negative(wrong, &format!("{path}.amount"), amount);
    not_negative(wrong, &format!("{path}.fraction"), fraction);
}

fn enough(wrong: &mut Wrong, path: &str, samples: usize) {
    if samples < 2 {
        wrong.push((path.into(), format!("{samples} samples say nothing: at least 2 are needed")));
    }
}
