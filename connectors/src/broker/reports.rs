//! The rows of a report stream: what a broker says of orders and of the account.
//!
//! | `event` | what it tells | columns that are set, beside `ts` and `at` |
//! |---|---|---|
//! | `accepted` | the order is at the venue | `order_id, symbol, venue_order_id` |
//! | `rejected` | the order was refused, and is over; also by the sink, before it was sent | `order_id, symbol, reason` |
//! | `filled` | an execution | `order_id, symbol, side, fill_id, fill_price, fill_quantity, fee, fee_currency, liquidity`, the order's `filled` and `quantity` |
//! | `replaced` | the order now has this quantity (filled part included) and prices | `order_id, symbol, quantity, price, stop, trail` |
//! | `change_rejected` | a change or a cancel was refused; the order stands as it was | `order_id, symbol, reason` |
//! | `canceled` | what was left of the order is cancelled | `order_id, symbol, reason` |
//! | `expired` | its time is over | `order_id, symbol, reason` |
//! | `cash` | cash came or went that no fill accounts for | `currency, cash` (signed), `reason`, `symbol`, `fill_id` (of the booking) |
//! | `split` | every unit became `quantity` units; prices are divided by it | `symbol, quantity, reason`, `fill_id` (of the booking) |
//! | `reconciling` | reports go on after a restart: orders may have been sent that no report told of; what is there, the next snapshot tells | |
//! | `snapshot_begin` | the account as the venue has it now follows, whole | |
//! | `snapshot_order` | a working order | `order_id, symbol, side, type, time_in_force, quantity, price, stop, trail, trail_fraction, filled, venue_order_id` |
//! | `snapshot_position` | units held; negative is short | `symbol, quantity, price` (average) |
//! | `snapshot_cash` | cash | `currency, cash` |
//! | `snapshot_end` | the snapshot is whole; without this row it is to be thrown away | |
//! | `alert` | something a person should look at | `reason` |
//! | `heartbeat` | nothing was said up to this time: it only lets time pass | |
//!
//! `reason` of a `cash` row is `funding`, `borrow`, `dividend`, `transfer`, `fee` or `other`; of the others, the venue's words.
//! `order_id` is the 32 hexadecimal digits that the order was named by. An order that was not made by Tidemill has the
//! venue's own id there, its dashes left out.
//!
//! **What a reader may conclude.** Each order that a sink was handed comes to `accepted` or `rejected` sooner or later, so an
//! order of which nothing was said yet is never concluded to be lost from its absence in a snapshot: it may have been
//! on its way. A fill comes once. Every change that a snapshot contains has come before its `snapshot_begin`; what comes after
//! `snapshot_end` is not in it. `ts` never goes back; `at` is the venue's own time of what is told.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Builder, RecordBatch, StringBuilder, StringDictionaryBuilder,
    TimestampNanosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};
use tidemill_engine::row;
use tidemill_trading::money::{Decimal, WIRE_SCALE, to_wire};

/// What a report tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The order is at the venue.
    Accepted,
    /// The order was refused, and is over.
    Rejected,
    /// An execution.
    Filled,
    /// The order has another quantity or other prices.
    Replaced,
    /// A change or a cancel was refused.
    ChangeRejected,
    /// What was left of the order is cancelled.
    Canceled,
    /// Its time is over.
    Expired,
    /// Cash came or went.
    Cash,
    /// Every unit became `quantity` units.
    Split,
    /// A snapshot of the account follows.
    SnapshotBegin,
    /// A working order of it.
    SnapshotOrder,
    /// A position of it.
    SnapshotPosition,
    /// A currency of it.
    SnapshotCash,
    /// The snapshot is whole.
    SnapshotEnd,
    /// Something a person should look at.
    Alert,
    /// Time passes.
    Heartbeat,
    /// A run goes on, and a snapshot of it follows.
    Reconciling,
}

impl Event {
    /// The word in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Filled => "filled",
            Self::Replaced => "replaced",
            Self::ChangeRejected => "change_rejected",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
            Self::Cash => "cash",
            Self::Split => "split",
            Self::SnapshotBegin => "snapshot_begin",
            Self::SnapshotOrder => "snapshot_order",
            Self::SnapshotPosition => "snapshot_position",
            Self::SnapshotCash => "snapshot_cash",
            Self::SnapshotEnd => "snapshot_end",
            Self::Alert => "alert",
            Self::Heartbeat => "heartbeat",
            Self::Reconciling => "reconciling",
        }
    }
}

/// A report: one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Event time, UTC nanoseconds; set when it is put into the log.
    pub ts: i64,
    /// The venue's own time of it, UTC nanoseconds.
    #[serde(default)]
    pub at: Option<i64>,
    /// What.
    pub event: Event,
    /// Which order.
    #[serde(default)]
    pub order_id: Option<String>,
    /// The venue's id of it.
    #[serde(default)]
    pub venue_order_id: Option<String>,
    /// Of what.
    #[serde(default)]
    pub symbol: Option<String>,
    /// `buy` or `sell`.
    #[serde(default)]
    pub side: Option<String>,
    /// `market`, `limit`, `stop`, `stop_limit` or `trailing_stop`.
    #[serde(default, rename = "type")]
    pub order_type: Option<String>,
    /// `day`, `gtc`, `ioc`, `fok`, or another word of the venue's.
    #[serde(default)]
    pub time_in_force: Option<String>,
    /// The whole quantity of an order, the signed one of a position, the new units for an old one of a split.
    #[serde(default)]
    pub quantity: Option<Decimal>,
    /// Limit price of an order, average price of a position.
    #[serde(default)]
    pub price: Option<Decimal>,
    /// Trigger price.
    #[serde(default)]
    pub stop: Option<Decimal>,
    /// Distance of a trailing stop in price.
    #[serde(default)]
    pub trail: Option<Decimal>,
    /// The same as a fraction of the price.
    #[serde(default)]
    pub trail_fraction: Option<Decimal>,
    /// Units of the order that were filled.
    #[serde(default)]
    pub filled: Option<Decimal>,
    /// The venue's id of an execution, or of a booking.
    #[serde(default)]
    pub fill_id: Option<String>,
    /// Its price.
    #[serde(default)]
    pub fill_price: Option<Decimal>,
    /// Its units, above zero.
    #[serde(default)]
    pub fill_quantity: Option<Decimal>,
    /// What it cost.
    #[serde(default)]
    pub fee: Option<Decimal>,
    /// In which currency.
    #[serde(default)]
    pub fee_currency: Option<String>,
    /// `maker` or `taker`, where the venue says so.
    #[serde(default)]
    pub liquidity: Option<String>,
    /// The venue's words; what cash moved for.
    #[serde(default)]
    pub reason: Option<String>,
    /// Cash: what there is (`snapshot_cash`), or what was added (`cash`).
    #[serde(default)]
    pub cash: Option<Decimal>,
    /// Currency of `cash`.
    #[serde(default)]
    pub currency: Option<String>,
}

impl Report {
    /// A report of which only `event` and the venue's time are set.
    pub fn new(event: Event, at: Option<i64>) -> Self {
        Self {
            ts: 0,
            at,
            event,
            order_id: None,
            venue_order_id: None,
            symbol: None,
            side: None,
            order_type: None,
            time_in_force: None,
            quantity: None,
            price: None,
            stop: None,
            trail: None,
            trail_fraction: None,
            filled: None,
            fill_id: None,
            fill_price: None,
            fill_quantity: None,
            fee: None,
            fee_currency: None,
            liquidity: None,
            reason: None,
            cash: None,
            currency: None,
        }
    }
}

/// The type of money in rows.
pub fn money_type() -> DataType {
    DataType::Decimal128(38, WIRE_SCALE as i8)
}

/// The columns of a report stream.
pub fn columns() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let symbol = |name: &str, nullable: bool| Field::new(name, row::symbol_type(), nullable);
    let money = |name: &str| Field::new(name, money_type(), true);
    Arc::new(Schema::new(vec![
        Field::new(row::TS, row::ts_type(), false),
        symbol("event", false),
        Field::new("at", row::ts_type(), true),
        text("order_id"),
        text("venue_order_id"),
        symbol("symbol", true),
        symbol("side", true),
        symbol("type", true),
        symbol("time_in_force", true),
        money("quantity"),
        money("price"),
        money("stop"),
        money("trail"),
        money("trail_fraction"),
        money("filled"),
        text("fill_id"),
        money("fill_price"),
        money("fill_quantity"),
        money("fee"),
        symbol("fee_currency", true),
        symbol("liquidity", true),
        text("reason"),
        money("cash"),
        symbol("currency", true),
    ]))
}

/// Reports as rows in the columns of [`columns`]. An amount that the wire form cannot hold is null.
pub fn batch(reports: &[Report]) -> Result<RecordBatch, ArrowError> {
    type Of<T> = fn(&Report) -> T;
    type Text = for<'a> fn(&'a Report) -> Option<&'a str>;
    let times = |of: Of<Option<i64>>| -> ArrayRef {
        let mut out = TimestampNanosecondBuilder::with_capacity(reports.len());
        reports.iter().for_each(|r| out.append_option(of(r)));
        Arc::new(out.finish().with_timezone("UTC"))
    };
    let text = |of: Text| -> ArrayRef {
        let mut out = StringBuilder::new();
        reports.iter().for_each(|r| out.append_option(of(r)));
        Arc::new(out.finish())
    };
    let symbol = |of: Text| -> ArrayRef {
        let mut out = StringDictionaryBuilder::<Int32Type>::new();
        reports.iter().for_each(|r| out.append_option(of(r)));
        Arc::new(out.finish())
    };
    let money = |of: Of<Option<Decimal>>| -> Result<ArrayRef, ArrowError> {
        let mut out =
            Decimal128Builder::with_capacity(reports.len()).with_precision_and_scale(38, WIRE_SCALE as i8)?;
        reports.iter().for_each(|r| out.append_option(of(r).and_then(to_wire)));
        Ok(Arc::new(out.finish()))
    };
    RecordBatch::try_new(
        columns(),
        vec![
            times(|r| Some(r.ts)),
            symbol(|r| Some(r.event.name())),
            times(|r| r.at),
            text(|r| r.order_id.as_deref()),
            text(|r| r.venue_order_id.as_deref()),
            symbol(|r| r.symbol.as_deref()),
            symbol(|r| r.side.as_deref()),
            symbol(|r| r.order_type.as_deref()),
            symbol(|r| r.time_in_force.as_deref()),
            money(|r| r.quantity)?,
            money(|r| r.price)?,
            money(|r| r.stop)?,
            money(|r| r.trail)?,
            money(|r| r.trail_fraction)?,
            money(|r| r.filled)?,
            text(|r| r.fill_id.as_deref()),
            money(|r| r.fill_price)?,
            money(|r| r.fill_quantity)?,
            money(|r| r.fee)?,
            symbol(|r| r.fee_currency.as_deref()),
            symbol(|r| r.liquidity.as_deref()),
            text(|r| r.reason.as_deref()),
            money(|r| r.cash)?,
            symbol(|r| r.currency.as_deref()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;

    use super::*;

    #[test]
    fn reports_become_rows_and_text_and_come_back() {
        let mut fill = Report::new(Event::Filled, Some(5));
        fill.ts = 7;
        fill.order_id = Some("00ff".into());
        fill.fill_price = Some(Decimal::new(16915, 2));
        let all = [fill.clone(), Report { ts: 8, ..Report::new(Event::SnapshotEnd, None) }];
        let rows = batch(&all).unwrap();
        let shown = |name: &str, i| array_value_to_string(rows.column_by_name(name).unwrap(), i).unwrap();
        assert_eq!((shown("event", 0), shown("event", 1)), ("filled".into(), "snapshot_end".into()));
        assert_eq!(shown("fill_price", 0), "169.150000000000000000");
        assert_eq!(shown("fill_price", 1), "");
        let text = serde_json::to_string(&fill).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), fill);
        // The word in rows is the word in the log.
        assert!(text.contains("\"event\":\"filled\""), "{text}");
    }
}
