//! The market itself: event after event from a seed, with no engine in sight.

use rand::Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::{Emit, Params};

/// Events that share one random stream.
pub const BLOCK: u64 = 4096;
const DAY_S: f64 = 86_400.0;
/// Prices stay between the first price divided and multiplied by this.
const PRICE_FACTOR_MAX: f64 = 20.0;

/// One event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event {
    /// Event time, nanoseconds.
    pub ts: i64,
    /// Which symbol.
    pub symbol: usize,
    /// A trade; else a quote.
    pub is_trade: bool,
    /// Whether the buyer took the offer.
    pub is_buy: bool,
    /// Price of the trade.
    pub price: f64,
    /// Size of the trade.
    pub size: f64,
    /// Best bid.
    pub bid: f64,
    /// Size there.
    pub bid_size: f64,
    /// Best offer.
    pub ask: f64,
    /// Size there.
    pub ask_size: f64,
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    price: f64,
    regime: u8,
    up: bool,
}

/// A value on a grid of steps: 100.07, not 100.07000000000001.
#[derive(Clone, Copy, Debug)]
struct Grid {
    step: f64,
    /// Steps in 1, where that is a whole number.
    per_unit: Option<f64>,
}

impl Grid {
    fn new(step: f64) -> Self {
        let per_unit = (1.0 / step).round();
        let whole = ((1.0 / step - per_unit).abs() < 1e-6 && per_unit >= 1.0).then_some(per_unit);
        Self { step, per_unit: whole }
    }

    fn at(self, steps: f64) -> f64 {
        self.per_unit.map_or(steps * self.step, |n| steps / n)
    }
}

/// How one symbol trades.
#[derive(Clone, Copy, Debug)]
struct Terms {
    first_price: f64,
    price: Grid,
    size: Grid,
    half_spread: f64,
    /// Moves are this many times those of the regime.
    volatility: f64,
}

/// What a regime means per event.
#[derive(Clone, Copy, Debug)]
struct Step {
    drift: f64,
    volatility: f64,
    leave: f64,
}

/// The market, standing before its next event.
pub struct Market {
    seed: u64,
    emit: Emit,
    steps: Vec<Step>,
    gap_ns: f64,
    terms: Vec<Terms>,
    row: u64,
    ts: i64,
    symbols: Vec<Symbol>,
    rng: Pcg64,
    /// Time and symbols at the start of the block of the last event.
    block: (i64, Vec<Symbol>),
    identity: Identity,
}

/// A market at the start of a block, as checkpoints keep it.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// Events before the position.
    row: u64,
    /// Time at the start of the block.
    ts: i64,
    /// Prices at the start of the block, as bits: decimal text need not read back the same.
    prices: Vec<u64>,
    /// `2 * regime + up`.
    regimes: Vec<u8>,
    /// Which market; checkpoints of earlier versions do not say.
    #[serde(default)]
    market: Option<Identity>,
}

/// What decides the events of a market.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    seed: u64,
    /// Hash of the other settings that decide them; not of those that decide how many there are, and how fast.
    settings: u64,
}

impl Identity {
    fn of(params: &Params) -> Self {
        let Params { seed, symbols, count, start, rate, price, tick, lot, spread, regimes, emit, .. } =
            params;
        let settings =
            json!([symbols, count, start, rate, price, tick, lot, spread, regimes, emit]).to_string();
        Self { seed: *seed, settings: xxh3_64(settings.as_bytes()) }
    }
}

impl Market {
    /// A market of these symbols that opens at `start`.
    pub fn new(params: &Params, names: &[String], start: i64) -> Self {
        let steps = params.regimes.iter().map(|r| {
            let per_day = params.rate * DAY_S;
            let lasts_s = r.lasts.ns() as f64 / 1e9;
            Step {
                drift: r.drift / per_day,
                volatility: r.volatility / per_day.sqrt(),
                leave: (1.0 / (params.rate * lasts_s)).min(1.0),
            }
        });
        let n = names.len();
        let terms = names.iter().map(|name| {
            let own = params.instruments.get(name).cloned().unwrap_or_default();
            Terms {
                first_price: own.price.unwrap_or(params.price),
                price: Grid::new(own.tick.unwrap_or(params.tick)),
                size: Grid::new(own.lot.unwrap_or(params.lot)),
                half_spread: own.spread.unwrap_or(params.spread) / 2.0,
                volatility: own.volatility,
            }
        });
        let terms: Vec<Terms> = terms.collect();
        let symbols: Vec<Symbol> =
            terms.iter().map(|t| Symbol { price: t.first_price, regime: 0, up: true }).collect();
        Self {
            identity: Identity::of(params),
            seed: params.seed,
            emit: params.emit,
            steps: steps.collect(),
            gap_ns: 1e9 / (params.rate * n as f64),
            terms,
            row: 0,
            ts: start,
            block: (start, symbols.clone()),
            symbols,
            rng: Pcg64::new(0, 0),
        }
    }

    /// Goes on from a position.
    pub fn restore(params: &Params, names: &[String], position: &Value) -> Result<Self, String> {
        let n = names.len();
        let stored: Stored = serde_json::from_value(position.clone()).map_err(|e| e.to_string())?;
        let identity = Identity::of(params);
        match &stored.market {
            Some(read) if read.seed != identity.seed => {
                return Err(format!(
                    "it is one in the market of seed {}, and the graph has seed {} now; set it back, or run with `--from none`",
                    read.seed, identity.seed
                ));
            }
            Some(read) if *read != identity => {
                return Err(format!(
                    "it is one in a market of seed {} with other settings (symbols, start, rate, price, tick, lot, spread, regimes \
                     or emit); set them back, or run with `--from none`",
                    read.seed
                ));
            }
            Some(_) => {}
            None => tracing::warn!(
                "the checkpoint is of a version that did not note which market it is in: that it is the same is not checked"
            ),
        }
        if stored.prices.len() != n || stored.regimes.len() != n {
            return Err(format!("it has {} symbols, the graph has {n}", stored.prices.len()));
        }
        let mut market = Self::new(params, names, stored.ts);
        for ((symbol, bits), regime) in market.symbols.iter_mut().zip(&stored.prices).zip(&stored.regimes) {
            symbol.price = f64::from_bits(*bits);
            symbol.regime = (regime / 2).min(market.steps.len() as u8 - 1);
            symbol.up = regime % 2 == 1;
        }
        market.row = stored.row / BLOCK * BLOCK;
        // The first event of a block takes the block's random stream by itself.
        while market.row < stored.row {
            market.next();
        }
        Ok(market)
    }

    /// Events so far.
    pub fn row(&self) -> u64 {
        self.row
    }

    /// Time of the last event.
    pub fn ts(&self) -> i64 {
        self.ts
    }

    /// The position before the last event that [`next`](Self::next) gave.
    pub fn position(&self) -> Value {
        let (ts, symbols) = &self.block;
        let stored = Stored {
            row: self.row.saturating_sub(1),
            ts: *ts,
            prices: symbols.iter().map(|s| s.price.to_bits()).collect(),
            regimes: symbols.iter().map(|s| 2 * s.regime + u8::from(s.up)).collect(),
            market: Some(self.identity.clone()),
        };
        serde_json::to_value(stored).unwrap_or_default()
    }

    /// The next event.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Event {
        if self.row.is_multiple_of(BLOCK) {
            self.rng = Pcg64::new(u128::from(self.seed), u128::from(self.row / BLOCK));
            self.block.0 = self.ts;
            self.block.1.clone_from(&self.symbols);
        }
        self.row += 1;
        let rng = &mut self.rng;
        let wait: f64 = Exp1.sample(rng);
        self.ts = self.ts.saturating_add((wait * self.gap_ns) as i64);
        let i = ((u64::from(rng.random::<u32>()) * self.symbols.len() as u64) >> 32) as usize;
        let (symbol, terms) = (&mut self.symbols[i], self.terms[i]);
        let regime = self.steps[symbol.regime as usize];
        if rng.random::<f64>() < regime.leave {
            let others = self.steps.len().max(2) as u32 - 1;
            let hop = 1 + rng.random::<u32>() % others;
            symbol.regime = ((u32::from(symbol.regime) + hop) % self.steps.len() as u32) as u8;
            symbol.up = rng.random();
        }
        let noise: f64 = StandardNormal.sample(rng);
        let drift = if symbol.up { regime.drift } else { -regime.drift };
        symbol.price *= 1.0 + (terms.volatility * (drift + regime.volatility * noise)).clamp(-0.5, 0.5);
        // Far from home a price turns back, so that a long run neither vanishes nor overflows.
        let (low, high) = (terms.first_price / PRICE_FACTOR_MAX, terms.first_price * PRICE_FACTOR_MAX);
        if symbol.price < low || symbol.price > high {
            symbol.price = symbol.price.clamp(low, high);
            symbol.up = symbol.price == low;
        }
        let mid = symbol.price;
        let bits: u32 = rng.random();
        let is_trade = match self.emit {
            Emit::Trades => true,
            Emit::Quotes => false,
            Emit::Both => bits & 3 == 0,
        };
        let is_buy = bits & 4 != 0;
        let mut size = || {
            let draw: f64 = Exp1.sample(rng);
            terms.size.at(1.0 + (draw * 10.0).floor())
        };
        let (size, other_size) = (size(), size());
        let mid_ticks = mid / terms.price.step;
        let bid = (mid_ticks * (1.0 - terms.half_spread)).floor().max(1.0);
        let ask = (mid_ticks * (1.0 + terms.half_spread)).ceil().max(bid + 1.0);
        let price = |ticks: f64| terms.price.at(ticks);
        Event {
            ts: self.ts,
            symbol: i,
            is_trade,
            is_buy,
            price: price(if is_buy { ask } else { bid }),
            size,
            bid: price(bid),
            bid_size: size,
            ask: price(ask),
            ask_size: other_size,
        }
    }
}
