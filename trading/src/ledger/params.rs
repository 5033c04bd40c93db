//! What an account is like: the block `account:` of a graph.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::instrument::{Class, Fees, Instrument};
use crate::money::{Decimal, Exact};

/// An account: what is in it, what it may do, and how profits are reckoned.
///
/// A `cash` account pays for everything in full and sells only what it has. A `margin` account may owe cash and units, as far as
/// the instruments' margins (or `leverage_max`) let it.
///
/// ```yaml
/// account:
///   currency: USD
///   cash: { USD: 100000 }
///   kind: margin
///   leverage_max: 2
///   pnl: fifo
///   fees: { per_unit: 0.005, minimum: 1 }
///   interest: 0.06
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerParams {
    /// Currency that the account is valued in.
    pub currency: String,
    /// What is in it at the start, by currency.
    pub cash: BTreeMap<String, Exact>,
    /// `cash` or `margin`.
    pub kind: AccountKind,
    /// Largest gross value of positions, in times of equity. Default: 1 for cash accounts; for margin accounts what the instruments'
    /// `initial_margin` allows. Where it is given, instruments without an `initial_margin` of their own (that is, 1) have one of
    /// 1 / leverage_max.
    pub leverage_max: Option<Exact>,
    /// Which units are sold first: `average` (all at their average price) or `fifo` (the oldest).
    pub pnl: PnlMethod,
    /// What is paid for trading, for instruments that have no `fees` of their own.
    pub fees: Fees,
    /// Interest a year on cash that is owed (0.06 is 6 %), paid daily at midnight UTC, 365 days a year.
    pub interest: Exact,
    /// Whether units may be sold that are not there. Default: `true` for margin accounts; never in cash accounts. Perpetuals and
    /// futures can always be sold.
    pub shorts: Option<bool>,
    /// How other currencies are valued.
    pub rates: Vec<RateSpec>,
}

impl Default for LedgerParams {
    fn default() -> Self {
        Self {
            currency: "USD".into(),
            cash: BTreeMap::new(),
            kind: AccountKind::Cash,
            leverage_max: None,
            pnl: PnlMethod::Average,
            fees: Fees::default(),
            interest: Exact::default(),
            shorts: None,
            rates: Vec::new(),
        }
    }
}

/// Whether positions are paid in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// Everything is paid in full.
    #[default]
    Cash,
    /// Cash and units may be borrowed.
    Margin,
}

/// Which units of a position are sold first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PnlMethod {
    /// All units have the average price of the position.
    #[default]
    Average,
    /// The oldest.
    Fifo,
}

/// How one currency is turned into another: by a fixed `rate`, or by the price of an instrument.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateSpec {
    /// Currency that is turned…
    pub from: String,
    /// …into this one.
    pub to: String,
    /// Instrument whose price is the worth of one `from` in `to` (`EURUSD` from EUR to USD).
    #[serde(default)]
    pub symbol: Option<String>,
    /// A fixed worth of one `from` in `to`.
    #[serde(default)]
    pub rate: Option<Exact>,
}

impl LedgerParams {
    /// Whether units may be sold that are not there.
    pub fn shorts(&self) -> bool {
        self.kind == AccountKind::Margin && self.shorts.unwrap_or(true)
    }

    /// The part of a new position's value that must be there, for `instrument` in this account.
    ///
    /// The instrument's `initial_margin`; with leverage_max L not below 1/L, and 1/L where the instrument has none of its own (1).
    pub fn initial_margin(&self, instrument: &Instrument) -> Decimal {
        let own = instrument.initial_margin.0;
        let most = match (self.leverage_max, self.kind) {
            (Some(most), _) => most.0,
            (None, AccountKind::Cash) => Decimal::ONE,
            (None, AccountKind::Margin) => return own,
        };
        let least = Decimal::ONE.checked_div(most).unwrap_or(Decimal::ONE);
        if own == Decimal::ONE && self.kind == AccountKind::Margin { least } else { own.max(least) }
    }

    /// The part of a position's value that must stay there.
    ///
    /// The instrument's `maintenance_margin`; without: half of its `initial_margin`, and where that is 1 in a margin account 0.25, or half
    /// of the account's initial margin if that is less.
    pub fn maintenance_margin(&self, instrument: &Instrument) -> Decimal {
        let half = Decimal::new(5, 1);
        match instrument.maintenance_margin {
            Some(own) => own.0,
            None if instrument.initial_margin.0 == Decimal::ONE && self.kind == AccountKind::Margin => {
                Decimal::new(25, 2).min(self.initial_margin(instrument) * half)
            }
            None => instrument.initial_margin.0 * half,
        }
    }

    /// What is wrong, as `(path, reason)`; the paths of instruments are `instruments[n]…`, the others are of this block.
    pub fn problems(&self, instruments: &[Instrument]) -> Vec<(String, String)> {
        let mut problems = self.fees.problems("fees");
        let mut problem = |path: String, reason: String| problems.push((path, reason));
        if self.currency.is_empty() {
            problem("currency".into(), "a currency needs a name, such as USD".into());
        }
        if self.leverage_max.is_some_and(|most| most.0 <= Decimal::ZERO || most.0 > Decimal::from(1000)) {
            problem("leverage_max".into(), "leverage is above 0, and 1000 at most".into());
        }
        if self.kind == AccountKind::Cash && self.leverage_max.is_some_and(|most| most.0 > Decimal::ONE) {
            problem(
                "leverage_max".into(),
                "a cash account pays in full: for leverage write `kind: margin`".into(),
            );
        }
        if self.kind == AccountKind::Cash && self.shorts == Some(true) {
            problem(
                "shorts".into(),
                "a cash account sells only what it has: for shorts write `kind: margin`".into(),
            );
        }
        if self.interest.0 < Decimal::ZERO || self.interest.0 >= Decimal::from(10) {
            problem("interest".into(), format!("{} a year is no interest: 0.06 is 6 %", self.interest.0));
        }
        for (currency, amount) in &self.cash {
            if self.kind == AccountKind::Cash && amount.0 < Decimal::ZERO {
                problem(format!("cash.{currency}"), "a cash account owes nothing".into());
            }
        }
        for currency in
            self.cash.iter().filter(|(_, amount)| !amount.0.is_zero()).map(|(currency, _)| currency)
        {
            if let Some(reason) = self.no_rate(currency) {
                problem(format!("cash.{currency}"), reason);
            }
        }
        for (n, rate) in self.rates.iter().enumerate() {
            match (&rate.symbol, rate.rate) {
                (Some(symbol), None)
                    if !instruments.iter().any(|instrument| instrument.symbol == *symbol) =>
                {
                    problem(
                        format!("rates[{n}].symbol"),
                        format!("there is no instrument `{symbol}`: list it in `instruments`"),
                    );
                }
                (Some(_), None) => {}
                (None, Some(rate)) if rate.0 > Decimal::ZERO => {}
                (None, Some(_)) => problem(format!("rates[{n}].rate"), "a rate is above zero".into()),
                _ => problem(format!("rates[{n}]"), "write either `symbol` or `rate`".into()),
            }
            if rate.from == rate.to {
                problem(format!("rates[{n}].to"), "a currency is always worth one of itself".into());
            }
        }
        for (n, instrument) in instruments.iter().enumerate() {
            problems.extend(instrument_problems(&format!("instruments[{n}]"), instrument));
            if let Some(reason) = self.no_rate(&instrument.quote) {
                problems.push((format!("instruments[{n}].quote"), reason));
            }
            if instruments[..n].iter().any(|other| other.symbol == instrument.symbol) {
                problems.push((
                    format!("instruments[{n}].symbol"),
                    format!("`{}` is there twice", instrument.symbol),
                ));
            }
        }
        problems
    }
}

impl LedgerParams {
    /// Why `currency` can never be valued in the account's: nothing in `rates` leads there.
    pub fn no_rate(&self, currency: &str) -> Option<String> {
        let mut reached = vec![self.currency.as_str()];
        let mut n = 0;
        while n < reached.len() {
            let here = reached[n];
            for rate in &self.rates {
                let other = match (rate.from == here, rate.to == here) {
                    (true, _) => rate.to.as_str(),
                    (_, true) => rate.from.as_str(),
                    _ => continue,
                };
                if !reached.contains(&other) {
                    reached.push(other);
                }
            }
            n += 1;
        }
        if reached.contains(&currency) {
            return None;
        }
        let own = &self.currency;
        if let Some(near) = reached.iter().find(|name| name.eq_ignore_ascii_case(currency)) {
            return Some(format!("nothing tells what a {currency} is worth in {own}: did you mean {near}?"));
        }
        Some(format!(
            "nothing tells what a {currency} is worth in {own}: add `rates: [{{ from: {currency}, to: {own}, symbol: … }}]` (an instrument whose price it is) or a fixed `rate` to the account, or set its `currency`"
        ))
    }
}

/// What is wrong with `instrument`, as `(path, reason)` below `at`.
pub fn instrument_problems(at: &str, instrument: &Instrument) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let mut positive = |field: &str, value: Decimal| {
        if value <= Decimal::ZERO {
            problems.push((format!("{at}.{field}"), format!("{value} is not above zero")));
        }
    };
    positive("tick", instrument.tick.0);
    positive("lot", instrument.lot.0);
    positive("multiplier", instrument.multiplier.0);
    positive("initial_margin", instrument.initial_margin.0);
    let mut problem = |field: &str, reason: String| problems.push((format!("{at}.{field}"), reason));
    if instrument.symbol.is_empty() {
        problem("symbol", "an instrument needs a name".into());
    }
    if instrument.initial_margin.0 > Decimal::TEN {
        problem("initial_margin", "a margin is a part of the value: 0.1 is ten times leverage".into());
    }
    if let Some(margin) = instrument.maintenance_margin
        && (margin.0 < Decimal::ZERO || margin.0 > instrument.initial_margin.0 || margin.0 >= Decimal::ONE)
    {
        problem("maintenance_margin", "it is between 0 and `initial_margin`, and below 1".into());
    }
    if instrument.base.as_ref() == Some(&instrument.quote) {
        problem("base", "the currency of a unit is not the one that it is priced in".into());
    }
    if instrument.base.is_some() && instrument.class != Class::Spot {
        problem("base", "only `spot` instruments are units of a currency".into());
    }
    let smallest = instrument.min_quantity.unwrap_or(instrument.lot);
    if let Some(largest) = instrument.max_quantity
        && largest < smallest
    {
        let least = if instrument.min_quantity.is_some() { "min_quantity" } else { "lot" };
        problem(
            "max_quantity",
            format!("{largest:?} is below the `{least}` of {smallest:?}: no order could be sent"),
        );
    }
    if let Some(fees) = &instrument.fees {
        problems.extend(fees.problems(&format!("{at}.fees")));
    }
    problems
}
