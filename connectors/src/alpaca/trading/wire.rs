//! The Trading API's objects. Amounts are text on the wire, and read exactly; numbers are taken too.

use serde::{Deserialize, Deserializer, Serialize};
use tidemill_engine::json::time::parse_rfc3339;
use tidemill_trading::Decimal;
use tidemill_trading::money::Exact;

/// A time as the venue writes it (RFC 3339), in UTC nanoseconds; nothing where it is missing or odd.
pub fn time(text: Option<&str>) -> Option<i64> {
    text.and_then(parse_rfc3339)
}

/// An amount that may be missing, null or empty.
fn amount<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Decimal>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Amount(Exact),
        Other(String),
    }
    match Option::<Text>::deserialize(d)? {
        None => Ok(None),
        Some(Text::Amount(exact)) => Ok(Some(exact.0)),
        Some(Text::Other(text)) if text.is_empty() => Ok(None),
        // More digits than fit: averages may have them.
        Some(Text::Other(text)) => text
            .parse()
            .map(Some)
            .map_err(|_| serde::de::Error::custom(format_args!("`{text}` is no amount"))),
    }
}

/// An order: <https://docs.alpaca.markets/reference/getorderbyorderid>.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Order {
    /// The venue's id.
    pub id: String,
    /// Ours.
    #[serde(default)]
    pub client_order_id: String,
    /// Symbol.
    #[serde(default)]
    pub symbol: String,
    /// `new`, `partially_filled`, `filled`, `done_for_day`, `canceled`, `expired`, `replaced`, `pending_cancel`, `pending_replace`,
    /// `accepted`, `pending_new`, `accepted_for_bidding`, `stopped`, `rejected`, `suspended`, `calculated`, `held`.
    #[serde(default)]
    pub status: String,
    /// `buy` or `sell`.
    #[serde(default)]
    pub side: String,
    /// `market`, `limit`, `stop`, `stop_limit` or `trailing_stop`.
    #[serde(default, rename = "type")]
    pub order_type: String,
    /// `day`, `gtc`, `opg`, `cls`, `ioc`, `fok`.
    #[serde(default)]
    pub time_in_force: String,
    /// The whole quantity; nothing where the order is for an amount of money.
    #[serde(default, deserialize_with = "amount")]
    pub qty: Option<Decimal>,
    /// Units filled.
    #[serde(default, deserialize_with = "amount")]
    pub filled_qty: Option<Decimal>,
    /// Their average price.
    #[serde(default, deserialize_with = "amount")]
    pub filled_avg_price: Option<Decimal>,
    /// Limit price.
    #[serde(default, deserialize_with = "amount")]
    pub limit_price: Option<Decimal>,
    /// Trigger price.
    #[serde(default, deserialize_with = "amount")]
    pub stop_price: Option<Decimal>,
    /// Distance of a trailing stop in price.
    #[serde(default, deserialize_with = "amount")]
    pub trail_price: Option<Decimal>,
    /// The same in percent.
    #[serde(default, deserialize_with = "amount")]
    pub trail_percent: Option<Decimal>,
    /// The order that took its place.
    #[serde(default)]
    pub replaced_by: Option<String>,
    /// The order whose place it took.
    #[serde(default)]
    pub replaces: Option<String>,
    /// When it was sent.
    #[serde(default)]
    pub submitted_at: Option<String>,
    /// When it last changed.
    #[serde(default)]
    pub updated_at: Option<String>,
}

impl Order {
    /// Its name in the graph.
    pub fn name(&self) -> String {
        super::order_name(&self.client_order_id, &self.id)
    }

    /// Units filled.
    pub fn filled(&self) -> Decimal {
        self.filled_qty.unwrap_or_default()
    }
}

/// A new order: <https://docs.alpaca.markets/reference/postorder>.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NewOrder {
    /// Symbol.
    pub symbol: String,
    /// Units.
    pub qty: String,
    /// `buy` or `sell`.
    pub side: &'static str,
    /// Type.
    #[serde(rename = "type")]
    pub order_type: &'static str,
    /// Time in force.
    pub time_in_force: &'static str,
    /// Limit price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_price: Option<String>,
    /// Trigger price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_price: Option<String>,
    /// Distance in price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trail_price: Option<String>,
    /// Distance in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trail_percent: Option<String>,
    /// Whether it may trade outside regular hours (limit orders).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extended_hours: Option<bool>,
    /// Our id of it.
    pub client_order_id: String,
}

/// A change of an order: <https://docs.alpaca.markets/reference/patchorderbyorderid-1>.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplaceOrder {
    /// The whole quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qty: Option<String>,
    /// Limit price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_price: Option<String>,
    /// Trigger price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_price: Option<String>,
    /// Distance of a trailing stop, in the unit that it was made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trail: Option<String>,
    /// Our id of the order that takes its place.
    pub client_order_id: String,
}

/// A position: <https://docs.alpaca.markets/reference/getallopenpositions>.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Position {
    /// Symbol; of coins without the `/` that it has in orders.
    pub symbol: String,
    /// `us_equity`, `crypto`, ….
    #[serde(default)]
    pub asset_class: String,
    /// Units; negative when short.
    #[serde(default, deserialize_with = "amount")]
    pub qty: Option<Decimal>,
    /// Average price.
    #[serde(default, deserialize_with = "amount")]
    pub avg_entry_price: Option<Decimal>,
    /// `long` or `short`.
    #[serde(default)]
    pub side: String,
}

impl Position {
    /// Units, signed; nothing where the venue does not say.
    pub fn signed(&self) -> Option<Decimal> {
        self.qty.map(|qty| if self.side == "short" { -qty.abs() } else { qty })
    }
}

/// The account: <https://docs.alpaca.markets/reference/getaccount-1>.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Account {
    /// `ACTIVE`, or why not.
    #[serde(default)]
    pub status: String,
    /// Currency.
    #[serde(default)]
    pub currency: String,
    /// Cash; may be negative on margin.
    #[serde(default, deserialize_with = "amount")]
    pub cash: Option<Decimal>,
    /// Orders are refused.
    #[serde(default)]
    pub trading_blocked: bool,
    /// Everything is refused.
    #[serde(default)]
    pub account_blocked: bool,
}

/// An entry of the account's history: <https://docs.alpaca.markets/docs/account-activities>.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Activity {
    /// Its id, a time and a UUID: pages go on behind it.
    pub id: String,
    /// `FILL`, `DIV`, `FEE`, `INT`, `CSD`, ….
    #[serde(default)]
    pub activity_type: String,
    /// Symbol.
    #[serde(default)]
    pub symbol: Option<String>,
    /// The order that was filled, by the venue's id.
    #[serde(default)]
    pub order_id: Option<String>,
    /// `buy`, `sell` or `sell_short`.
    #[serde(default)]
    pub side: Option<String>,
    /// Units of the execution; of a booking the units that came (or went, negative).
    #[serde(default, deserialize_with = "amount")]
    pub qty: Option<Decimal>,
    /// Its price.
    #[serde(default, deserialize_with = "amount")]
    pub price: Option<Decimal>,
    /// Units of the order that were filled with it.
    #[serde(default, deserialize_with = "amount")]
    pub cum_qty: Option<Decimal>,
    /// When it was executed.
    #[serde(default)]
    pub transaction_time: Option<String>,
    /// The day of an entry that is no trade.
    #[serde(default)]
    pub date: Option<String>,
    /// When it was booked.
    #[serde(default)]
    pub created_at: Option<String>,
    /// What kind of its type it is: of splits `FSPLIT` (forward), `RSPLIT` (reverse), `USPLIT` (units into their parts).
    #[serde(default)]
    pub activity_sub_type: Option<String>,
    /// The venue's words: `REMOVE, From QTY:-10, To QTY:30, …` and `ADD, …` of the two legs of a split.
    #[serde(default)]
    pub description: Option<String>,
    /// What entries of one corporate action share.
    #[serde(default)]
    pub group_id: Option<String>,
    /// `executed`; `canceled` where it was taken back, `pending` where it is to come.
    #[serde(default)]
    pub status: Option<String>,
    /// Cash that came (or went, negative).
    #[serde(default, deserialize_with = "amount")]
    pub net_amount: Option<Decimal>,
}

/// A message of the stream of trade updates.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// `authorization`, `listening` or `trade_updates`.
    #[serde(default)]
    pub stream: String,
    /// What it says.
    #[serde(default)]
    pub data: serde_json::Value,
}

/// What is told of an order: <https://docs.alpaca.markets/docs/websocket-streaming#trade-updates>.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TradeUpdate {
    /// `new`, `fill`, `partial_fill`, `canceled`, `expired`, `rejected`, `replaced`, ….
    pub event: String,
    /// The execution's id.
    #[serde(default)]
    pub execution_id: Option<String>,
    /// Its price.
    #[serde(default, deserialize_with = "amount")]
    pub price: Option<Decimal>,
    /// Its units.
    #[serde(default, deserialize_with = "amount")]
    pub qty: Option<Decimal>,
    /// When.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// The order after it.
    pub order: Order,
}

/// What the venue says when it refuses: `{"code": 40310000, "message": "…"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// Its number for it.
    #[serde(default)]
    pub code: Option<i64>,
    /// Its words.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly_from_text_and_numbers() {
        let order: Order = serde_json::from_str(
            r#"{"id":"x","qty":"0.1","filled_qty":271.0,"limit_price":null,"stop_price":"","unknown":[1],
               "filled_avg_price":"106.12345678901234567890123456789"}"#,
        )
        .unwrap();
        assert_eq!(order.qty.map(|q| q.to_string()).as_deref(), Some("0.1"));
        assert_eq!((order.filled(), order.limit_price, order.stop_price), (271.into(), None, None));
        assert!(order.filled_avg_price.is_some());
        assert!(serde_json::from_str::<Order>(r#"{"id":"x","qty":"ten"}"#).is_err());
    }

    #[test]
    fn the_documents_fill_activity_is_read() {
        let fill: Activity = serde_json::from_str(
            r#"{"activity_type":"FILL","cum_qty":"1","id":"20190524113406977::8efc7b9a-8b2b-4000-9955-d36e7db0df74",
               "leaves_qty":"0","price":"1.63","qty":"1","side":"buy","symbol":"LPCN","transaction_time":"2019-05-24T15:34:06.977Z",
               "order_id":"904837e3-3b76-47ec-b432-046db621571b","type":"fill"}"#,
        )
        .unwrap();
        assert_eq!(fill.cum_qty, Some(Decimal::ONE));
        assert_eq!(time(fill.transaction_time.as_deref()), Some(1_558_712_046_977_000_000));
    }
}
