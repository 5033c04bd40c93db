//! The protocol: frames of one channel in, rows and requests out.
//!
//! What is the same for every channel is here: which connections are open, which symbols are ours, what becomes of
//! frames that are no event. A [`Reader`] does the rest.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::Deserialize;
use serde_json::Value;
use tidemill_book::sync::{BinanceFutures, BinanceSpot};

use super::depth::Depth;
use super::latest::{AllBars, AllLiquidations, AllMarkPrices, AllQuotes, AllTickers, Latest};
use super::refused::{self, Verdict};
use super::trades::TradeReader;
use super::{Channel, Market, Params, streams};
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::json;
use crate::venue::protocol::{Action, Endpoint, Output, Protocol};

/// What one channel does with its frames.
pub(super) trait Reader: Send {
    /// Columns of its rows.
    fn schema(&self) -> SchemaRef;
    /// A message of the venue; the error is why it is no event of the channel.
    fn received(&mut self, frame: &Frame, symbols: &Symbols, out: &mut Output) -> Result<(), String>;
    /// The answer to a request.
    fn answered(&mut self, _url: &str, _status: u16, _frame: &Frame, _symbols: &Symbols, _out: &mut Output) {}
    /// An event of the symbol, or of any that the connection carries, came and could not be read.
    fn lost(&mut self, _symbol: Option<usize>, _frame: &Frame, _symbols: &Symbols, _out: &mut Output) {}
    /// A connection was made.
    fn opened(&mut self, _frame: &Frame) {}
    /// A connection was lost.
    fn closed(&mut self, _frame: &Frame, _out: &mut Output) {}
    /// How many rows are kept.
    fn rows(&self) -> usize;
    /// The rows since the last call.
    fn finish(&mut self) -> RecordBatch;
    /// For the checkpoint.
    fn state(&self) -> Value {
        Value::Null
    }
    /// Goes on from a state.
    fn restore(&mut self, _state: &Value) -> Result<(), String> {
        Ok(())
    }
}

/// The symbols of the feed.
pub(super) struct Symbols {
    names: Vec<String>,
    index: HashMap<String, usize>,
}

impl Symbols {
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// A symbol's name.
    pub(super) fn name(&self, symbol: usize) -> &str {
        &self.names[symbol]
    }

    /// Which symbol a name is.
    pub(super) fn get(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Which symbol a name is; the error is a reason to refuse the message.
    pub(super) fn find(&self, name: &str) -> Result<usize, String> {
        self.get(name).ok_or_else(|| format!("symbol `{name}` was not subscribed to"))
    }
}

/// The protocol of one channel.
pub struct BinanceFeed {
    params: Arc<Params>,
    symbols: Symbols,
    asked_for_symbols: bool,
    reader: Box<dyn Reader>,
}

/// An element of the answer of `ticker/price`.
#[derive(Deserialize)]
struct Listed<'a> {
    symbol: &'a str,
}

impl BinanceFeed {
    /// For parameters without problems.
    pub fn new(params: Arc<Params>) -> Self {
        let names: Vec<String> = params.symbols.iter().map(|s| s.to_uppercase()).collect();
        let index = names.iter().cloned().zip(0..).collect::<HashMap<_, _>>();
        let symbols = Symbols { names, index };
        let reader = reader(&params, &symbols);
        Self { params, symbols, asked_for_symbols: false, reader }
    }

    fn opened(&mut self, frame: &Frame, out: &mut Output) {
        self.reader.opened(frame);
        if self.params.check_symbols && !self.asked_for_symbols {
            self.asked_for_symbols = true;
            let weight = if self.params.market == Market::Spot { 4 } else { 2 };
            out.actions.push(Action::Fetch { connection: frame.connection, url: self.listing(), weight });
        }
    }

    fn received(&mut self, frame: &Frame, out: &mut Output) {
        let Err(reason) = self.reader.received(frame, &self.symbols, out) else { return };
        let before = self.reader.rows();
        let verdict = refused::explain(frame, self.params.channel, before, &reason, out);
        if verdict == Verdict::Harmless {
            return;
        }
        let named = refused::stream_of(&frame.data).and_then(|(s, _)| self.symbols.get(&s.to_uppercase()));
        self.reader.lost(named, frame, &self.symbols, out);
    }

    /// Where all symbols are listed.
    fn listing(&self) -> String {
        format!("{}/ticker/price", rest(&self.params))
    }

    fn listed(&self, status: u16, frame: &Frame, out: &mut Output) {
        let listed = match status {
            200 => json::read::<Vec<Listed>>(&frame.data),
            _ => Err(String::new()),
        };
        // A venue that doesn't give the list (a server of captures) leaves the question open, and nothing else.
        let Ok(listed) = listed else { return out.count("symbol_lists_missing") };
        let there: std::collections::HashSet<&str> = listed.iter().map(|l| l.symbol).collect();
        for name in self.symbols.names.iter().filter(|name| !there.contains(name.as_str())) {
            out.count("unknown_symbols");
            out.notices.push(format!(
                "binance has no symbol `{name}` on this market: nothing will come of it; look for a typing error"
            ));
        }
    }
}

/// Base of REST requests, with the path.
pub(super) fn rest(params: &Params) -> String {
    let base = params.rest_url.as_deref().unwrap_or_else(|| params.market.rest_url());
    format!("{}{}", base.trim_end_matches('/'), params.market.rest_path())
}

/// The part of a URL that a request is told by: a capture may come from another host.
pub(super) fn path(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    url[after_scheme..].find('/').map_or("", |at| &url[after_scheme + at..])
}

fn reader(params: &Params, symbols: &Symbols) -> Box<dyn Reader> {
    let (venue, n) = (params.market.venue(), symbols.len());
    match (params.channel, params.market) {
        (Channel::Trades | Channel::AggTrades, _) => Box::new(TradeReader::new(params)),
        (Channel::Book, Market::Spot) => Box::new(Depth::<BinanceSpot>::new(params, symbols)),
        (Channel::Book, Market::Usdm) => Box::new(Depth::<BinanceFutures>::new(params, symbols)),
        (Channel::Quotes, _) => Box::new(Latest::new(AllQuotes::new(venue), n)),
        (Channel::Bars, _) => Box::new(Latest::new(AllBars::new(venue, &params.interval), n)),
        (Channel::Tickers, _) => Box::new(Latest::new(AllTickers::new(venue), n)),
        (Channel::MarkPrices, _) => Box::new(Latest::new(AllMarkPrices::new(venue), n)),
        (Channel::Liquidations, _) => Box::new(Latest::new(AllLiquidations::new(venue), n)),
    }
}

impl Protocol for BinanceFeed {
    fn endpoints(&self) -> Vec<Endpoint> {
        streams::endpoints(&self.params)
    }

    fn schema(&self) -> SchemaRef {
        self.reader.schema()
    }

    fn on_frame(&mut self, frame: &Frame, out: &mut Output) {
        match &frame.kind {
            FrameKind::Received => self.received(frame, out),
            FrameKind::Opened => self.opened(frame, out),
            FrameKind::Closed => self.reader.closed(frame, out),
            FrameKind::Response { url, status } if path(url) == path(&self.listing()) => {
                self.listed(*status, frame, out);
            }
            FrameKind::Response { url, status } => {
                self.reader.answered(url, *status, frame, &self.symbols, out);
            }
            FrameKind::Sent => {}
        }
    }

    /// Half of what the venue allows an address (6000 on spot, 2400 on futures): other programs want some.
    fn weight_per_minute(&self) -> u32 {
        match self.params.market {
            Market::Spot => 3000,
            Market::Usdm => 1200,
        }
    }

    fn rows(&self) -> usize {
        self.reader.rows()
    }

    fn finish(&mut self) -> RecordBatch {
        self.reader.finish()
    }

    fn state(&self) -> Value {
        self.reader.state()
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        self.reader.restore(state)
    }
}
