//! The machine as a whole: scripts with hand-worked answers.

mod alerts;
mod algos;
mod asked;
mod bad;
mod beside;
mod changes;
mod closing;
mod exits;
mod external;
mod laws;
mod limits;
mod paper;
mod protection;
mod rumours;
mod samples;
mod snapshots;
mod splits;
mod trading;

use serde_json::{Value, json};

use super::params::ExecutionParams;
use super::*;
use crate::event::Happened;
use crate::market::Market;
use crate::order::{Command, Status};
use crate::report::{Fill, Said};
use crate::signal::{OrderWish, Want};

pub const S: i64 = 1_000_000_000;

pub fn d(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

/// Parameters: what every test needs, with what a test wants in its place.
pub fn params(with: Value) -> ExecutionParams {
    let mut base = json!({
        "signals": "signals",
        "account": { "cash": { "USD": 10000 } },
        "sizing": { "fixed": 10 },
        "sample": 0,
    });
    for (key, value) in with.as_object().unwrap() {
        base[key] = value.clone();
    }
    serde_json::from_value(base).unwrap()
}

/// A machine and what it told.
pub struct Desk {
    pub machine: Execution,
    pub events: Vec<Event>,
    seq: u64,
}

impl Desk {
    pub fn new(with: Value) -> Self {
        let machine = Execution::new(params(with), "job", "node").unwrap_or_else(|wrong| panic!("{wrong:?}"));
        Self { machine, events: Vec::new(), seq: 0 }
    }

    pub fn id(&mut self, symbol: &str) -> InstrumentId {
        self.machine.instrument(symbol).unwrap()
    }

    pub fn tick(&mut self, ts: i64, symbol: &str, market: Market) -> Vec<String> {
        let from = self.events.len();
        let instrument = self.id(symbol);
        self.machine.market(&Tick { ts, instrument, market }, &mut self.events);
        self.told(from)
    }

    pub fn trade(&mut self, ts: i64, price: f64) -> Vec<String> {
        self.tick(ts, "A", Market::Trade { price, size: 1000.0 })
    }

    pub fn quote(&mut self, ts: i64, bid: f64, ask: f64) -> Vec<String> {
        self.tick(ts, "A", Market::Quote { bid, bid_size: 1000.0, ask, ask_size: 1000.0 })
    }

    pub fn signal_with(&mut self, ts: i64, want: Want, change: impl FnOnce(&mut Signal)) -> Vec<String> {
        let from = self.events.len();
        let instrument = self.id("A");
        self.seq += 1;
        let mut signal = Signal {
            ts,
            src: 1,
            seq: self.seq,
            instrument,
            want,
            strength: 1.0,
            order: OrderWish::default(),
            atr: None,
            volatility: None,
            expected: None,
            stop_loss: None,
            take_profit: None,
        };
        change(&mut signal);
        self.machine.signal(&signal, &mut self.events);
        self.told(from)
    }

    pub fn want(&mut self, ts: i64, want: Want) -> Vec<String> {
        self.signal_with(ts, want, |_| {})
    }

    pub fn advance(&mut self, to: i64) -> Vec<String> {
        let from = self.events.len();
        self.machine.advance(to, &mut self.events);
        self.told(from)
    }

    pub fn control(&mut self, ts: i64, control: Control) -> Vec<String> {
        let from = self.events.len();
        self.machine.control(ts, control, "a test", &mut self.events);
        self.told(from)
    }

    pub fn say(&mut self, ts: i64, what: Said) -> Vec<String> {
        let from = self.events.len();
        self.machine.report(&Report { ts, what }, &mut self.events);
        self.told(from)
    }

    fn told(&self, from: usize) -> Vec<String> {
        self.events[from..].iter().filter_map(|e| text(&e.what)).collect()
    }

    pub fn position(&mut self) -> Decimal {
        let i = self.id("A");
        self.machine.ledger.quantity(i)
    }

    /// The order that works, where there is one.
    pub fn order(&self) -> OrderId {
        let orders: Vec<_> = self.machine.own.orders.iter().collect();
        assert_eq!(orders.len(), 1, "{orders:?}");
        orders[0].order.id
    }

    pub fn working(&self) -> Vec<String> {
        self.machine.own.orders.iter().map(|o| order_text(&o.order)).collect()
    }
}

fn order_text(order: &crate::order::Order) -> String {
    let side = if order.side == crate::order::Side::Buy { "buy" } else { "sell" };
    let kind = match order.order_type {
        crate::order::OrderType::Market => "market".to_owned(),
        crate::order::OrderType::Limit { limit } => format!("limit {}", limit.normalize()),
        crate::order::OrderType::Stop { stop } => format!("stop {}", stop.normalize()),
        crate::order::OrderType::StopLimit { stop, limit } => {
            format!("stop {} limit {}", stop.normalize(), limit.normalize())
        }
        crate::order::OrderType::TrailingStop { trail } => format!("trailing {trail:?}"),
        crate::order::OrderType::TakeProfit { trigger } => format!("take {}", trigger.normalize()),
    };
    format!("{side} {} {kind}", order.quantity.normalize())
}

/// An event as tests write it; positions and samples are left out.
fn text(what: &Happened) -> Option<String> {
    Some(match what {
        Happened::Sent { command: Command::New(order), .. } => order_text(order),
        Happened::Sent { command: Command::Modify { quantity, limit, stop, .. }, .. } => {
            format!(
                "modify {:?} {:?} {:?}",
                quantity.map(|q| q.normalize()),
                limit.map(|l| l.normalize()),
                stop.map(|s| s.normalize())
            )
        }
        Happened::Sent { command: Command::Cancel { .. }, .. } => "cancel".into(),
        Happened::Refused { rule, .. } => format!("refused {rule}"),
        Happened::Order { status, .. } => status.name().into(),
        Happened::Filled { fill, position, .. } => {
            format!(
                "fill {} at {} -> {}",
                fill.quantity.normalize(),
                fill.price.normalize(),
                position.normalize()
            )
        }
        Happened::Cash { amount, reason, .. } => format!("cash {} {reason:?}", amount.normalize()),
        Happened::State { state, .. } => format!("{state:?}"),
        Happened::Alert { code, .. } => format!("alert {code}"),
        Happened::Position(_) | Happened::Equity(_) => return None,
    })
}
