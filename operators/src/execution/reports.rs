//! A broker's reports. The rows are those of its source of reports (`connectors/src/broker/reports.rs` has the table); a stream may leave out columns
//! that it has no use for, but `event`.
//!
//! The rows of a snapshot are gathered from `snapshot_begin` on and count with `snapshot_end`; one that never ends is thrown away. So is one with a row
//! that cannot be read, for without it a position would be taken for sold and an order for gone. Rows of symbols that are not traded here are
//! left out.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type};
use serde::{Deserialize, Serialize};
use tidemill_engine::component::StreamInfo;
use tidemill_engine::operator::OperatorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_trading::event::Event;
use tidemill_trading::market::InstrumentId;
use tidemill_trading::money::{self, Decimal};
use tidemill_trading::order::{Order, OrderId, OrderType, Side, TimeInForce, Trail};
use tidemill_trading::report::{CashReason, Fill, Open, Report, Said, Snapshot};

use super::Shell;
use super::symbols::Symbols;

const TEXTS: [&str; 10] = [
    "event",
    "order_id",
    "side",
    "type",
    "time_in_force",
    "fill_id",
    "fee_currency",
    "liquidity",
    "reason",
    "currency",
];
const MONEY: [&str; 10] = [
    "quantity",
    "price",
    "stop",
    "trail",
    "trail_fraction",
    "filled",
    "fill_price",
    "fill_quantity",
    "fee",
    "cash",
];

/// Where the columns are.
#[derive(Clone, Debug)]
pub struct Columns {
    symbol: Option<usize>,
    texts: [Option<usize>; 10],
    money: [Option<usize>; 10],
}

impl Columns {
    pub fn of(input: &StreamInfo) -> Result<Self, Problem> {
        input.column("reports", "event")?;
        let find = |name: &str, fits: fn(&DataType) -> bool| {
            let Ok(i) = input.schema.index_of(name) else { return Ok(None) };
            if fits(input.data_type(i)) {
                return Ok(Some(i));
            }
            let t = tidemill_engine::schema::type_name(input.data_type(i));
            let problem = Problem::new("reports", format!("column `{name}` of `{}` is {t}", input.name));
            Err(problem
                .hint("reports have texts, and numbers for amounts; see the page of the broker's source"))
        };
        let is_text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::Dictionary(..));
        let mut columns = Self { symbol: find("symbol", is_text)?, texts: [None; 10], money: [None; 10] };
        for (place, name) in columns.texts.iter_mut().zip(TEXTS) {
            *place = find(name, is_text)?;
        }
        for (place, name) in columns.money.iter_mut().zip(MONEY) {
            *place = find(name, DataType::is_numeric)?;
        }
        Ok(columns)
    }
}

/// What has come of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Gathered {
    /// None is under way.
    #[default]
    Nothing,
    /// Its rows so far.
    Part(Snapshot),
    /// A row could not be read: the others are passed over, up to the end.
    Dropped,
}

/// Why a row is of no use.
enum Useless {
    /// Its symbol is not traded here.
    Unlisted(String),
    /// It cannot be read.
    Bad(String),
}

impl From<String> for Useless {
    fn from(why: String) -> Self {
        Self::Bad(why)
    }
}

impl From<&str> for Useless {
    fn from(why: &str) -> Self {
        Self::Bad(why.to_owned())
    }
}

/// A batch of reports.
pub struct ReportRows<'a> {
    symbols: Option<Symbols<'a>>,
    texts: [Option<&'a ArrayRef>; 10],
    money: [Option<ArrayRef>; 10],
}

impl<'a> ReportRows<'a> {
    pub fn new(columns: &Columns, batch: &'a RecordBatch) -> Result<Self, OperatorError> {
        let mut money = [const { None }; 10];
        for (values, column) in money.iter_mut().zip(columns.money) {
            let Some(column) = column.map(|c| batch.column(c)) else { continue };
            // Exact where it is exact; other numbers are read as they were written.
            let exact = matches!(column.data_type(), DataType::Decimal128(_, 18));
            *values =
                Some(if exact { column.clone() } else { arrow::compute::cast(column, &DataType::Float64)? });
        }
        let symbols = columns.symbol.map(|c| Symbols::new(batch.column(c)));
        Ok(Self { symbols, texts: columns.texts.map(|c| c.map(|c| batch.column(c))), money })
    }

    pub fn row(&mut self, i: usize, ts: i64, shell: &mut Shell, events: &mut Vec<Event>) {
        match self.said(i, shell) {
            Ok(Some(what)) => shell.machine.report(&Report { ts, what }, events),
            Ok(None) if self.text(i, 0) == Some("alert") => {
                let detail = self.text(i, 8).unwrap_or("without a reason").to_owned();
                shell.machine.complain(ts, None, "venue", detail, events);
            }
            Ok(None) => shell.machine.advance(ts, events),
            Err(useless) => {
                let event = self.text(i, 0).unwrap_or("null");
                let (why, bad) = match useless {
                    Useless::Unlisted(why) => (why, false),
                    Useless::Bad(why) => (why, true),
                };
                let mut detail = format!("a report `{event}` is of no use: {why}");
                if bad && event.starts_with("snapshot_") && matches!(shell.gathered, Gathered::Part(_)) {
                    shell.gathered = Gathered::Dropped;
                    detail += "; the whole snapshot is passed over, the account stays as it is known until the next one";
                }
                shell.machine.complain(ts, None, "bad_report", detail, events);
            }
        }
    }

    /// What row `i` says; `None` where nothing, or nothing yet.
    fn said(&mut self, i: usize, shell: &mut Shell) -> Result<Option<Said>, Useless> {
        let event = self.text(i, 0).ok_or("it has no event")?;
        if shell.gathered == Gathered::Dropped && event.starts_with("snapshot_") {
            match event {
                "snapshot_begin" => {}
                "snapshot_end" => {
                    shell.gathered = Gathered::Nothing;
                    return Ok(None);
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(match event {
            "accepted" => Said::Accepted { order: self.order(i)? },
            "rejected" => Said::Rejected {
                order: self.order(i)?,
                reason: self.text(i, 8).unwrap_or_default().to_owned(),
            },
            "change_rejected" => Said::ChangeRejected {
                order: self.order(i)?,
                reason: self.text(i, 8).unwrap_or_default().to_owned(),
            },
            "canceled" => {
                Said::Canceled { order: self.order(i)?, reason: self.text(i, 8).map(str::to_owned) }
            }
            "expired" => Said::Expired { order: self.order(i)? },
            "replaced" => Said::Replaced {
                order: self.order(i)?,
                quantity: self.must(i, 0)?,
                limit: self.number(i, 1),
                stop: self.number(i, 2),
            },
            "filled" => Said::Filled(self.fill(i, shell)?),
            "cash" => Said::Cash {
                currency: self.text(i, 9).ok_or("it has no currency")?.to_owned(),
                amount: self.must(i, 9)?,
                reason: match self.text(i, 8) {
                    Some("funding") => CashReason::Funding,
                    Some("borrow") => CashReason::Borrow,
                    Some("dividend") => CashReason::Dividend,
                    Some("transfer") => CashReason::Transfer,
                    Some("fee") => CashReason::Fee,
                    Some("in_lieu") => CashReason::InLieu,
                    _ => CashReason::Other,
                },
                instrument: self.instrument(i, shell).ok(),
            },
            "split" => Said::Split { instrument: self.instrument(i, shell)?, ratio: self.must(i, 0)? },
            "snapshot_begin" => {
                shell.gathered = Gathered::Part(Snapshot::default());
                return Ok(None);
            }
            "snapshot_order" => {
                let open =
                    Open { order: self.open(i, shell)?, filled: self.number(i, 5).unwrap_or_default() };
                self.gather(shell)?.orders.push(open);
                return Ok(None);
            }
            "snapshot_position" => {
                let position = (self.instrument(i, shell)?, self.must(i, 0)?, self.number(i, 1));
                self.gather(shell)?.positions.push(position);
                return Ok(None);
            }
            "snapshot_cash" => {
                let cash = (self.text(i, 9).ok_or("it has no currency")?.to_owned(), self.must(i, 9)?);
                self.gather(shell)?.cash.push(cash);
                return Ok(None);
            }
            "snapshot_end" => match std::mem::take(&mut shell.gathered) {
                Gathered::Part(snapshot) => Said::Snapshot(snapshot),
                Gathered::Nothing | Gathered::Dropped => return Err("no snapshot had begun".into()),
            },
            "reconciling" => Said::Reconciling,
            "alert" | "heartbeat" => return Ok(None),
            other => return Err(format!("`{other}` is no event that is known").into()),
        }))
    }

    fn gather<'s>(&self, shell: &'s mut Shell) -> Result<&'s mut Snapshot, String> {
        match &mut shell.gathered {
            Gathered::Part(snapshot) => Ok(snapshot),
            Gathered::Nothing | Gathered::Dropped => Err("no snapshot had begun".to_owned()),
        }
    }

    fn fill(&mut self, i: usize, shell: &mut Shell) -> Result<Fill, Useless> {
        Ok(Fill {
            id: self.text(i, 5).ok_or("it has no fill_id")?.to_owned(),
            order: self.order(i)?,
            instrument: self.instrument(i, shell)?,
            side: self.side(i)?,
            price: self.must(i, 6)?,
            quantity: self.must(i, 7)?,
            fee: self.number(i, 8).unwrap_or_default(),
            fee_currency: match self.text(i, 6) {
                Some(currency) => currency.to_owned(),
                None => {
                    let instrument = self.instrument(i, shell)?;
                    shell.machine.instruments()[instrument as usize].quote.clone()
                }
            },
            maker: self.text(i, 7).map(|liquidity| liquidity == "maker"),
        })
    }

    /// A working order, as far as it can be told by our kinds.
    fn open(&mut self, i: usize, shell: &mut Shell) -> Result<Order, Useless> {
        let (limit, stop) = (self.number(i, 1), self.number(i, 2));
        let trail = self.number(i, 4).map(Trail::Fraction).or(self.number(i, 3).map(Trail::Amount));
        Ok(Order {
            id: self.order(i)?,
            instrument: self.instrument(i, shell)?,
            side: self.side(i)?,
            quantity: self.must(i, 0)?,
            order_type: match (trail, stop, limit) {
                (Some(trail), _, _) => OrderType::TrailingStop { trail },
                (None, Some(trigger), _) if self.text(i, 3) == Some("take_profit") => {
                    OrderType::TakeProfit { trigger }
                }
                (None, Some(stop), Some(limit)) => OrderType::StopLimit { stop, limit },
                (None, Some(stop), None) => OrderType::Stop { stop },
                (None, None, Some(limit)) => OrderType::Limit { limit },
                (None, None, None) => OrderType::Market,
            },
            time_in_force: match self.text(i, 4) {
                Some("ioc") => TimeInForce::Ioc,
                Some("fok") => TimeInForce::Fok,
                Some("day") => TimeInForce::Day,
                _ => TimeInForce::Gtc,
            },
            post_only: false,
            reduce_only: false,
        })
    }

    fn text(&self, i: usize, column: usize) -> Option<&'a str> {
        row::text(self.texts[column]?, i)
    }

    fn number(&self, i: usize, column: usize) -> Option<Decimal> {
        let values = self.money[column].as_ref()?;
        if values.is_null(i) {
            return None;
        }
        match values.data_type() {
            DataType::Decimal128(..) => money::from_wire(values.as_primitive::<Decimal128Type>().value(i)),
            _ => money::from_f64(values.as_primitive::<arrow::datatypes::Float64Type>().value(i)),
        }
    }

    fn must(&self, i: usize, column: usize) -> Result<Decimal, String> {
        self.number(i, column).ok_or_else(|| format!("it has no {}", MONEY[column]))
    }

    fn order(&self, i: usize) -> Result<OrderId, String> {
        let text = self.text(i, 1).ok_or("it has no order_id")?;
        text.parse().map_err(|_| format!("`{text}` is no order id of 32 hexadecimal digits"))
    }

    fn side(&self, i: usize) -> Result<Side, String> {
        match self.text(i, 2) {
            Some("buy") => Ok(Side::Buy),
            Some("sell") => Ok(Side::Sell),
            other => Err(format!("`{}` is no side", other.unwrap_or("null"))),
        }
    }

    fn instrument(&mut self, i: usize, shell: &mut Shell) -> Result<InstrumentId, Useless> {
        let symbols = self.symbols.as_mut().filter(|symbols| symbols.any(i)).ok_or("it has no symbol")?;
        let found = symbols.of(i, &mut shell.machine);
        found.ok_or_else(|| {
            let symbol = symbols.text(i);
            Useless::Unlisted(format!(
                "{symbol} is not among the `instruments`, and there is no `default_instrument`"
            ))
        })
    }
}
