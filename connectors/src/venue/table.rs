//! What a feed of one channel fills, and whose symbols it takes.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill_book::sync::Rule;

use super::books::Books;
use super::protocol::Output;
use super::tables::bars::Bars;
use super::tables::tickers::Tickers;
use super::tables::trades::Trades;

/// The table of a feed; `R` is the rule of its books.
pub enum Table<R> {
    /// Books.
    Book(Box<Books<R>>),
    /// Trades.
    Trades(Trades),
    /// Tickers.
    Tickers(Tickers),
    /// Bars.
    Bars(Bars),
}

impl<R: Rule> Table<R> {
    /// Its columns.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Self::Book(books) => books.schema(),
            Self::Trades(rows) => rows.schema(),
            Self::Tickers(rows) => rows.schema(),
            Self::Bars(rows) => rows.schema(),
        }
    }

    /// Rows kept.
    pub fn rows(&self) -> usize {
        match self {
            Self::Book(books) => books.rows(),
            Self::Trades(rows) => rows.len(),
            Self::Tickers(rows) => rows.len(),
            Self::Bars(rows) => rows.len(),
        }
    }

    /// Takes the rows.
    pub fn finish(&mut self) -> RecordBatch {
        match self {
            Self::Book(books) => books.finish(),
            Self::Trades(rows) => rows.finish(),
            Self::Tickers(rows) => rows.finish(),
            Self::Bars(rows) => rows.finish(),
        }
    }
}

/// The symbols that were asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    venue: &'static str,
    symbols: BTreeSet<String>,
    told: BTreeSet<String>,
}

impl Wanted {
    /// Of a venue.
    pub fn new(venue: &'static str, symbols: &[String]) -> Self {
        Self { venue, symbols: symbols.iter().cloned().collect(), told: BTreeSet::new() }
    }

    /// Whether a symbol was asked for; a stranger is counted, and told of once.
    #[inline]
    pub fn takes(&mut self, symbol: &str, out: &mut Output) -> bool {
        if self.symbols.contains(symbol) {
            return true;
        }
        out.count("unknown_symbols");
        if self.once(symbol) {
            let venue = self.venue;
            out.notices
                .push(format!("{venue}: `{symbol:.64}` comes but was not asked for: it is passed over"));
        }
        false
    }

    /// Whether a symbol was asked for.
    pub fn has(&self, symbol: &str) -> bool {
        self.symbols.contains(symbol)
    }

    /// All of them.
    pub fn symbols(&self) -> &BTreeSet<String> {
        &self.symbols
    }

    /// The venue's list of what it sends: those of ours that aren't there are unknown to it, and told of once.
    pub fn listed(&mut self, there: impl Fn(&str) -> bool, out: &mut Output) {
        let missing: Vec<String> = self.symbols.iter().filter(|symbol| !there(symbol)).cloned().collect();
        for symbol in missing {
            if self.once(&symbol) {
                out.count("refused_subscriptions");
                let venue = self.venue;
                out.notices
                    .push(format!("{venue}: `{symbol}` was not subscribed to: the venue doesn't have it"));
            }
        }
    }

    /// Whether `what` is told for the first time.
    pub fn once(&mut self, what: &str) -> bool {
        !self.told.contains(what) && self.told.insert(what.to_owned())
    }
}

/// A message of a channel that was not asked for (a capture may hold several).
pub fn other(out: &mut Output) -> Result<(), String> {
    out.count("other_messages");
    Ok(())
}
