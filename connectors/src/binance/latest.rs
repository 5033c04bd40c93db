//! Channels whose every event stands for itself: bars, tickers, mark prices, liquidations, best prices.
//!
//! Two connections, or a frame that comes twice, bring an event again; one that isn't newer than the
//! symbol's last is passed over and counted. A lost event can't be seen: nothing in the messages counts them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::Deserialize;

use super::feed::{Reader, Symbols};
use super::wire::{self, BookTicker, ForceOrder, Kline, MarkPrice, Ticker};
use crate::venue::frame::Frame;
use crate::venue::protocol::Output;
use crate::venue::tables::quotes::{Quote, Quotes};
use crate::venue::tables::{self, Head, Side};

/// One such channel.
pub(super) trait Table: Send {
    /// Its message.
    type Event<'a>: Deserialize<'a>;
    /// The message's `e`.
    const TYPE: &'static str;
    /// The message's `e` (where it has one), its symbol, and what grows from event to event.
    fn key<'e>(event: &'e Self::Event<'_>) -> (Option<&'e str>, &'e str, i64);
    /// Makes a row of it.
    fn push(&mut self, event: &Self::Event<'_>, received_ns: i64) -> Result<(), String>;
    /// Columns.
    fn schema(&self) -> SchemaRef;
    /// Rows kept.
    fn rows(&self) -> usize;
    /// Takes them.
    fn finish(&mut self) -> RecordBatch;
}

/// Reads one such channel.
pub(super) struct Latest<T> {
    table: T,
    last: Vec<i64>,
}

impl<T: Table> Latest<T> {
    pub(super) fn new(table: T, symbols: usize) -> Self {
        Self { table, last: vec![i64::MIN; symbols] }
    }
}

impl<T: Table> Reader for Latest<T> {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn received(&mut self, frame: &Frame, symbols: &Symbols, out: &mut Output) -> Result<(), String> {
        let event = wire::event::<T::Event<'_>>(&frame.data)?.data;
        let (kind, symbol, newness) = T::key(&event);
        if let Some(kind) = kind.filter(|kind| *kind != T::TYPE) {
            return Err(format!("the message is a `{kind}`, not a `{}`", T::TYPE));
        }
        let last = &mut self.last[symbols.find(symbol)?];
        if newness <= *last {
            out.count("duplicates");
            return Ok(());
        }
        self.table.push(&event, frame.received_ns)?;
        *last = newness;
        Ok(())
    }

    fn rows(&self) -> usize {
        self.table.rows()
    }

    fn finish(&mut self) -> RecordBatch {
        self.table.finish()
    }
}

macro_rules! builder {
    ($name:ident, $builder:ty) => {
        /// Rows of a channel.
        pub(super) struct $name($builder);

        impl $name {
            pub(super) fn new(venue: &str) -> Self {
                Self(<$builder>::new(venue))
            }
        }
    };
}

macro_rules! as_builder {
    ($at:tt) => {
        fn schema(&self) -> SchemaRef {
            self.$at.schema()
        }
        fn rows(&self) -> usize {
            self.$at.len()
        }
        fn finish(&mut self) -> RecordBatch {
            self.$at.finish()
        }
    };
}

builder!(AllQuotes, Quotes);

impl Table for AllQuotes {
    type Event<'a> = BookTicker<'a>;
    const TYPE: &'static str = "bookTicker";

    fn key<'e>(event: &'e BookTicker<'_>) -> (Option<&'e str>, &'e str, i64) {
        (event.e, event.s, event.u)
    }

    fn push(&mut self, event: &BookTicker<'_>, received_ns: i64) -> Result<(), String> {
        let head = Head { ts_ns: event.at.map_or(received_ns, |t| t.0), symbol: event.s, received_ns };
        // A side without orders comes as price 0 and size 0.
        let side = |price: f64, size: f64| (price > 0.0).then_some((price, size));
        let (bid, ask) = (side(event.b.0, event.bid_size.0), side(event.a.0, event.ask_size.0));
        self.0.push(head, &Quote { bid, ask, update_id: Some(event.u) });
        Ok(())
    }

    as_builder!(0);
}

/// Rows of bars of one interval.
pub(super) struct AllBars {
    rows: tables::bars::Bars,
    interval: String,
}

impl AllBars {
    pub(super) fn new(venue: &str, interval: &str) -> Self {
        Self { rows: tables::bars::Bars::new(venue), interval: interval.to_owned() }
    }
}

impl Table for AllBars {
    type Event<'a> = Kline<'a>;
    const TYPE: &'static str = "kline";

    fn key<'e>(event: &'e Kline<'_>) -> (Option<&'e str>, &'e str, i64) {
        (Some(event.e), event.s, event.sent_at.0)
    }

    fn push(&mut self, event: &Kline<'_>, received_ns: i64) -> Result<(), String> {
        let k = &event.k;
        if k.i != self.interval {
            return Err(format!("the bar's interval is `{}`, not `{}`", k.i, self.interval));
        }
        let head = Head { ts_ns: event.sent_at.0, symbol: event.s, received_ns };
        let bar = tables::bars::Bar {
            start_ns: k.start.0,
            open: k.o.0,
            high: k.h.0,
            low: k.l.0,
            close: k.c.0,
            volume: k.v.0,
            trades: Some(k.n),
            closed: k.x,
        };
        self.rows.push(head, &bar);
        Ok(())
    }

    as_builder!(rows);
}

builder!(AllTickers, tables::tickers::Tickers);

impl Table for AllTickers {
    type Event<'a> = Ticker<'a>;
    const TYPE: &'static str = "24hrTicker";

    fn key<'e>(event: &'e Ticker<'_>) -> (Option<&'e str>, &'e str, i64) {
        (Some(event.e), event.s, event.sent_at.0)
    }

    fn push(&mut self, event: &Ticker<'_>, received_ns: i64) -> Result<(), String> {
        let head = Head { ts_ns: event.sent_at.0, symbol: event.s, received_ns };
        let price = |amount: Option<wire::Amount>| amount.map(|a| a.0).filter(|price| *price > 0.0);
        let ticker = tables::tickers::Ticker {
            last: event.c.0,
            bid: price(event.b),
            ask: price(event.a),
            volume: Some(event.v.0),
        };
        self.0.push(head, &ticker);
        Ok(())
    }

    as_builder!(0);
}

builder!(AllMarkPrices, tables::mark_prices::MarkPrices);

impl Table for AllMarkPrices {
    type Event<'a> = MarkPrice<'a>;
    const TYPE: &'static str = "markPriceUpdate";

    fn key<'e>(event: &'e MarkPrice<'_>) -> (Option<&'e str>, &'e str, i64) {
        (Some(event.e), event.s, event.sent_at.0)
    }

    fn push(&mut self, event: &MarkPrice<'_>, received_ns: i64) -> Result<(), String> {
        let head = Head { ts_ns: event.sent_at.0, symbol: event.s, received_ns };
        let mark = tables::mark_prices::MarkPrice {
            mark_price: event.p.0,
            index_price: event.i.0,
            funding_rate: event.r.0,
            next_funding_ns: Some(event.next_funding_at.0).filter(|at| *at > 0),
        };
        self.0.push(head, &mark);
        Ok(())
    }

    as_builder!(0);
}

builder!(AllLiquidations, tables::liquidations::Liquidations);

impl Table for AllLiquidations {
    type Event<'a> = ForceOrder<'a>;
    const TYPE: &'static str = "forceOrder";

    fn key<'e>(event: &'e ForceOrder<'_>) -> (Option<&'e str>, &'e str, i64) {
        (Some(event.e), event.o.s, event.o.at.0)
    }

    fn push(&mut self, event: &ForceOrder<'_>, received_ns: i64) -> Result<(), String> {
        let order = &event.o;
        let side = match order.side {
            "BUY" => Side::Buy,
            "SELL" => Side::Sell,
            other => return Err(format!("side `{other}` is neither BUY nor SELL")),
        };
        let head = Head { ts_ns: order.at.0, symbol: order.s, received_ns };
        let average_price = Some(order.ap.0).filter(|price| *price > 0.0);
        let row =
            tables::liquidations::Liquidation { side, price: order.p.0, size: order.q.0, average_price };
        self.0.push(head, &row);
        Ok(())
    }

    as_builder!(0);
}
