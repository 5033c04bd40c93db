//! Each kind of order as Alpaca's documents write it, and what Alpaca does not have.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use serde_json::{Value, json};
use tidemill_connectors::alpaca::trading::{Access, Client};
use tidemill_engine::clock::Clock;
use tidemill_engine::component::StreamInfo;
use tidemill_engine::row;

use super::*;
use crate::broker::command::Columns;

const ID: &str = "00112233445566778899aabbccddeeff";

/// Rows of an order stream, from objects.
pub(crate) fn rows(objects: &[Value]) -> RecordBatch {
    let texts = ["event", "order_id", "symbol", "side", "type", "time_in_force"];
    let numbers = ["quantity", "price", "stop", "trail", "trail_fraction"];
    let flags = ["post_only", "reduce_only"];
    let field = |name: &str, t: DataType| Arc::new(Field::new(name, t, true));
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = vec![
        row::ts_array(objects.iter().map(|o| o["ts"].as_i64().unwrap_or(1)).collect()),
        row::u64_array(vec![7; objects.len()]),
        row::u64_array((0..objects.len() as u64).collect()),
    ];
    for name in texts {
        fields.push(field(name, DataType::Utf8));
        columns.push(Arc::new(objects.iter().map(|o| o[name].as_str()).collect::<StringArray>()));
    }
    for name in numbers {
        fields.push(field(name, DataType::Float64));
        columns.push(Arc::new(objects.iter().map(|o| o[name].as_f64()).collect::<Float64Array>()));
    }
    for name in flags {
        fields.push(field(name, DataType::Boolean));
        columns.push(Arc::new(objects.iter().map(|o| o[name].as_bool()).collect::<BooleanArray>()));
    }
    RecordBatch::try_new(row::stream_schema(&fields), columns).unwrap()
}

fn venue(reduce_only: ReduceOnly) -> AlpacaVenue {
    let access: Access =
        serde_json::from_value(json!({ "key": "K", "secret": "S", "requests_per_minute": 150 })).unwrap();
    AlpacaVenue::new(Client::new(&access, Duration::from_secs(1), Clock::System).unwrap(), reduce_only, false)
}

fn encode(venue: &AlpacaVenue, mut object: Value) -> Result<(String, Value), String> {
    if object["order_id"].is_null() {
        object["order_id"] = json!(ID);
    }
    let rows = rows(&[object]);
    let columns = Columns::plan(&StreamInfo { name: "orders".into(), schema: rows.schema() }).unwrap();
    let commands = columns.commands(&rows).unwrap();
    let request = venue.encode(&commands[0], Some("v-1"))?;
    let body = request.body.map_or(Value::Null, |b| serde_json::from_str(&b).unwrap());
    Ok((format!("{} {}", request.method, request.path), body))
}

#[test]
fn each_type_is_written_as_the_documents_do() {
    let venue = venue(ReduceOnly::Check);
    let base =
        json!({ "event": "order", "symbol": "AAPL", "side": "buy", "quantity": 0.1, "time_in_force": "day" });
    let wire = json!({ "symbol": "AAPL", "qty": "0.1", "side": "buy", "time_in_force": "day", "client_order_id": ID });
    let with = |base: &Value, more: &Value| {
        let mut all = base.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    for (row, more) in [
        (json!({ "type": "market" }), json!({ "type": "market" })),
        (json!({ "type": "limit", "price": 169.15 }), json!({ "type": "limit", "limit_price": "169.15" })),
        (json!({ "type": "take_profit", "stop": 170 }), json!({ "type": "limit", "limit_price": "170" })),
        (json!({ "type": "stop", "stop": 1e-8 }), json!({ "type": "stop", "stop_price": "0.00000001" })),
        (
            json!({ "type": "stop_limit", "stop": 10.5, "price": 10, "time_in_force": "gtc", "side": "SELL", "quantity": 3 }),
            json!({ "type": "stop_limit", "stop_price": "10.5", "limit_price": "10", "time_in_force": "gtc", "side": "sell", "qty": "3" }),
        ),
        (
            json!({ "type": "trailing_stop", "trail": 2.5, "time_in_force": "ioc" }),
            json!({ "type": "trailing_stop", "trail_price": "2.5", "time_in_force": "ioc" }),
        ),
        (
            json!({ "type": "trailing_stop", "trail_fraction": 0.015, "time_in_force": "fok" }),
            json!({ "type": "trailing_stop", "trail_percent": "1.5", "time_in_force": "fok" }),
        ),
    ] {
        let (line, body) = encode(&venue, with(&base, &row)).unwrap();
        assert_eq!((line.as_str(), body), ("POST /v2/orders", with(&wire, &more)), "{row}");
    }
    let (line, body) = encode(&venue, json!({ "event": "cancel", "symbol": "AAPL" })).unwrap();
    assert_eq!((line.as_str(), body), ("DELETE /v2/orders/v-1", Value::Null));
    let change = json!({ "event": "modify", "symbol": "AAPL", "quantity": 5, "price": 9.5 });
    let (line, body) = encode(&venue, change).unwrap();
    assert_eq!(
        (line.as_str(), &body["qty"], &body["limit_price"]),
        ("PATCH /v2/orders/v-1", &json!("5"), &json!("9.5"))
    );
    // The replacement has an id of its own, of the order's name and the row.
    let id = body["client_order_id"].as_str().unwrap();
    assert!(id.starts_with(&format!("{ID}-")) && id.len() == 49, "{id}");
}

#[test]
fn shares_that_are_not_whole_are_asked_for_by_the_day() {
    for (symbol, quantity, asked, sent) in [
        ("AAPL", 0.5, "gtc", "day"),
        ("AAPL", 10.000000001, "gtc", "day"),
        ("AAPL", 0.5, "day", "day"),
        ("AAPL", 10.0, "gtc", "gtc"),
        // The venue's own word on what it does not take.
        ("AAPL", 0.5, "ioc", "ioc"),
        ("AAPL", 0.5, "fok", "fok"),
        ("BTC/USD", 0.5, "gtc", "gtc"),
    ] {
        for (order_type, more) in
            [("market", json!({})), ("limit", json!({ "price": 9 })), ("stop", json!({ "stop": 8 }))]
        {
            let mut row = json!({ "event": "order", "symbol": symbol, "side": "sell", "type": order_type, "quantity": quantity,
                "time_in_force": asked, "reduce_only": true });
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let (_, body) = encode(&venue(ReduceOnly::Check), row).unwrap();
            assert_eq!(body["time_in_force"], sent, "{symbol} {quantity} {order_type} {asked}");
        }
    }
}

#[test]
fn an_order_reduces_what_it_does_not_turn() {
    for (side, quantity, held, fits) in [
        (Side::Sell, 5, 5, true),
        (Side::Sell, 4, 5, true),
        (Side::Sell, 6, 5, false),
        (Side::Sell, 1, 0, false),
        (Side::Sell, 1, -5, false),
        (Side::Buy, 5, -5, true),
        (Side::Buy, 6, -5, false),
        (Side::Buy, 1, 5, false),
    ] {
        assert_eq!(reduces(side, quantity.into(), held.into()), fits, "{side:?} {quantity} of {held}");
    }
}

#[test]
fn what_alpaca_does_not_have_and_what_makes_no_sense_is_refused() {
    let order = json!({ "event": "order", "symbol": "AAPL", "side": "buy", "type": "market", "quantity": 1 });
    for (more, words) in [
        (json!({ "post_only": true }), "no post-only"),
        (json!({ "reduce_only": true }), "no reduce-only"),
        (json!({ "time_in_force": "gtd" }), "good till a date"),
        (json!({ "time_in_force": "soon" }), "time_in_force: `soon`"),
        (json!({ "side": "hold" }), "side: `hold`"),
        (json!({ "type": "guess" }), "type: `guess`"),
        (json!({ "type": "limit" }), "price: a limit order needs one"),
        (json!({ "type": "stop" }), "stop: a stop order needs one"),
        (json!({ "type": "trailing_stop" }), "either `trail` or"),
        (json!({ "quantity": 0 }), "quantity: 0 is not above zero"),
        (json!({ "quantity": null }), "quantity: an order needs one"),
        (json!({ "quantity": 1e300 }), "no amount that can be sent"),
        (json!({ "symbol": null }), "symbol: an order needs one"),
        (json!({ "order_id": "abc" }), "32 hexadecimal digits"),
        (json!({ "event": "modify", "quantity": null }), "a change needs"),
    ] {
        let mut row = order.clone();
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reason = encode(&venue(ReduceOnly::Refuse), row).unwrap_err();
        assert!(reason.contains(words), "{more}: {reason}");
    }
    let mut closing = order.clone();
    closing["reduce_only"] = json!(true);
    for sent in [ReduceOnly::Plain, ReduceOnly::Check] {
        assert!(encode(&venue(sent), closing.clone()).is_ok());
    }
    // Other rows of `execution` are nobody's business here.
    let others = rows(&[json!({ "event": "fill", "order_id": ID }), json!({ "event": null })]);
    let columns = Columns::plan(&StreamInfo { name: "orders".into(), schema: others.schema() }).unwrap();
    assert_eq!(columns.commands(&others).unwrap(), []);
}
