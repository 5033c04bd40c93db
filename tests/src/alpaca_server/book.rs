//! The venue's books: orders, positions, cash, the account's history. Exact: nothing rounds.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidemill_engine::clock::Clock;
use tidemill_trading::Decimal;

/// An order as the venue keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The venue's id.
    pub id: String,
    /// The client's.
    pub client_id: String,
    /// What the client sent, with the venue's defaults.
    pub sent: Value,
    /// Units asked for.
    pub qty: Decimal,
    /// Units filled.
    pub filled: Decimal,
    /// Status.
    pub status: String,
    /// Who took its place.
    pub replaced_by: Option<String>,
    /// Whose place it took.
    pub replaces: Option<String>,
    /// When it came, and when it last changed.
    pub at: (i64, i64),
}

/// The books.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// In the order in which they were taken.
    pub orders: Vec<Kept>,
    /// Units by symbol.
    pub positions: BTreeMap<String, Decimal>,
    /// Dollars.
    pub cash: Decimal,
    /// Executions: the account's history.
    pub fills: Vec<Value>,
    /// Bookings that are no executions.
    pub bookings: Vec<Value>,
    /// Requests with a client order id that was there already.
    pub duplicates: u64,
    /// Cancels that were taken.
    pub cancels: u64,
    /// What working orders are about to sell (or buy back) cannot be sold again, and no order turns a position; as at the venue.
    pub holds: bool,
    ids: u64,
}

fn stamp(ns: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

fn amount(value: &Value) -> Option<Decimal> {
    value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_i64().map(Decimal::from))
}

fn text(value: Decimal) -> String {
    value.normalize().to_string()
}

/// An answer: status and body.
pub type Answer = (u16, Value);

fn refused(status: u16, code: i64, message: &str) -> Answer {
    (status, json!({ "code": code, "message": message }))
}

impl Kept {
    /// The order as the API shows it.
    pub fn shown(&self) -> Value {
        let mut order = self.sent.clone();
        for (name, value) in [
            ("id", json!(self.id)),
            ("client_order_id", json!(self.client_id)),
            ("qty", json!(text(self.qty))),
            ("filled_qty", json!(text(self.filled))),
            ("status", json!(self.status)),
            ("replaced_by", json!(self.replaced_by)),
            ("replaces", json!(self.replaces)),
            ("created_at", json!(stamp(self.at.0))),
            ("submitted_at", json!(stamp(self.at.0))),
            ("updated_at", json!(stamp(self.at.1))),
            ("asset_class", json!("us_equity")),
            ("order_class", json!("simple")),
            ("legs", json!(null)),
        ] {
            order[name] = value;
        }
        order
    }

    /// Whether it works.
    pub fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "new" | "accepted" | "partially_filled" | "pending_new")
    }
}

impl Book {
    fn now() -> i64 {
        Clock::System.now_ns()
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:08x}-3b76-47ec-b432-{:012x}", self.ids, self.ids)
    }

    /// An order by the client's id.
    pub fn by_client_id(&self, id: &str) -> Option<&Kept> {
        self.orders.iter().find(|o| o.client_id == id)
    }

    fn by_client_id_mut(&mut self, id: &str) -> Option<&mut Kept> {
        self.orders.iter_mut().find(|o| o.client_id == id)
    }

    fn by_id(&self, id: &str) -> Option<&Kept> {
        self.orders.iter().find(|o| o.id == id)
    }

    fn update(&self, event: &str, order: &Kept, more: &Value) -> String {
        let mut data = json!({ "event": event, "timestamp": stamp(order.at.1), "order": order.shown() });
        if let (Some(data), Some(more)) = (data.as_object_mut(), more.as_object()) {
            data.extend(more.clone());
        }
        json!({ "stream": "trade_updates", "data": data }).to_string()
    }

    /// Takes a new order: the answer, and what is told of it.
    pub fn post(&mut self, body: &Value) -> (Answer, Vec<String>) {
        let said = |answer| (answer, Vec::new());
        let Some(client_id) = body["client_order_id"].as_str().filter(|id| !id.is_empty() && id.len() <= 128)
        else {
            return said(refused(422, 40_010_001, "client_order_id is required here"));
        };
        if self.by_client_id(client_id).is_some() {
            self.duplicates += 1;
            return said(refused(422, 40_010_001, "client_order_id must be unique"));
        }
        let Some(qty) = amount(&body["qty"]).filter(|qty| *qty > Decimal::ZERO) else {
            return said(refused(422, 40_010_001, "qty is required"));
        };
        if !qty.fract().is_zero() && body["time_in_force"] != "day" {
            return said(refused(422, 42_210_000, "fractional orders must be DAY orders"));
        }
        let symbol = body["symbol"].as_str().unwrap_or_default();
        match symbol {
            "NONE" => return said(refused(422, 42_210_000, "asset \"NONE\" not found")),
            "POOR" => return said(refused(403, 40_310_000, "insufficient buying power")),
            "" => return said(refused(422, 40_010_001, "symbol is required")),
            _ => {}
        }
        if !matches!(
            body["type"].as_str(),
            Some("market" | "limit" | "stop" | "stop_limit" | "trailing_stop")
        ) {
            return said(refused(422, 42_210_000, "invalid order type"));
        }
        if let Some(available) = self.available(symbol, body["side"] == "buy")
            && available < qty
        {
            let words = format!(
                "insufficient qty available for order (requested: {}, available: {})",
                text(qty),
                text(available)
            );
            return said(refused(403, 40_310_000, &words));
        }
        let (id, now) = (self.id(), Self::now());
        let order = Kept {
            id,
            client_id: client_id.to_owned(),
            sent: body.clone(),
            qty,
            filled: Decimal::ZERO,
            status: "new".into(),
            replaced_by: None,
            replaces: None,
            at: (now, now),
        };
        let mut told = vec![self.update("new", &order, &Value::Null)];
        self.orders.push(order);
        if body["type"] == "market" {
            // In two parts where there are two: each is told.
            let half = (qty / Decimal::TWO).floor();
            if half > Decimal::ZERO {
                told.extend(self.fill(client_id, half, "100.00"));
            }
            told.extend(self.fill(client_id, qty - half, "100.00"));
        }
        let shown = self.by_client_id(client_id).map_or(Value::Null, Kept::shown);
        ((200, shown), told)
    }

    /// Units that an order of this side may close; nothing where it opens, or where nothing is held back.
    fn available(&self, symbol: &str, buys: bool) -> Option<Decimal> {
        let held = self.positions.get(symbol).copied().unwrap_or_default();
        let closes = if buys { held < Decimal::ZERO } else { held > Decimal::ZERO };
        if !self.holds || !closes {
            return None;
        }
        let same = |o: &&Kept| o.is_open() && o.sent["symbol"] == symbol && (o.sent["side"] == "buy") == buys;
        let asked: Decimal = self.orders.iter().filter(same).map(|o| o.qty - o.filled).sum();
        Some(held.abs() - asked)
    }

    /// Every unit of a symbol becomes `new / old` units: the two bookings of a split, the second where the test wants it.
    pub fn split(&mut self, symbol: &str, new: i64, old: i64) -> [Value; 2] {
        let before = self.positions.get(symbol).copied().unwrap_or_default();
        let after = before * Decimal::from(new) / Decimal::from(old);
        let day = stamp(Self::now()).split('T').next().unwrap_or_default().to_owned();
        let words = format!("From QTY:{}, To QTY:{}, Position Value:1000", text(-before), text(after));
        [("REMOVE", -before), ("ADD", after)].map(|(what, qty)| {
            let id = self.id();
            json!({ "id": format!("{}::{id}", day.replace('-', "")), "activity_type": "SPLIT", "date": day, "net_amount": "0",
                "symbol": symbol, "qty": text(qty), "description": format!("{what}, {words}"), "status": "executed" })
        })
    }

    /// Changes an order.
    pub fn patch(&mut self, id: &str, body: &Value) -> (Answer, Vec<String>) {
        let said = |answer| (answer, Vec::new());
        let client_id = body["client_order_id"].as_str().unwrap_or_default().to_owned();
        if self.by_client_id(&client_id).is_some() {
            self.duplicates += 1;
            return said(refused(422, 40_010_001, "client_order_id must be unique"));
        }
        let Some(old) = self.by_id(id).cloned() else {
            return said(refused(404, 40_410_000, &format!("order not found for {id}")));
        };
        let qty = amount(&body["qty"]).unwrap_or(old.qty);
        if !old.is_open() || qty <= old.filled {
            return said(refused(
                422,
                42_210_000,
                "unable to replace order, order isn't sent to exchange yet",
            ));
        }
        let (new_id, now) = (self.id(), Self::now());
        let mut sent = old.sent.clone();
        for name in ["limit_price", "stop_price"] {
            if !body[name].is_null() {
                sent[name] = body[name].clone();
            }
        }
        let new = Kept {
            id: new_id.clone(),
            client_id,
            sent,
            qty,
            replaces: Some(old.id.clone()),
            at: (now, now),
            ..old.clone()
        };
        let mut told = Vec::new();
        if let Some(old) = self.orders.iter_mut().find(|o| o.id == id) {
            old.status = "replaced".into();
            old.replaced_by = Some(new_id);
            old.at.1 = now;
        }
        if let Some(old) = self.by_id(id) {
            told.push(self.update("replaced", old, &Value::Null));
        }
        told.push(self.update("new", &new, &Value::Null));
        let shown = new.shown();
        self.orders.push(new);
        ((200, shown), told)
    }

    /// Takes an order back.
    pub fn delete(&mut self, id: &str) -> (Answer, Vec<String>) {
        let Some(order) = self.by_id(id).cloned() else {
            return (refused(404, 40_410_000, &format!("order not found for {id}")), Vec::new());
        };
        if !order.is_open() {
            return (refused(422, 42_210_000, "order is not cancelable"), Vec::new());
        }
        self.cancels += 1;
        ((204, Value::Null), self.end(&order.client_id, "canceled"))
    }

    /// Ends an order.
    pub fn end(&mut self, client_id: &str, event: &str) -> Vec<String> {
        let Some(order) = self.by_client_id_mut(client_id) else { return Vec::new() };
        order.status = event.into();
        order.at.1 = Self::now();
        let order = order.clone();
        vec![self.update(event, &order, &Value::Null)]
    }

    /// Executes a part of an order.
    pub fn fill(&mut self, client_id: &str, quantity: Decimal, price: &str) -> Vec<String> {
        let Some(order) = self.by_client_id_mut(client_id) else { return Vec::new() };
        order.filled += quantity;
        order.status = if order.filled >= order.qty { "filled" } else { "partially_filled" }.into();
        order.at.1 = Self::now();
        let order = order.clone();
        let buys = order.sent["side"] == "buy";
        let symbol = order.sent["symbol"].as_str().unwrap_or_default().to_owned();
        let signed = if buys { quantity } else { -quantity };
        let position = self.positions.entry(symbol.clone()).or_default();
        *position += signed;
        let position = *position;
        self.cash -= signed * price.parse::<Decimal>().unwrap_or_default();
        let execution = format!("{:08x}-ec48-4c6f-9e0e-{:012x}", self.fills.len(), self.fills.len());
        let event = if order.status == "filled" { "fill" } else { "partial_fill" };
        let day = chrono::DateTime::from_timestamp_nanos(order.at.1).format("%Y%m%d%H%M%S%3f");
        self.fills.push(json!({
            "activity_type": "FILL", "id": format!("{day}::{execution}"), "symbol": symbol, "order_id": order.id,
            "side": order.sent["side"], "qty": text(quantity), "price": price, "type": event,
            "cum_qty": text(order.filled), "leaves_qty": text(order.qty - order.filled),
            "transaction_time": stamp(order.at.1), "order_status": order.status,
        }));
        let more = json!({ "execution_id": execution, "price": price, "qty": text(quantity),
            "position_qty": text(position) });
        vec![self.update(event, &order, &more)]
    }

    /// By the symbol of orders or that of positions, which have no `/` in those of coins.
    fn position(&self, symbol: &str) -> Option<Value> {
        let shown = symbol.replace('/', "");
        let (pair, qty) = self.positions.iter().find(|(pair, _)| pair.replace('/', "") == shown)?;
        if qty.is_zero() {
            return None;
        }
        let side = if *qty > Decimal::ZERO { "long" } else { "short" };
        let class = if pair.contains('/') { "crypto" } else { "us_equity" };
        Some(
            json!({ "symbol": shown, "asset_class": class, "qty": text(*qty), "avg_entry_price": "100", "side": side }),
        )
    }

    /// Answers a question.
    pub fn get(&self, path: &str, query: &BTreeMap<String, String>) -> Answer {
        match path {
            "/v2/orders:by_client_order_id" => {
                let id = query.get("client_order_id").map_or("", String::as_str);
                match self.by_client_id(id) {
                    Some(order) => (200, order.shown()),
                    None => refused(404, 40_410_000, &format!("order not found for {id}")),
                }
            }
            "/v2/orders" => {
                let open = self.orders.iter().filter(|o| o.is_open()).map(Kept::shown);
                (200, open.collect::<Vec<_>>().into())
            }
            "/v2/positions" => {
                let held = self.positions.keys().filter_map(|symbol| self.position(symbol));
                (200, held.collect::<Vec<_>>().into())
            }
            "/v2/account" => (200, json!({ "status": "ACTIVE", "currency": "USD", "cash": text(self.cash) })),
            "/v2/account/activities/FILL" => (200, page(&self.fills, query)),
            "/v2/account/activities" => (200, page(&self.bookings, query)),
            path if path.starts_with("/v2/positions/") => {
                match self.position(path.trim_start_matches("/v2/positions/")) {
                    Some(position) => (200, position),
                    None => refused(404, 40_410_000, "position does not exist"),
                }
            }
            path => match path.strip_prefix("/v2/orders/").and_then(|id| self.by_id(id)) {
                Some(order) => (200, order.shown()),
                None => refused(404, 40_410_000, "endpoint or order not found"),
            },
        }
    }
}

fn page(all: &[Value], query: &BTreeMap<String, String>) -> Value {
    let after = query.get("after").cloned().unwrap_or_default();
    let time =
        |a: &Value| a["transaction_time"].as_str().or(a["date"].as_str()).unwrap_or_default().to_owned();
    let size = query.get("page_size").and_then(|n| n.parse().ok()).unwrap_or(100).min(100);
    let mut found: Vec<&Value> = all.iter().filter(|a| time(a) >= after).collect();
    if let Some(token) = query.get("page_token") {
        let at = found.iter().position(|a| a["id"] == token.as_str()).map_or(0, |at| at + 1);
        found.drain(..at);
    }
    found.into_iter().take(size).cloned().collect::<Vec<_>>().into()
}
