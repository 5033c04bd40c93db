//! What a paper venue does, told by hand-worked examples, laws over random markets, and a slow matcher beside it.

mod changes;
mod examples;
mod laws;
mod queues;
mod reference;
mod times;

use std::sync::Arc;

use super::*;
use crate::market::Market;
use crate::order::{Order, OrderType, Side, TimeInForce, Trail};

pub(super) fn d(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

pub(super) fn instrument(more: serde_json::Value) -> Instrument {
    let mut all = serde_json::json!({ "symbol": "X" });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

/// A venue with one instrument, and everything that it said.
pub(super) struct Venue {
    pub paper: Paper,
    pub out: Vec<Report>,
}

/// A venue of these parameters, in which a share has ticks of a cent.
pub(super) fn venue(params: serde_json::Value) -> Venue {
    venue_of(params, serde_json::json!({}))
}

pub(super) fn venue_of(params: serde_json::Value, more: serde_json::Value) -> Venue {
    let params: PaperParams = serde_json::from_value(params).unwrap();
    let instruments: Arc<[Instrument]> = [instrument(more)].into();
    let paper = Paper::new(&params, instruments, Fees::default()).unwrap();
    Venue { paper, out: Vec::new() }
}

impl Venue {
    fn show(&mut self, ts: i64, market: Market) {
        let tick = Tick { ts, instrument: 0, market };
        // As the machine does, so that the short way is tested too.
        if self.paper.next_due() <= ts {
            self.paper.advance(ts, &mut self.out);
        }
        if self.paper.is_idle(0) {
            self.paper.observe(&tick);
        } else {
            self.paper.tick(&tick, &mut self.out);
        }
    }

    pub fn quote(&mut self, ts: i64, bid: f64, bid_size: f64, ask: f64, ask_size: f64) {
        self.show(ts, Market::Quote { bid, bid_size, ask, ask_size });
    }

    pub fn trade(&mut self, ts: i64, price: f64, size: f64) {
        self.show(ts, Market::Trade { price, size });
    }

    pub fn bar(&mut self, ts: i64, [open, high, low, close]: [f64; 4], volume: f64) {
        self.show(ts, Market::Bar { open, high, low, close, volume });
    }

    pub fn level(&mut self, ts: i64, side: Side, price: f64, size: f64) {
        self.show(ts, Market::Level { bid: side == Side::Buy, price, size });
    }

    pub fn halt(&mut self, ts: i64, on: bool) {
        self.show(ts, Market::Halt(on));
    }

    /// Sends an order, with no latency in effect at once.
    pub fn send(&mut self, ts: i64, order: Order) {
        self.paper.command(ts, &Command::New(order));
        self.paper.advance(ts, &mut self.out);
    }

    pub fn cancel(&mut self, ts: i64, id: u128) {
        self.paper.command(ts, &Command::Cancel { order: OrderId(id) });
        self.paper.advance(ts, &mut self.out);
    }

    pub fn modify(
        &mut self,
        ts: i64,
        id: u128,
        quantity: Option<&str>,
        limit: Option<&str>,
        stop: Option<&str>,
    ) {
        let (quantity, limit, stop) = (quantity.map(d), limit.map(d), stop.map(d));
        self.paper.command(ts, &Command::Modify { order: OrderId(id), quantity, limit, stop });
        self.paper.advance(ts, &mut self.out);
    }

    pub fn to(&mut self, ts: i64) {
        self.paper.advance(ts, &mut self.out);
    }

    /// What was said since this was asked last.
    pub fn said(&mut self) -> Vec<String> {
        self.out.drain(..).map(|report| text(&report)).collect()
    }

    #[track_caller]
    pub fn expect(&mut self, lines: &[&str]) {
        assert_eq!(self.said(), lines);
    }
}

/// A report as a line.
pub(super) fn text(report: &Report) -> String {
    let ts = report.ts;
    match &report.what {
        Said::Accepted { order } => format!("{ts} {} accepted", order.0),
        Said::Rejected { order, reason } => format!("{ts} {} rejected: {reason}", order.0),
        Said::Filled(fill) => {
            let maker = if fill.maker == Some(true) { "maker" } else { "taker" };
            format!(
                "{ts} {} filled {} at {} {maker}",
                fill.order.0,
                fill.quantity.normalize(),
                fill.price.normalize()
            )
        }
        Said::Replaced { order, quantity, limit, stop } => {
            let price =
                |price: &Option<Decimal>| price.map_or("-".into(), |price| price.normalize().to_string());
            format!("{ts} {} replaced {} {} {}", order.0, quantity.normalize(), price(limit), price(stop))
        }
        Said::ChangeRejected { order, reason } => format!("{ts} {} not changed: {reason}", order.0),
        Said::Canceled { order, reason: None } => format!("{ts} {} canceled", order.0),
        Said::Canceled { order, reason: Some(reason) } => format!("{ts} {} canceled: {reason}", order.0),
        Said::Expired { order } => format!("{ts} {} expired", order.0),
        other => format!("{ts} {other:?}"),
    }
}

pub(super) fn order(id: u128, side: Side, quantity: &str, order_type: OrderType) -> Order {
    Order {
        id: OrderId(id),
        instrument: 0,
        side,
        quantity: d(quantity),
        order_type,
        time_in_force: TimeInForce::Gtc,
        post_only: false,
        reduce_only: false,
    }
}

pub(super) fn market(id: u128, side: Side, quantity: &str) -> Order {
    order(id, side, quantity, OrderType::Market)
}

pub(super) fn limit(id: u128, side: Side, quantity: &str, limit: &str) -> Order {
    order(id, side, quantity, OrderType::Limit { limit: d(limit) })
}

pub(super) fn stop(id: u128, side: Side, quantity: &str, stop: &str) -> Order {
    order(id, side, quantity, OrderType::Stop { stop: d(stop) })
}

pub(super) fn with(order: Order, time_in_force: TimeInForce) -> Order {
    Order { time_in_force, ..order }
}

pub(super) fn trailing(id: u128, side: Side, quantity: &str, trail: Trail) -> Order {
    order(id, side, quantity, OrderType::TrailingStop { trail })
}
