//! What an account is worth at the marks, and how much margin it needs.
//!
//! Each read goes over the positions held, in the order of their numbers, and reckons anew. Where something held has no mark, or its currency
//! no rate, sums are NaN: a number that leaves it out would be wrong.

use super::fill::convert;
use super::{AccountKind, Ledger, exact};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};

impl Ledger {
    /// Worth of one unit of an instrument's quote currency in the account's. `None` where no rate is known.
    pub fn rate(&self, instrument: InstrumentId) -> Option<Decimal> {
        self.rate_of(self.known.get(instrument as usize)?.quote)
    }

    /// Worth of one unit of `currency` in the account's. `None` where no rate is known.
    pub fn currency_rate(&self, currency: &str) -> Option<Decimal> {
        self.rate_of(self.state.purses.iter().position(|purse| purse.name == currency)?)
    }

    /// Cash in `currency`, negative where it is owed.
    pub fn cash(&self, currency: &str) -> Decimal {
        self.state
            .purses
            .iter()
            .find(|purse| purse.name == currency)
            .map_or(Decimal::ZERO, |purse| purse.cash)
    }

    /// Cash by currency: the account's first, then the others as they came.
    pub fn cash_all(&self) -> impl Iterator<Item = (&str, Decimal)> {
        self.state.purses.iter().map(|purse| (purse.name.as_str(), purse.cash))
    }

    /// Currencies of which a cash account has less than nothing, with the amounts: a venue let it happen.
    pub fn negative_cash(&self) -> impl Iterator<Item = (&str, Decimal)> {
        self.cash_all().filter(|(_, cash)| self.params.kind == AccountKind::Cash && *cash < Decimal::ZERO)
    }

    /// Cash of all currencies, in the account's.
    pub fn cash_total(&self) -> f64 {
        let purses = self.state.purses.iter().zip(&self.ways).filter(|(purse, _)| !purse.cash.is_zero());
        purses.map(|(purse, way)| money::to_f64(purse.cash) * way.near(&self.state.marks)).sum()
    }

    /// Signed value of a position at its mark, in the account's currency: units x price x multiplier, also of what is not paid for.
    #[inline]
    pub fn value(&self, instrument: InstrumentId) -> f64 {
        let i = instrument as usize;
        match self.known.get(i) {
            Some(known) if known.size != 0.0 => {
                known.size * self.state.marks[i] * self.ways[known.quote].near(&self.state.marks)
            }
            _ => 0.0,
        }
    }

    /// Profit of a position at its mark, in the account's currency.
    pub fn unrealized(&self, instrument: InstrumentId) -> f64 {
        let i = instrument as usize;
        match self.known.get(i) {
            Some(known) if known.size != 0.0 => {
                (known.size * self.state.marks[i] - known.cost)
                    * self.ways[known.quote].near(&self.state.marks)
            }
            _ => 0.0,
        }
    }

    /// Profit of all open positions.
    pub fn unrealized_total(&self) -> f64 {
        self.held.iter().map(|&instrument| self.unrealized(instrument)).sum()
    }

    /// Profit made real since the start, in the account's currency, before fees. Of all instruments.
    pub fn realized_total(&self) -> Decimal {
        let realized = self.state.positions.iter().map(|held| held.realized_account);
        realized.fold(Decimal::ZERO, Decimal::saturating_add)
    }

    /// Fees of fills since the start, in the account's currency.
    pub fn fees_total(&self) -> Decimal {
        self.state.positions.iter().map(|held| held.fees_account).fold(Decimal::ZERO, Decimal::saturating_add)
    }

    /// What the account is worth: cash, the value of what was paid for, and the open profit of what was not.
    pub fn equity(&self) -> f64 {
        let positions = self.held.iter().map(|&instrument| {
            if self.known[instrument as usize].paid {
                self.value(instrument)
            } else {
                self.unrealized(instrument)
            }
        });
        self.cash_total() + positions.sum::<f64>()
    }

    /// [`Ledger::equity`] in decimals. `None` where a mark or rate of something held is not known, or a number has too many digits.
    pub fn equity_exact(&self) -> Option<Decimal> {
        let mut sum = Decimal::ZERO;
        for (place, purse) in self.state.purses.iter().enumerate() {
            let mut local = purse.cash;
            for &instrument in &self.held {
                let i = instrument as usize;
                if self.known[i].quote == place {
                    local = exact::add(local, self.worth_exact(i)?)?;
                }
            }
            sum = exact::add(sum, convert(local, self.rate_of(place))?)?;
        }
        Some(sum)
    }

    /// Value of what was paid for, open profit of what was not; in the quote currency.
    pub(super) fn worth_exact(&self, i: usize) -> Option<Decimal> {
        let held = &self.state.positions[i];
        let value = self.value_exact(i)?;
        if self.known[i].paid { Some(value) } else { exact::sub(value, held.cost) }
    }

    /// Units x mark x multiplier in the quote currency.
    pub(super) fn value_exact(&self, i: usize) -> Option<Decimal> {
        let quantity = self.state.positions[i].quantity;
        if quantity.is_zero() {
            return Some(Decimal::ZERO);
        }
        exact::product(quantity, money::from_f64(self.state.marks[i])?, self.instruments[i].multiplier.0)
    }

    /// Sum of the absolute values of positions.
    pub fn gross(&self) -> f64 {
        self.held.iter().map(|&instrument| self.value(instrument).abs()).sum()
    }

    /// Sum of the values of positions.
    pub fn net(&self) -> f64 {
        self.held.iter().map(|&instrument| self.value(instrument)).sum()
    }

    /// Gross value by equity; zero without positions, infinite where there are some and equity is not above zero.
    pub fn leverage(&self) -> f64 {
        let (gross, equity) = (self.gross(), self.equity());
        if gross == 0.0 {
            0.0
        } else if equity <= 0.0 {
            f64::INFINITY
        } else {
            gross / equity
        }
    }

    /// The initial margin of `instrument` in this account (see [`super::LedgerParams::initial_margin`]).
    pub fn initial_margin(&self, instrument: InstrumentId) -> Decimal {
        self.known.get(instrument as usize).map_or(Decimal::ONE, |known| known.initial)
    }

    /// The maintenance margin of `instrument` in this account.
    pub fn maintenance_margin(&self, instrument: InstrumentId) -> Decimal {
        self.known.get(instrument as usize).map_or(Decimal::ONE, |known| known.maintenance)
    }

    /// Margin in use: initial margin x absolute value, of positions that need margin (all in a margin account; perpetuals and futures in a
    /// cash account).
    pub fn margin_used(&self) -> f64 {
        self.margin(|i| self.known[i].initial_near)
    }

    /// Equity below which the venue closes positions: maintenance margin x absolute value.
    pub fn margin_maintenance(&self) -> f64 {
        self.margin(|i| self.known[i].maintenance_near)
    }

    fn margin(&self, part: impl Fn(usize) -> f64) -> f64 {
        let margined = self.held.iter().filter(|&&instrument| self.known[instrument as usize].margined);
        margined.map(|&instrument| part(instrument as usize) * self.value(instrument).abs()).sum()
    }

    /// Whether equity is at or below the maintenance margin of positions that need one: the venue closes them.
    pub fn is_liquidated(&self) -> bool {
        let maintenance = self.margin_maintenance();
        maintenance > 0.0 && self.equity() <= maintenance
    }

    /// Equity that is neither margin in use nor reserved by working orders; below zero where there is too little.
    ///
    /// In a cash account what is paid for is not free, and cash that working buys reserve is not.
    pub fn free(&self) -> f64 {
        let mut free = if self.params.kind == AccountKind::Cash {
            let unpaid = self.held.iter().filter(|&&instrument| !self.known[instrument as usize].paid);
            self.cash_total() + unpaid.map(|&instrument| self.unrealized(instrument)).sum::<f64>()
        } else {
            self.equity()
        };
        for (i, known) in self.known.iter().enumerate() {
            let works = !(known.working.buys.is_zero() && known.working.sells.is_zero());
            if !works && (known.size == 0.0 || !known.margined) {
                continue;
            }
            let reserved = if known.margined {
                self.need_near(i)
            } else {
                money::to_f64(known.working.buy_value) + money::to_f64(known.working.buy_fees)
            };
            free -= reserved * self.ways[known.quote].near(&self.state.marks);
        }
        free
    }

    /// [`Ledger::free`] in decimals.
    pub fn free_exact(&self) -> Option<Decimal> {
        let mut sum = Decimal::ZERO;
        for (place, purse) in self.state.purses.iter().enumerate() {
            let mut local = purse.cash;
            for (i, known) in self.known.iter().enumerate().filter(|(_, known)| known.quote == place) {
                let held = !self.state.positions[i].quantity.is_zero();
                let works = !(known.working.buys.is_zero() && known.working.sells.is_zero());
                if known.margined && (held || works) {
                    local = exact::sub(exact::add(local, self.worth_exact(i)?)?, self.need(i)?)?;
                } else if works {
                    let reserved = exact::add(known.working.buy_value, known.working.buy_fees)?;
                    local = exact::sub(local, reserved)?;
                }
            }
            sum = exact::add(sum, convert(local, self.rate_of(place))?)?;
        }
        Some(sum)
    }

    /// Value that could still be bought (or sold short) of `instrument`, in the account's currency, before fees; never below zero.
    ///
    /// Cash accounts, spot and options: free cash of its quote currency. Else: free equity by its initial margin.
    pub fn buying_power(&self, instrument: InstrumentId) -> f64 {
        let i = instrument as usize;
        let Some(known) = self.known.get(i) else { return 0.0 };
        let power = if known.margined {
            self.free() / known.initial_near
        } else {
            money::to_f64(self.free_cash(&self.instruments[i].quote))
                * self.ways[known.quote].near(&self.state.marks)
        };
        // NaN stays NaN: nobody knows.
        if power < 0.0 { 0.0 } else { power }
    }

    /// What keeps [`Ledger::equity`] from being known: symbols without a mark, currencies without a rate.
    pub fn unknown(&self) -> Vec<String> {
        let held = self.held.iter().map(|&instrument| instrument as usize);
        let marks = held
            .clone()
            .filter(|&i| self.state.marks[i].is_nan())
            .map(|i| self.instruments[i].symbol.clone());
        let mut unknown: Vec<String> = marks.collect();
        for (place, purse) in self.state.purses.iter().enumerate() {
            let needed = !purse.cash.is_zero() || held.clone().any(|i| self.known[i].quote == place);
            if needed && self.ways[place].near(&self.state.marks).is_nan() {
                unknown.push(purse.name.clone());
            }
        }
        unknown
    }

    /// Why free margin is not known, and what to do about it.
    pub(super) fn what_is_unknown(&self) -> String {
        for &instrument in &self.held {
            if self.state.marks[instrument as usize].is_nan() {
                let symbol = &self.instruments[instrument as usize].symbol;
                return format!(
                    "{symbol} is held and no price of it has been seen: nothing is opened before there is market data of it"
                );
            }
        }
        let unknown = self.unknown();
        match self.state.purses.iter().find(|purse| unknown.contains(&purse.name)) {
            Some(purse) => self.no_rate_of(&purse.name),
            None => "a value of something held has more digits than 28".into(),
        }
    }

    pub(super) fn no_rate_of(&self, currency: &str) -> String {
        let own = &self.params.currency;
        let by = self.params.rates.iter().find(|rate| rate.from == currency || rate.to == currency);
        match by.and_then(|rate| rate.symbol.as_ref()) {
            Some(symbol) => {
                format!("no rate of {currency} to {own} is known: no price of {symbol} has been seen yet")
            }
            None => format!(
                "no rate of {currency} to {own} is known: add one to `account.rates`, such as {{ from: {currency}, to: {own}, symbol: {currency}{own} }}"
            ),
        }
    }
}
