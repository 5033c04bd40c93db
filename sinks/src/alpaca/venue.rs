//! Alpaca as a venue: its requests, and what its answers mean.

use async_trait::async_trait;
use serde::Serialize;
use tidemill_connectors::alpaca::trading::client::Found as At;
use tidemill_connectors::alpaca::trading::wire::{NewOrder, Order, ReplaceOrder};
use tidemill_connectors::alpaca::trading::{Client, Lost, Verdict, venue_id, verdict};
use tidemill_connectors::broker::journal::Request;
use tidemill_trading::Decimal;
use tidemill_trading::order::{OrderType, Side, TimeInForce, Trail};

use super::ReduceOnly;
use crate::broker::command::{Ask, Command};
use crate::broker::{Answer, Found, Leave, Venue};

/// Alpaca's Trading API: <https://docs.alpaca.markets/docs/orders-at-alpaca>.
pub struct AlpacaVenue {
    client: Client,
    reduce_only: ReduceOnly,
    extended_hours: bool,
}

fn text(value: Decimal) -> String {
    value.normalize().to_string()
}

fn percent(fraction: Decimal) -> Result<String, String> {
    fraction.checked_mul(Decimal::ONE_HUNDRED).map(text).ok_or_else(|| "trail_fraction: too large".into())
}

fn json<T: Serialize>(method: &str, path: String, body: &T) -> Result<Request, String> {
    let body = serde_json::to_string(body).map_err(|e| e.to_string())?;
    Ok(Request { method: method.into(), path, body: Some(body) })
}

impl AlpacaVenue {
    /// Of an account.
    pub fn new(client: Client, reduce_only: ReduceOnly, extended_hours: bool) -> Self {
        Self { client, reduce_only, extended_hours }
    }

    fn order(&self, command: &Command) -> Result<NewOrder, String> {
        let Ok(Ask::New { side, quantity, order_type, time_in_force, post_only, reduce_only }) = &command.ask
        else {
            return Err("it is no order".into());
        };
        if *post_only {
            return Err("alpaca has no post-only orders".into());
        }
        if *reduce_only && self.reduce_only == ReduceOnly::Refuse {
            return Err("alpaca has no reduce-only orders, and the sink has `reduce_only: refuse`".into());
        }
        let mut order = NewOrder {
            symbol: command.asked.symbol.clone(),
            qty: text(*quantity),
            side: if *side == Side::Buy { "buy" } else { "sell" },
            time_in_force: match time_in_force {
                TimeInForce::Day => "day",
                // Shares that are not whole are traded by the day only.
                TimeInForce::Gtc if is_fraction(&command.asked.symbol, *quantity) => "day",
                TimeInForce::Gtc => "gtc",
                TimeInForce::Ioc => "ioc",
                TimeInForce::Fok => "fok",
                TimeInForce::Gtd(_) => return Err("alpaca has no orders that are good till a date".into()),
            },
            client_order_id: command.asked.key.clone(),
            ..NewOrder::default()
        };
        match *order_type {
            OrderType::Market => order.order_type = "market",
            // It trades once the market is at the price or better, and not worse.
            OrderType::Limit { limit } | OrderType::TakeProfit { trigger: limit } => {
                order.order_type = "limit";
                order.limit_price = Some(text(limit));
                order.extended_hours = (self.extended_hours && order.time_in_force == "day").then_some(true);
            }
            OrderType::Stop { stop } => {
                order.order_type = "stop";
                order.stop_price = Some(text(stop));
            }
            OrderType::StopLimit { stop, limit } => {
                order.order_type = "stop_limit";
                order.stop_price = Some(text(stop));
                order.limit_price = Some(text(limit));
            }
            OrderType::TrailingStop { trail } => {
                order.order_type = "trailing_stop";
                match trail {
                    Trail::Amount(amount) => order.trail_price = Some(text(amount)),
                    Trail::Fraction(fraction) => order.trail_percent = Some(percent(fraction)?),
                }
            }
        }
        Ok(order)
    }
}

/// Whether shares are asked for that are not whole; coins have other rules, and `/` in their symbols.
fn is_fraction(symbol: &str, quantity: Decimal) -> bool {
    !quantity.fract().is_zero() && !symbol.contains('/')
}

/// Whether an order makes a position smaller, and does not turn it.
fn reduces(side: Side, quantity: Decimal, held: Decimal) -> bool {
    let closes = if held > Decimal::ZERO { Side::Sell } else { Side::Buy };
    !held.is_zero() && side == closes && quantity <= held.abs()
}

fn there(order: Order) -> Found {
    let over = matches!(order.status.as_str(), "filled" | "canceled" | "expired" | "rejected" | "replaced");
    Found::There { id: order.id, over }
}

fn found(verdict: Verdict) -> Found {
    match verdict {
        Verdict::NotUs(reason) => Found::Fatal(reason),
        Verdict::Busy(wait) => Found::Busy(wait),
        Verdict::Missing => Found::Missing,
        Verdict::Refused(reason) | Verdict::Unknown(reason) => Found::Unknown(reason),
        Verdict::Done | Verdict::Duplicate => {
            Found::Unknown("the answer is not what the venue documents".into())
        }
    }
}

#[async_trait]
impl Venue for AlpacaVenue {
    fn encode(&self, command: &Command, target: Option<&str>) -> Result<Request, String> {
        let target = || target.ok_or_else(|| "the venue has no order of this name".to_owned());
        match command.ask.as_ref().map_err(Clone::clone)? {
            Ask::New { .. } => json("POST", "/v2/orders".into(), &self.order(command)?),
            Ask::Modify { quantity, limit, stop, trail } => {
                // In the unit that the order was made with.
                let trail = match trail {
                    None => None,
                    Some(Trail::Amount(amount)) => Some(text(*amount)),
                    Some(Trail::Fraction(fraction)) => Some(percent(*fraction)?),
                };
                let change = ReplaceOrder {
                    qty: quantity.map(text),
                    limit_price: limit.map(text),
                    stop_price: stop.map(text),
                    trail,
                    client_order_id: command.asked.key.clone(),
                };
                json("PATCH", format!("/v2/orders/{}", target()?), &change)
            }
            Ask::Cancel => {
                Ok(Request { method: "DELETE".into(), path: format!("/v2/orders/{}", target()?), body: None })
            }
        }
    }

    async fn leave(&self, command: &Command) -> Leave {
        let Ok(Ask::New { side, quantity, reduce_only: true, .. }) = &command.ask else { return Leave::Yes };
        if self.reduce_only != ReduceOnly::Check {
            return Leave::Yes;
        }
        let symbol = &command.asked.symbol;
        let held = match self.client.position(symbol).await {
            Ok(position) => position.map_or(Some(Decimal::ZERO), |position| position.signed()),
            Err(Verdict::NotUs(reason)) => return Leave::Fatal(reason),
            Err(verdict) => {
                return Leave::Unknown(format!("the position of {symbol} is not told: {verdict:?}"));
            }
        };
        let Some(held) = held else {
            return Leave::Unknown(format!("the position of {symbol} has no quantity"));
        };
        if reduces(*side, *quantity, held) {
            return Leave::Yes;
        }
        let to = if *side == Side::Buy { "buy" } else { "sell" };
        Leave::No(format!(
            "not sent: to {to} {} was to make a position smaller, and alpaca has {} of {symbol}",
            text(*quantity),
            text(held)
        ))
    }

    fn clock(&self) -> Option<String> {
        self.client.skew().words()
    }

    async fn send(&self, request: &Request) -> Answer {
        let reply = match self.client.ask(&request.method, &request.path, request.body.as_deref()).await {
            Ok(reply) => reply,
            Err(Lost(reason)) => return Answer::Unknown(reason),
        };
        match verdict(&reply) {
            // A cancel has no body; an order has one, and if it is not whole the venue is asked.
            Verdict::Done if request.method == "DELETE" => Answer::Taken(None),
            Verdict::Done => match serde_json::from_slice::<Order>(&reply.body) {
                Ok(order) => Answer::Taken(Some(order.id)),
                Err(e) => Answer::Unknown(format!("the answer is no order: {e}")),
            },
            Verdict::Refused(reason) => Answer::Refused(reason),
            Verdict::Missing if request.method == "POST" => {
                Answer::Refused("alpaca knows no such asset, or no such address (HTTP 404)".into())
            }
            Verdict::Missing => Answer::Refused("alpaca has no such order (HTTP 404)".into()),
            Verdict::Duplicate => Answer::Duplicate,
            Verdict::Busy(wait) => Answer::Busy(wait),
            Verdict::Unknown(reason) => Answer::Unknown(reason),
            Verdict::NotUs(reason) => Answer::Fatal(reason),
        }
    }

    async fn find(&self, key: &str) -> Found {
        match self.client.order_by_client_id(key).await {
            At::Order(order) => there(*order),
            At::Missing => Found::Missing,
            At::NotSaid(verdict) => found(verdict),
        }
    }

    async fn resolve(&self, order: &str) -> Found {
        let mut at = self.client.order_by_client_id(order).await;
        // An order that somebody else made has the venue's id as its name.
        if at == At::Missing
            && let Some(id) = venue_id(order)
        {
            at = self.client.order(&id).await;
        }
        if let At::Order(first) = at {
            at = self.client.latest(*first).await;
        }
        match at {
            At::Order(order) => there(*order),
            At::Missing => Found::Missing,
            At::NotSaid(verdict) => found(verdict),
        }
    }
}

#[cfg(test)]
mod tests;
