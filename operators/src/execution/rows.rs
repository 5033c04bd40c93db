//! Events as rows of one wide stream: each has the columns that belong to its `event`, the others are null.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, SchemaRef};
use tidemill_engine::operator::OperatorError;
use tidemill_engine::row;
use tidemill_trading::event::{Event, Happened, Reason, TradingState};
use tidemill_trading::instrument::Instrument;
use tidemill_trading::market::InstrumentId;
use tidemill_trading::money::{self, Decimal};
use tidemill_trading::order::{Command, Order, OrderType, Side, TimeInForce, Trail};
use tidemill_trading::report::CashReason;

use crate::columns::nullable;

/// An event's columns.
#[derive(Default)]
struct Row<'a> {
    event: &'static str,
    symbol: Option<&'a str>,
    order_id: Option<String>,
    side: Option<&'static str>,
    order_type: Option<&'static str>,
    time_in_force: Option<&'static str>,
    expires_at: Option<i64>,
    quantity: Option<Decimal>,
    price: Option<Decimal>,
    stop: Option<Decimal>,
    trail: Option<Decimal>,
    trail_fraction: Option<Decimal>,
    post_only: Option<bool>,
    reduce_only: Option<bool>,
    status: Option<&'static str>,
    filled: Option<Decimal>,
    fill_id: Option<&'a str>,
    fill_price: Option<Decimal>,
    fill_quantity: Option<Decimal>,
    fee: Option<Decimal>,
    fee_currency: Option<&'a str>,
    fee_value: Option<Decimal>,
    rate: Option<Decimal>,
    liquidity: Option<&'static str>,
    reason: Option<&'a str>,
    rule: Option<&'a str>,
    detail: Option<&'a str>,
    currency: Option<&'a str>,
    amount: Option<Decimal>,
    position: Option<Decimal>,
    average: Option<Decimal>,
    mark: f64,
    realized: f64,
    unrealized: f64,
    value: f64,
    liquidation: f64,
    liquidation_distance: f64,
    equity: f64,
    cash: f64,
    gross: f64,
    net: f64,
    margin: f64,
    fees_total: f64,
    drawdown: f64,
    state: Option<&'static str>,
}

fn decimal() -> DataType {
    DataType::Decimal128(38, money::WIRE_SCALE as i8)
}

/// Columns that are not the engine's, in order.
pub fn schema() -> SchemaRef {
    let text = || DataType::Utf8;
    let fields: Vec<(&str, DataType)> = vec![
        ("event", row::symbol_type()),
        ("symbol", row::symbol_type()),
        ("order_id", text()),
        ("side", row::symbol_type()),
        ("type", row::symbol_type()),
        ("time_in_force", row::symbol_type()),
        ("expires_at", row::ts_type()),
        ("quantity", decimal()),
        ("price", decimal()),
        ("stop", decimal()),
        ("trail", decimal()),
        ("trail_fraction", decimal()),
        ("post_only", DataType::Boolean),
        ("reduce_only", DataType::Boolean),
        ("status", row::symbol_type()),
        ("filled", decimal()),
        ("fill_id", text()),
        ("fill_price", decimal()),
        ("fill_quantity", decimal()),
        ("fee", decimal()),
        ("fee_currency", row::symbol_type()),
        ("fee_value", decimal()),
        ("rate", decimal()),
        ("liquidity", row::symbol_type()),
        ("reason", text()),
        ("rule", row::symbol_type()),
        ("detail", text()),
        ("currency", row::symbol_type()),
        ("amount", decimal()),
        ("position", decimal()),
        ("average", decimal()),
        ("mark", DataType::Float64),
        ("realized", DataType::Float64),
        ("unrealized", DataType::Float64),
        ("value", DataType::Float64),
        ("liquidation", DataType::Float64),
        ("liquidation_distance", DataType::Float64),
        ("equity", DataType::Float64),
        ("cash", DataType::Float64),
        ("gross", DataType::Float64),
        ("net", DataType::Float64),
        ("margin", DataType::Float64),
        ("fees_total", DataType::Float64),
        ("drawdown", DataType::Float64),
        ("state", row::symbol_type()),
    ];
    let fields: Vec<Arc<Field>> =
        fields.into_iter().map(|(name, t)| Arc::new(Field::new(name, t, name != "event"))).collect();
    row::stream_schema(&fields)
}

/// Rows of events; `_seq` counts on from `seq`, so that they are in total order.
pub fn batch(
    events: &[Event],
    instruments: &[Instrument],
    src: u64,
    seq: u64,
    schema: &SchemaRef,
) -> Result<RecordBatch, OperatorError> {
    let rows: Vec<Row> = events.iter().map(|e| of(&e.what, instruments)).collect();
    let rows = &rows[..];
    let words = |of: for<'r> fn(&'r Row) -> Option<&'r str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<DictionaryArray<Int32Type>>())
    };
    let texts = |of: for<'r> fn(&'r Row) -> Option<&'r str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let truths = |of: fn(&Row) -> Option<bool>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<BooleanArray>())
    };
    let floats = |of: fn(&Row) -> f64| nullable(rows.iter().map(of).collect());
    let exact = |of: fn(&Row) -> Option<Decimal>| -> ArrayRef {
        let wire = rows.iter().map(|r| of(r).and_then(wire)).collect::<Decimal128Array>();
        Arc::new(wire.with_data_type(decimal()))
    };
    let expires =
        rows.iter().map(|r| r.expires_at).collect::<TimestampNanosecondArray>().with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        row::ts_array(events.iter().map(|e| e.ts).collect()),
        row::u64_array(vec![src; events.len()]),
        row::u64_array((seq..).take(events.len()).collect()),
        words(|r| Some(r.event)),
        words(|r| r.symbol),
        texts(|r| r.order_id.as_deref()),
        words(|r| r.side),
        words(|r| r.order_type),
        words(|r| r.time_in_force),
        Arc::new(expires),
        exact(|r| r.quantity),
        exact(|r| r.price),
        exact(|r| r.stop),
        exact(|r| r.trail),
        exact(|r| r.trail_fraction),
        truths(|r| r.post_only),
        truths(|r| r.reduce_only),
        words(|r| r.status),
        exact(|r| r.filled),
        texts(|r| r.fill_id),
        exact(|r| r.fill_price),
        exact(|r| r.fill_quantity),
        exact(|r| r.fee),
        words(|r| r.fee_currency),
        exact(|r| r.fee_value),
        exact(|r| r.rate),
        words(|r| r.liquidity),
        texts(|r| r.reason),
        words(|r| r.rule),
        texts(|r| r.detail),
        words(|r| r.currency),
        exact(|r| r.amount),
        exact(|r| r.position),
        exact(|r| r.average),
        floats(|r| r.mark),
        floats(|r| r.realized),
        floats(|r| r.unrealized),
        floats(|r| r.value),
        floats(|r| r.liquidation),
        floats(|r| r.liquidation_distance),
        floats(|r| r.equity),
        floats(|r| r.cash),
        floats(|r| r.gross),
        floats(|r| r.net),
        floats(|r| r.margin),
        floats(|r| r.fees_total),
        floats(|r| r.drawdown),
        words(|r| r.state),
    ];
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// A decimal as it leaves: what is beyond 18 decimals (of an average, say) is rounded.
fn wire(value: Decimal) -> Option<i128> {
    money::to_wire(value.round_dp(money::WIRE_SCALE))
}

fn of<'a>(what: &'a Happened, instruments: &'a [Instrument]) -> Row<'a> {
    let symbol = |i: InstrumentId| instruments.get(i as usize).map(|instrument| instrument.symbol.as_str());
    // What is not said is NaN, which is null on the wire.
    let none = Row {
        mark: f64::NAN,
        realized: f64::NAN,
        unrealized: f64::NAN,
        value: f64::NAN,
        liquidation: f64::NAN,
        liquidation_distance: f64::NAN,
        equity: f64::NAN,
        cash: f64::NAN,
        gross: f64::NAN,
        net: f64::NAN,
        margin: f64::NAN,
        fees_total: f64::NAN,
        drawdown: f64::NAN,
        ..Row::default()
    };
    match what {
        Happened::Sent { command, instrument, reason } => {
            let row = Row { symbol: symbol(*instrument), reason: Some(why(*reason)), ..none };
            match command {
                Command::New(order) => ordered(order, row),
                Command::Modify { order, quantity, limit, stop } => Row {
                    event: "modify",
                    order_id: Some(order.to_string()),
                    quantity: *quantity,
                    price: *limit,
                    stop: *stop,
                    ..row
                },
                Command::Cancel { order } => {
                    Row { event: "cancel", order_id: Some(order.to_string()), ..row }
                }
            }
        }
        Happened::Refused { instrument, side, quantity, rule, detail } => Row {
            event: "rejection",
            symbol: symbol(*instrument),
            side: Some(side_name(*side)),
            quantity: Some(*quantity),
            rule: Some(rule),
            detail: Some(detail),
            ..none
        },
        Happened::Order { order, instrument, status, filled, reason } => Row {
            event: "status",
            symbol: symbol(*instrument),
            order_id: Some(order.to_string()),
            status: Some(status.name()),
            filled: Some(*filled),
            reason: reason.as_deref(),
            ..none
        },
        Happened::Filled { fill, realized, position, average, fee, rate } => Row {
            event: "fill",
            symbol: symbol(fill.instrument),
            order_id: Some(fill.order.to_string()),
            side: Some(side_name(fill.side)),
            fill_id: Some(&fill.id),
            fill_price: Some(fill.price),
            fill_quantity: Some(fill.quantity),
            fee: Some(fill.fee),
            fee_currency: Some(&fill.fee_currency),
            fee_value: *fee,
            rate: *rate,
            liquidity: fill.maker.map(|maker| if maker { "maker" } else { "taker" }),
            realized: money::to_f64(*realized),
            position: Some(*position),
            average: Some(*average),
            ..none
        },
        Happened::Cash { currency, amount, reason, instrument, rate } => Row {
            event: "cash",
            symbol: instrument.and_then(symbol),
            currency: Some(currency),
            amount: Some(*amount),
            rate: *rate,
            reason: Some(cash_reason(*reason)),
            ..none
        },
        Happened::Position(p) => Row {
            event: "position",
            symbol: symbol(p.instrument),
            position: Some(p.quantity),
            average: Some(p.average),
            mark: p.price,
            realized: money::to_f64(p.realized),
            unrealized: p.unrealized,
            fees_total: money::to_f64(p.fees),
            value: p.value,
            liquidation: p.liquidation.unwrap_or(f64::NAN),
            liquidation_distance: p.liquidation_distance.unwrap_or(f64::NAN),
            ..none
        },
        Happened::Equity(e) => Row {
            event: "equity",
            equity: e.equity,
            cash: e.cash,
            gross: e.gross,
            net: e.net,
            margin: e.margin,
            realized: e.realized,
            unrealized: e.unrealized,
            fees_total: e.fees,
            drawdown: e.drawdown,
            ..none
        },
        Happened::State { state, reason } => {
            Row { event: "state", state: Some(state_name(*state)), reason: Some(reason), ..none }
        }
        Happened::Alert { instrument, code, detail } => Row {
            event: "alert",
            symbol: instrument.and_then(symbol),
            rule: Some(code),
            detail: Some(detail),
            ..none
        },
    }
}

fn ordered<'a>(order: &Order, row: Row<'a>) -> Row<'a> {
    let (order_type, trail, trail_fraction) = match order.order_type {
        OrderType::Market => ("market", None, None),
        OrderType::Limit { .. } => ("limit", None, None),
        OrderType::Stop { .. } => ("stop", None, None),
        OrderType::StopLimit { .. } => ("stop_limit", None, None),
        OrderType::TrailingStop { trail: Trail::Amount(amount) } => ("trailing_stop", Some(amount), None),
        OrderType::TrailingStop { trail: Trail::Fraction(fraction) } => {
            ("trailing_stop", None, Some(fraction))
        }
        OrderType::TakeProfit { .. } => ("take_profit", None, None),
    };
    let (time_in_force, expires_at) = match order.time_in_force {
        TimeInForce::Gtc => ("gtc", None),
        TimeInForce::Gtd(until) => ("gtd", Some(until)),
        TimeInForce::Ioc => ("ioc", None),
        TimeInForce::Fok => ("fok", None),
        TimeInForce::Day => ("day", None),
    };
    Row {
        event: "order",
        order_id: Some(order.id.to_string()),
        side: Some(side_name(order.side)),
        order_type: Some(order_type),
        time_in_force: Some(time_in_force),
        expires_at,
        quantity: Some(order.quantity),
        price: order.limit(),
        stop: order.stop(),
        trail,
        trail_fraction,
        post_only: Some(order.post_only),
        reduce_only: Some(order.reduce_only),
        ..row
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    }
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Signal => "signal",
        Reason::StopLoss => "stop_loss",
        Reason::TakeProfit => "take_profit",
        Reason::Bracket => "bracket",
        Reason::Slice => "slice",
        Reason::KillSwitch => "kill_switch",
        Reason::Replaced => "replaced",
        Reason::SessionClose => "session_close",
        Reason::Liquidation => "liquidation",
    }
}

fn cash_reason(reason: CashReason) -> &'static str {
    match reason {
        CashReason::Funding => "funding",
        CashReason::Borrow => "borrow",
        CashReason::Dividend => "dividend",
        CashReason::Transfer => "transfer",
        CashReason::Fee => "fee",
        CashReason::InLieu => "in_lieu",
        CashReason::Other => "other",
    }
}

fn state_name(state: TradingState) -> &'static str {
    match state {
        TradingState::Normal => "normal",
        TradingState::Reducing => "reducing",
        TradingState::Halted => "halted",
    }
}
