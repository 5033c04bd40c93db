//! What a row asks for: rows of `execution` with `event` `order`, `modify` or `cancel`; others are nobody's business here.

use std::str::FromStr;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use arrow::error::ArrowError;
use tidemill_connectors::broker::journal::{Asked, Kind};
use tidemill_connectors::broker::reports::money_type;
use tidemill_engine::component::{Problems, StreamInfo};
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_trading::Decimal;
use tidemill_trading::money::{from_f64, from_wire};
use tidemill_trading::order::{OrderId, OrderType, Side, TimeInForce, Trail};

/// A command for a venue.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Who asks for what.
    pub asked: Asked,
    /// Event time of its row, UTC nanoseconds.
    pub ts: i64,
    /// What is to be done; `Err`: why it cannot be.
    pub ask: Result<Ask, String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// A new order.
    New {
        /// Buy or sell.
        side: Side,
        /// Units, above zero.
        quantity: Decimal,
        /// How.
        order_type: OrderType,
        /// How long.
        time_in_force: TimeInForce,
        /// Only as a maker.
        post_only: bool,
        /// Only to make a position smaller.
        reduce_only: bool,
    },
    /// A change; what is `None` stays.
    Modify {
        /// The whole quantity, filled part included.
        quantity: Option<Decimal>,
        /// Limit price.
        limit: Option<Decimal>,
        /// Trigger price.
        stop: Option<Decimal>,
        /// Distance of a trailing stop.
        trail: Option<Trail>,
    },
    /// The end of an order.
    Cancel,
}

/// Where the columns are.
#[derive(Clone, Debug)]
pub struct Columns {
    event: usize,
    order_id: usize,
    symbol: usize,
    side: Option<usize>,
    order_type: Option<usize>,
    time_in_force: Option<usize>,
    quantity: Option<usize>,
    price: Option<usize>,
    stop: Option<usize>,
    trail: Option<usize>,
    trail_fraction: Option<usize>,
    post_only: Option<usize>,
    reduce_only: Option<usize>,
}

impl Columns {
    /// Finds them in a stream.
    pub fn plan(input: &StreamInfo) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let mut text = |name: &str| {
            let found = input.column("", name).and_then(|i| {
                let text =
                    matches!(input.data_type(i), DataType::Utf8) || input.data_type(i) == &row::symbol_type();
                let problem = || Problem::new("", format!("column `{name}` of `{}` is not text", input.name));
                text.then_some(i).ok_or_else(problem)
            });
            found
                .map_err(|problem| problems.push(problem.hint("an order stream is what `execution` gives")))
                .ok()
        };
        let needed = (text("event"), text("order_id"), text("symbol"), text("side"), text("type"));
        let optional = |name: &str| input.schema.index_of(name).ok();
        for name in ["quantity", "price", "stop", "trail", "trail_fraction"] {
            let Some(i) = optional(name) else { continue };
            if !input.data_type(i).is_numeric() {
                problems.push(Problem::new("", format!("column `{name}` of `{}` is no number", input.name)));
            }
        }
        for name in ["post_only", "reduce_only"] {
            if optional(name).is_some_and(|i| input.data_type(i) != &DataType::Boolean) {
                problems.push(Problem::new(
                    "",
                    format!("column `{name}` of `{}` is not true or false", input.name),
                ));
            }
        }
        if optional("quantity").is_none() {
            problems.push(Problem::new("", format!("`{}` has no column `quantity`", input.name)));
        }
        match needed {
            (Some(event), Some(order_id), Some(symbol), side, order_type) if problems.is_empty() => {
                Ok(Self {
                    event,
                    order_id,
                    symbol,
                    side,
                    order_type,
                    time_in_force: optional("time_in_force"),
                    quantity: optional("quantity"),
                    price: optional("price"),
                    stop: optional("stop"),
                    trail: optional("trail"),
                    trail_fraction: optional("trail_fraction"),
                    post_only: optional("post_only"),
                    reduce_only: optional("reduce_only"),
                })
            }
            _ => Err(problems),
        }
    }

    /// The commands of a batch, in its order.
    pub fn commands(&self, rows: &RecordBatch) -> Result<Vec<Command>, ArrowError> {
        let of = |i: Option<usize>| i.map(|i| rows.column(i).clone());
        let money = |i: Option<usize>| i.map(|i| Money::new(rows.column(i))).transpose();
        let reader = Reader {
            side: of(self.side),
            order_type: of(self.order_type),
            time_in_force: of(self.time_in_force),
            quantity: money(self.quantity)?,
            price: money(self.price)?,
            stop: money(self.stop)?,
            trail: money(self.trail)?,
            trail_fraction: money(self.trail_fraction)?,
            post_only: of(self.post_only),
            reduce_only: of(self.reduce_only),
        };
        let (ts, src, seq) = (row::ts(rows), row::src(rows), row::seq(rows));
        let mut commands = Vec::new();
        for i in 0..rows.num_rows() {
            let kind = match row::text(rows.column(self.event), i) {
                Some("order") => Kind::Order,
                Some("modify") => Kind::Modify,
                Some("cancel") => Kind::Cancel,
                _ => continue,
            };
            let name = row::text(rows.column(self.order_id), i).unwrap_or_default();
            let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            let well = name.len() == 32 && name.bytes().all(digits) && OrderId::from_str(name).is_ok();
            let mut from = Vec::with_capacity(24);
            from.extend_from_slice(&ts[i].to_le_bytes());
            from.extend_from_slice(&src[i].to_le_bytes());
            from.extend_from_slice(&seq[i].to_le_bytes());
            let hash = xxhash_rust::xxh3::xxh3_64(&from);
            let key = match kind {
                Kind::Order if well => name.to_owned(),
                Kind::Order => format!("row-{hash:016x}"),
                Kind::Modify => format!("{name}-{hash:016x}"),
                Kind::Cancel => format!("{name}~{hash:016x}"),
            };
            let symbol = row::text(rows.column(self.symbol), i).unwrap_or_default().to_owned();
            let ask = match kind {
                _ if !well => Err(format!("order_id `{name}` is not 32 hexadecimal digits")),
                Kind::Order if symbol.is_empty() => Err("symbol: an order needs one".into()),
                Kind::Order => reader.order(i),
                Kind::Modify => reader.modify(i),
                Kind::Cancel => Ok(Ask::Cancel),
            };
            let asked = Asked { key, kind, order: name.to_owned(), symbol };
            commands.push(Command { asked, ts: ts[i], ask });
        }
        Ok(commands)
    }
}

/// A column of amounts: exact ones as they are, floats as they were written.
enum Money {
    Exact(ArrayRef),
    Float(ArrayRef),
}

impl Money {
    fn new(column: &ArrayRef) -> Result<Self, ArrowError> {
        Ok(match column.data_type() {
            DataType::Float64 => Self::Float(column.clone()),
            t if t.is_floating() => Self::Float(cast(column, &DataType::Float64)?),
            t if t == &money_type() => Self::Exact(column.clone()),
            _ => Self::Exact(cast(column, &money_type())?),
        })
    }

    fn get(&self, name: &str, i: usize) -> Result<Option<Decimal>, String> {
        let bad = |text: String| format!("{name}: {text} is no amount that can be sent");
        match self {
            Self::Exact(column) | Self::Float(column) if column.is_null(i) => Ok(None),
            Self::Exact(column) => {
                let value = column.as_primitive::<Decimal128Type>().value(i);
                from_wire(value).map(Some).ok_or_else(|| bad(format!("{value}e-18")))
            }
            Self::Float(column) => {
                let value = column.as_primitive::<Float64Type>().value(i);
                from_f64(value).map(Some).ok_or_else(|| bad(value.to_string()))
            }
        }
    }
}

struct Reader {
    side: Option<ArrayRef>,
    order_type: Option<ArrayRef>,
    time_in_force: Option<ArrayRef>,
    quantity: Option<Money>,
    price: Option<Money>,
    stop: Option<Money>,
    trail: Option<Money>,
    trail_fraction: Option<Money>,
    post_only: Option<ArrayRef>,
    reduce_only: Option<ArrayRef>,
}

fn text(column: &Option<ArrayRef>, i: usize) -> String {
    column.as_ref().and_then(|c| row::text(c, i)).unwrap_or_default().to_ascii_lowercase()
}

fn flag(column: &Option<ArrayRef>, i: usize) -> bool {
    column.as_ref().is_some_and(|c| c.is_valid(i) && c.as_boolean().value(i))
}

fn above_zero(name: &str, value: Option<Decimal>) -> Result<Option<Decimal>, String> {
    match value {
        Some(value) if value <= Decimal::ZERO => Err(format!("{name}: {value} is not above zero")),
        value => Ok(value),
    }
}

impl Reader {
    fn amount(
        &self,
        name: &'static str,
        column: &Option<Money>,
        i: usize,
    ) -> Result<Option<Decimal>, String> {
        let value = column.as_ref().map(|c| c.get(name, i)).transpose()?.flatten();
        above_zero(name, value)
    }

    fn order(&self, i: usize) -> Result<Ask, String> {
        let side = match text(&self.side, i).as_str() {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            other => return Err(format!("side: `{other}` is neither buy nor sell")),
        };
        let quantity = self.amount("quantity", &self.quantity, i)?.ok_or("quantity: an order needs one")?;
        let limit = self.amount("price", &self.price, i)?;
        let stop = self.amount("stop", &self.stop, i)?;
        let kind = text(&self.order_type, i);
        let need = |name: &str, value: Option<Decimal>| {
            value.ok_or_else(|| format!("{name}: a {kind} order needs one"))
        };
        let order_type = match kind.as_str() {
            "market" => OrderType::Market,
            "limit" => OrderType::Limit { limit: need("price", limit)? },
            "stop" => OrderType::Stop { stop: need("stop", stop)? },
            "stop_limit" => OrderType::StopLimit { stop: need("stop", stop)?, limit: need("price", limit)? },
            "take_profit" => OrderType::TakeProfit { trigger: need("stop", stop.or(limit))? },
            "trailing_stop" => {
                let amount = self.amount("trail", &self.trail, i)?;
                let fraction = self.amount("trail_fraction", &self.trail_fraction, i)?;
                let trail = match (amount, fraction) {
                    (Some(amount), None) => Trail::Amount(amount),
                    (None, Some(fraction)) => Trail::Fraction(fraction),
                    _ => return Err("trail: a trailing stop needs either `trail` or `trail_fraction`".into()),
                };
                OrderType::TrailingStop { trail }
            }
            other => {
                let known = "market, limit, stop, stop_limit, trailing_stop, take_profit";
                return Err(format!("type: `{other}` is none of {known}"));
            }
        };
        let time_in_force = match text(&self.time_in_force, i).as_str() {
            "gtc" => TimeInForce::Gtc,
            "ioc" => TimeInForce::Ioc,
            "fok" => TimeInForce::Fok,
            "day" | "" => TimeInForce::Day,
            // Whatever its time is: venues that have it read it from `expires`.
            gtd if gtd.starts_with("gtd") => TimeInForce::Gtd(i64::MAX),
            other => return Err(format!("time_in_force: `{other}` is none of day, gtc, ioc, fok, gtd")),
        };
        let (post_only, reduce_only) = (flag(&self.post_only, i), flag(&self.reduce_only, i));
        Ok(Ask::New { side, quantity, order_type, time_in_force, post_only, reduce_only })
    }

    fn modify(&self, i: usize) -> Result<Ask, String> {
        let quantity = self.amount("quantity", &self.quantity, i)?;
        let (limit, stop) = (self.amount("price", &self.price, i)?, self.amount("stop", &self.stop, i)?);
        let amount = self.amount("trail", &self.trail, i)?;
        let fraction = self.amount("trail_fraction", &self.trail_fraction, i)?;
        let trail = amount.map(Trail::Amount).or(fraction.map(Trail::Fraction));
        if quantity.or(limit).or(stop).is_none() && trail.is_none() {
            return Err("a change needs a quantity, a price, a stop or a trail".into());
        }
        Ok(Ask::Modify { quantity, limit, stop, trail })
    }
}
