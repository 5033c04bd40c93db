//! Books: differences of the `depth` stream over REST snapshots, by the venue's rule.
//!
//! The rules are [`tidemill_book::sync::binance_spot`] and [`tidemill_book::sync::binance_futures`]; what becomes of their
//! outcomes is [`crate::venue::books`]. A snapshot is asked for with the first difference and whenever a book is found wrong.
//!
//! What can be seen, and what can't:
//!
//! | fault | spot | USD-M futures |
//! |---|---|---|
//! | a lost difference | at the symbol's next: its `U` is not the last `u` + 1 | at the next: its `pu` is not the last `u` |
//! | a repeated or late one | passed over, counted (`u` at or below the last) | the same |
//! | two that change places | the first to come shows the gap | the same |
//! | a connection lost | at once | at once |
//! | a message that can't be read | at once | at once |
//! | a wrong price or size in a difference | **not seen**, unless it crosses the book or is negative | the same |
//! | a wrong `u` | too low: at the next; too high: **not seen** (those after it are taken for repeated ones) | the same |
//! | a wrong `U` | too high: at once; too low: not seen, and harmless | not seen, and harmless |
//! | a wrong `pu` | there is none | at once |
//! | a lost last difference of a symbol that falls silent | **not seen** until the next one comes | the same |
//! | a wrong price or size in a snapshot | **not seen**, unless it crosses the book | the same |
//! | a level beyond the snapshot's 1000 a side | not known until it changes | the same |

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill_book::Levels;
use tidemill_book::sync::{BinanceFutures, BinanceSpot, Fault, FaultKind, FuturesIds, Rule, SpotIds};

use super::Params;
use super::feed::{Reader, Symbols, path, rest};
use super::refused;
use super::wire::{self, DepthSnapshot, DepthUpdate};
use crate::venue::books::{At, BookParams, Books, Resync};
use crate::venue::frame::Frame;
use crate::venue::json;
use crate::venue::protocol::Output;

/// Levels a side that a snapshot is asked for.
pub const SNAPSHOT_LEVELS: usize = 1000;

/// A rule with the ids of this venue.
pub(super) trait BinanceRule: Rule<SnapshotMark = u64> + Default + Send + 'static {
    /// The ids of a difference.
    fn mark(update: &DepthUpdate<'_>) -> Result<Self::UpdateMark, String>;
}

impl BinanceRule for BinanceSpot {
    fn mark(update: &DepthUpdate<'_>) -> Result<SpotIds, String> {
        Ok(SpotIds { first: update.first, last: update.last })
    }
}

impl BinanceRule for BinanceFutures {
    fn mark(update: &DepthUpdate<'_>) -> Result<FuturesIds, String> {
        let previous = update.previous.ok_or("missing field `pu`: is it a message of the spot market?")?;
        Ok(FuturesIds { first: update.first, last: update.last, previous })
    }
}

/// Reads the channel.
pub(super) struct Depth<R> {
    books: Books<R>,
    /// What the path of a snapshot's URL begins with; the symbol follows.
    path: String,
    /// The venue's time of each symbol's last event: spot's snapshots have none.
    last_ns: Vec<i64>,
    /// Of each connection: which carry the same, and whether it is open.
    connections: Vec<(u32, bool)>,
}

impl<R: BinanceRule> Depth<R> {
    pub(super) fn new(params: &Params, symbols: &Symbols) -> Self {
        let (market, base) = (params.market, rest(params));
        let weight = market.depth_weight();
        let url = {
            let base = base.clone();
            move |symbol: &str| (format!("{base}/depth?symbol={symbol}&limit={SNAPSHOT_LEVELS}"), weight)
        };
        let wanted = BookParams { output: params.book.output, depth: params.book.depth };
        let resync = Resync::Fetch(Box::new(url));
        let books = Books::new(market.venue(), &wanted, resync, |_: &str| R::default());
        let path = format!("{}/depth?symbol=", path(&base));
        let connections = super::streams::endpoints(params).iter().map(|e| (e.group, false)).collect();
        Self { books, path, last_ns: vec![0; symbols.len()], connections }
    }

    /// The symbol whose snapshot a URL asks for.
    fn asked(&self, url: &str, symbols: &Symbols) -> Option<usize> {
        let symbol = path(url).strip_prefix(self.path.as_str())?;
        symbols.get(symbol.split('&').next().unwrap_or(symbol))
    }

    /// Never before what was told of the symbol; the time of receipt where nothing was.
    fn time(&self, symbol: usize, at: Option<wire::VenueTime>, frame: &Frame) -> i64 {
        let known = at.map_or(0, |t| t.0).max(self.last_ns[symbol]);
        if known > 0 { known } else { frame.received_ns }
    }
}

impl<R: BinanceRule> Reader for Depth<R> {
    fn schema(&self) -> SchemaRef {
        self.books.schema()
    }

    fn received(&mut self, frame: &Frame, symbols: &Symbols, out: &mut Output) -> Result<(), String> {
        let update = wire::event::<DepthUpdate<'_>>(&frame.data)?.data;
        if update.e != "depthUpdate" {
            return Err(format!("the message is a `{}`, not a `depthUpdate`", update.e));
        }
        let symbol = symbols.find(update.s)?;
        let mark = R::mark(&update)?;
        let ts_ns = update.at.unwrap_or(update.sent_at).0;
        self.last_ns[symbol] = self.last_ns[symbol].max(ts_ns);
        let levels = Levels { bids: &update.bids.0, asks: &update.asks.0 };
        self.books.update(At { symbol: update.s, ts_ns, frame }, levels, mark, out);
        Ok(())
    }

    fn answered(&mut self, url: &str, status: u16, frame: &Frame, symbols: &Symbols, out: &mut Output) {
        let Some(symbol) = self.asked(url, symbols) else { return out.count("unknown_answers") };
        let name = symbols.name(symbol);
        if status != 200 {
            out.count("failed_requests");
            out.notices.push(refused::failure(url, status, &frame.data));
            return self.books.fetch_failed(name);
        }
        match json::read::<DepthSnapshot>(&frame.data) {
            Ok(snapshot) => {
                let levels = Levels { bids: &snapshot.bids.0, asks: &snapshot.asks.0 };
                let ts_ns = self.time(symbol, snapshot.at, frame);
                self.last_ns[symbol] = ts_ns;
                self.books.snapshot(At { symbol: name, ts_ns, frame }, levels, snapshot.last, out);
            }
            Err(e) => {
                out.count("failed_requests");
                out.reject(frame, self.books.rows(), format!("the book of {name} can't be read: {e}"));
                self.books.fetch_failed(name);
            }
        }
    }

    fn lost(&mut self, symbol: Option<usize>, frame: &Frame, symbols: &Symbols, out: &mut Output) {
        let fault = Fault::new(FaultKind::Gap, "a message could not be read");
        match symbol {
            Some(symbol) => {
                let ts_ns = self.time(symbol, None, frame);
                self.books.invalidate(At { symbol: symbols.name(symbol), ts_ns, frame }, &fault, out);
            }
            None => {
                let ts_ns = self.last_ns.iter().copied().max().filter(|ns| *ns > 0);
                let ts_ns = ts_ns.unwrap_or(frame.received_ns);
                self.books.invalidate_connection(frame, ts_ns, &fault, out);
            }
        }
    }

    fn opened(&mut self, frame: &Frame) {
        if let Some((_, open)) = self.connections.get_mut(frame.connection as usize) {
            *open = true;
        }
        self.books.opened(frame);
    }

    /// While another connection that carries the same is open, nothing is lost, also of symbols of which it has brought nothing yet.
    fn closed(&mut self, frame: &Frame, out: &mut Output) {
        let Some((group, open)) = self.connections.get_mut(frame.connection as usize) else {
            return self.books.closed(frame, out);
        };
        *open = false;
        let group = *group;
        if self.connections.contains(&(group, true)) {
            return;
        }
        for (connection, _) in (0..).zip(&self.connections).filter(|(_, (g, _))| *g == group) {
            self.books.closed(&Frame { connection, ..frame.clone() }, out);
        }
    }

    fn rows(&self) -> usize {
        self.books.rows()
    }

    fn finish(&mut self) -> RecordBatch {
        self.books.finish()
    }
}
