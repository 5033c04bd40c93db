//! Sizing: how many units a signal asks for.
//!
//! A pure function of the signal, the account and the sampled returns, but for the rules that look at several symbols at once: they remember
//! which symbols have a signal ([`Sizing::note`]), and what it expects. State: one small row for each instrument.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::gate::{View, Wrong};
use crate::history::History;
use crate::instrument::Instrument;
use crate::market::InstrumentId;
use crate::money::{Decimal, from_f64, to_f64};
use crate::signal::{Signal, Want};

pub mod params;

mod error;
mod joint;

pub use error::{Cause, SizingError};
pub use params::SizingParams;

/// The sizing rule of one account.
#[derive(Clone, Debug)]
pub struct Sizing {
    /// `None`: signals bring their sizes.
    rule: Option<SizingParams>,
    known: Vec<Known>,
    state: SizingState,
}

/// What it remembers: the last wish for each instrument.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SizingState {
    active: Vec<Active>,
}

/// The last wish for an instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Active {
    /// 1: long, -1: short, 0: no signal.
    direction: i8,
    /// The expected return a year in that direction, not below zero; `None`: the signal had none that was not against it.
    expected: Option<f64>,
}

/// What it knows of an instrument.
#[derive(Clone, Debug)]
struct Known {
    symbol: String,
    multiplier: Decimal,
    lot: Decimal,
    /// Whether the rule names it among its `symbols`.
    listed: bool,
}

impl Sizing {
    /// The rule for these instruments.
    ///
    /// # Errors
    /// All that is wrong with the parameters, by their path.
    pub fn new(params: Option<&SizingParams>, instruments: Arc<[Instrument]>) -> Result<Self, Wrong> {
        let wrong = params.map(SizingParams::check).unwrap_or_default();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut sizing = Self { rule: params.cloned(), known: Vec::new(), state: SizingState::default() };
        instruments.iter().for_each(|instrument| sizing.add(instrument));
        Ok(sizing)
    }

    /// One more instrument, numbered on.
    pub fn add(&mut self, instrument: &Instrument) {
        self.known.push(Known {
            symbol: instrument.symbol.clone(),
            multiplier: instrument.multiplier.0,
            lot: instrument.lot.0,
            listed: self.symbols().contains(&instrument.symbol),
        });
        if self.state.active.len() < self.known.len() {
            self.state.active.push(Active::default());
        }
    }

    /// Takes note of a signal, whatever it wants: before its [`size`](Self::size), and also where that is not asked for (`FLAT`, …).
    pub fn note(&mut self, signal: &Signal) {
        let direction = match signal.want {
            Want::Long => 1,
            Want::Short => -1,
            // None, or sized by the signal itself: not part of what the rule shares out.
            Want::Flat | Want::Target(_) | Want::Trade(_) | Want::Weight(_) => 0,
            Want::Cancel => return,
        };
        if let Some(active) = self.state.active.get_mut(signal.instrument as usize) {
            let expected = signal.expected.filter(|expected| expected.is_finite());
            // One that speaks against its own signal is no part of what is shared out.
            let expected = expected.map(|expected| expected * f64::from(direction)).filter(|e| *e >= 0.0);
            *active = if direction == 0 { Active::default() } else { Active { direction, expected } };
        }
    }

    /// The position that a signal asks for: units, signed, in whole lots. Of `Trade` and `Cancel`: the position as it is, with what is traded.
    ///
    /// # Errors
    /// What is missing or makes no sense; the rule's name is its path in the graph.
    pub fn size(
        &self,
        signal: &Signal,
        price: f64,
        view: &dyn View,
        history: &History,
    ) -> Result<Decimal, SizingError> {
        let units = self.units(signal, price, view, history)?;
        let lot = self.known.get(signal.instrument as usize).map(|known| known.lot);
        let whole = lot.and_then(|lot| lots(units, lot));
        whole.ok_or_else(|| SizingError::new(self.path(), Cause::TooLarge))
    }

    /// As [`size`](Self::size), before it is cut to whole lots.
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn units(
        &self,
        signal: &Signal,
        price: f64,
        view: &dyn View,
        history: &History,
    ) -> Result<Decimal, SizingError> {
        let error = |cause: Cause| SizingError::new(self.path(), cause);
        let known = self.known.get(signal.instrument as usize).ok_or_else(|| error(Cause::Unknown))?;
        let want = Wish { known, signal, price, view, history };
        Ok(match signal.want {
            Want::Flat => Decimal::ZERO,
            Want::Target(units) => units,
            Want::Cancel => view.position(signal.instrument),
            Want::Trade(units) => {
                let position = view.position(signal.instrument);
                position.checked_add(units).ok_or_else(|| error(Cause::TooLarge))?
            }
            Want::Weight(weight) => {
                want.units_of_weight(weight).map_err(|c| SizingError::new("weight", c))?
            }
            Want::Long => self.ruled(&want, 1.0).map_err(error)?,
            Want::Short => -self.ruled(&want, -1.0).map_err(error)?,
        })
    }

    /// Units by the rule, not signed, scaled by the signal's strength.
    fn ruled(&self, want: &Wish<'_>, direction: f64) -> Result<Decimal, Cause> {
        let strength = want.signal.strength;
        let scale = if strength >= 0.0 { from_f64(strength) } else { None };
        let scale = scale.ok_or(Cause::Strength(strength))?;
        let units = match self.rule.as_ref().ok_or(Cause::NoRule)? {
            SizingParams::Fixed(units) => units.0,
            SizingParams::Notional(amount) => want.units_of(amount.0)?,
            SizingParams::Equity(part) => {
                want.units_of(part.0.checked_mul(want.equity()?).ok_or(Cause::TooLarge)?)?
            }
            SizingParams::Volatility(rule) => {
                want.units_of_weight((rule.target / want.volatility()?).min(rule.max_leverage))?
            }
            SizingParams::Atr(rule) => {
                let atr = want.signal.atr.ok_or(Cause::NoAtr)?;
                if !(atr > 0.0 && atr.is_finite()) {
                    return Err(Cause::Atr(atr));
                }
                // A unit of equity moves by its part of the price: risk / (atr x multiple / price).
                let weight = rule.risk * want.price()? / (atr * rule.multiple);
                want.units_of_weight(weight.min(rule.max_leverage))?
            }
            SizingParams::Kelly(rule) if rule.joint => {
                let weight = self.joint_kelly(rule, want, direction)?;
                want.units_of_weight(weight)?
            }
            SizingParams::Kelly(rule) => {
                let expected = want.expected(direction)?;
                let volatility = want.volatility()?;
                let weight = rule.fraction * expected / (volatility * volatility);
                want.units_of_weight(weight.min(rule.max))?
            }
            SizingParams::RiskParity(rule) => {
                want.units_of_weight(rule.target * self.inverse_volatility(want)?)?
            }
            SizingParams::EqualRisk(rule) => {
                want.units_of_weight(rule.target * self.equal_risk(want, direction)?)?
            }
        };
        units.checked_mul(scale).ok_or(Cause::TooLarge)
    }

    fn path(&self) -> &'static str {
        self.rule.as_ref().map_or("sizing", SizingParams::path)
    }

    fn symbols(&self) -> &[String] {
        self.rule.as_ref().map_or(&[], SizingParams::symbols)
    }

    /// The symbols that a rule shares equity out to: those that it lists, or those that have a signal; and always this one.
    fn sharing(&self, this: InstrumentId) -> Vec<InstrumentId> {
        let by_list = !self.symbols().is_empty();
        let shares = |i: &InstrumentId| {
            let (known, active) = (&self.known[*i as usize], &self.state.active[*i as usize]);
            *i == this || if by_list { known.listed } else { active.direction != 0 }
        };
        (0..self.known.len() as InstrumentId).filter(shares).collect()
    }

    /// This symbol's part of one, by the inverse of volatility.
    fn inverse_volatility(&self, want: &Wish<'_>) -> Result<f64, Cause> {
        let this = want.signal.instrument;
        let mut sum = 0.0;
        for i in self.sharing(this) {
            sum += 1.0 / if i == this { want.volatility()? } else { self.measured(i, want.history)? };
        }
        Ok(1.0 / want.volatility()? / sum)
    }

    /// Volatility a year as sampled, above zero.
    fn measured(&self, i: InstrumentId, history: &History) -> Result<f64, Cause> {
        let symbol = || self.known[i as usize].symbol.clone();
        match history.volatility(i) {
            Some(volatility) if volatility > 0.0 => Ok(volatility),
            Some(_) => Err(Cause::ZeroVolatility(symbol())),
            None => Err(Cause::NoVolatility(symbol())),
        }
    }

    /// What a snapshot holds.
    pub fn save(&self) -> SizingState {
        self.state.clone()
    }

    /// Goes on from a snapshot.
    pub fn restore(&mut self, state: SizingState) {
        self.state = state;
        let instruments = self.known.len().max(self.state.active.len());
        self.state.active.resize(instruments, Active::default());
    }
}

/// One signal and all that it is sized by.
struct Wish<'a> {
    known: &'a Known,
    signal: &'a Signal,
    price: f64,
    view: &'a dyn View,
    history: &'a History,
}

impl Wish<'_> {
    fn price(&self) -> Result<f64, Cause> {
        let fine = self.price > 0.0 && self.price.is_finite();
        if fine { Ok(self.price) } else { Err(Cause::NoPrice(self.known.symbol.clone())) }
    }

    fn equity(&self) -> Result<Decimal, Cause> {
        let equity = self.view.equity();
        from_f64(equity).filter(|equity| *equity > Decimal::ZERO).ok_or(Cause::Equity(equity))
    }

    /// The expected return in the direction of the signal; zero where it is against it.
    fn expected(&self, direction: f64) -> Result<f64, Cause> {
        match self.signal.expected {
            Some(expected) if expected.is_finite() => Ok((expected * direction).max(0.0)),
            Some(expected) => Err(Cause::Expected(expected)),
            None => Err(Cause::NoExpected),
        }
    }

    /// The signal's own volatility, or the measured one; above zero.
    fn volatility(&self) -> Result<f64, Cause> {
        let symbol = || self.known.symbol.clone();
        let volatility = self.signal.volatility.or_else(|| self.history.volatility(self.signal.instrument));
        match volatility {
            Some(volatility) if volatility > 0.0 && volatility.is_finite() => Ok(volatility),
            Some(0.0) => Err(Cause::ZeroVolatility(symbol())),
            Some(volatility) => Err(Cause::Volatility(volatility)),
            None => Err(Cause::NoVolatility(symbol())),
        }
    }

    /// Units worth a part of equity.
    fn units_of_weight(&self, weight: f64) -> Result<Decimal, Cause> {
        // Beyond twelve digits there is but the rounding of floats, which must not cost a lot.
        let exact = from_f64(weight).ok_or(Cause::Weight(weight))?.round_dp(12);
        self.units_of(exact.checked_mul(self.equity()?).ok_or(Cause::TooLarge)?)
    }

    /// Units worth an amount of the account's currency.
    fn units_of(&self, amount: Decimal) -> Result<Decimal, Cause> {
        let price = from_f64(self.price()?).ok_or(Cause::TooLarge)?;
        let rate = self.view.rate(self.signal.instrument);
        let rate = rate.filter(|rate| *rate > Decimal::ZERO);
        let rate = rate.ok_or_else(|| Cause::NoRate(self.known.symbol.clone()))?;
        let unit = price.checked_mul(self.known.multiplier).and_then(|unit| unit.checked_mul(rate));
        unit.and_then(|unit| amount.checked_div(unit)).ok_or(Cause::TooLarge)
    }
}

/// Whole lots, towards zero.
fn lots(units: Decimal, lot: Decimal) -> Option<Decimal> {
    units.checked_div(lot)?.trunc().checked_mul(lot)
}

impl SizingParams {
    /// Where it is in the graph.
    fn path(&self) -> &'static str {
        match self {
            Self::Fixed(_) => "sizing.fixed",
            Self::Notional(_) => "sizing.notional",
            Self::Equity(_) => "sizing.equity",
            Self::Volatility(_) => "sizing.volatility",
            Self::Atr(_) => "sizing.atr",
            Self::Kelly(_) => "sizing.kelly",
            Self::RiskParity(_) => "sizing.risk_parity",
            Self::EqualRisk(_) => "sizing.equal_risk",
        }
    }

    fn symbols(&self) -> &[String] {
        match self {
            Self::RiskParity(rule) => &rule.symbols,
            Self::EqualRisk(rule) => &rule.symbols,
            _ => &[],
        }
    }

    fn check(&self) -> Wrong {
        let amounts: Vec<(&str, f64)> = match self {
            Self::Fixed(units) => vec![("fixed", to_f64(units.0))],
            Self::Notional(amount) => vec![("notional", to_f64(amount.0))],
            Self::Equity(part) => vec![("equity", to_f64(part.0))],
            Self::Volatility(rule) => {
                vec![("volatility.target", rule.target), ("volatility.max_leverage", rule.max_leverage)]
            }
            Self::Atr(rule) => vec![
                ("atr.risk", rule.risk),
                ("atr.multiple", rule.multiple),
                ("atr.max_leverage", rule.max_leverage),
            ],
            Self::Kelly(rule) => vec![("kelly.fraction", rule.fraction), ("kelly.max", rule.max)],
            Self::RiskParity(rule) => vec![("risk_parity.target", rule.target)],
            Self::EqualRisk(rule) => vec![("equal_risk.target", rule.target)],
        };
        let bad = amounts.into_iter().filter(|(_, value)| !(*value > 0.0 && value.is_finite()));
        bad.map(|(path, value)| (path.to_owned(), format!("{value} is not above zero"))).collect()
    }
}

#[cfg(test)]
mod tests;
