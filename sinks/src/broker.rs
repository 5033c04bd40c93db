//! Orders to a broker, each once: the journal before the wire, and the venue asked before anything is sent a second time.
//!
//! | module | what it is |
//! |---|---|
//! | [`command`] | what a row asks for |
//! | [`desk`] | sends commands, whatever happens on the way |
//! | [`writer`] | the sink around a desk; dry runs |
//!
//! # What happens to an order
//! 1. Its row comes. An order that the journal knows to be answered is left out: the row is a replay.
//! 2. It is written into the journal and synced to the disk.
//! 3. It is sent, with its name as client order id.
//! 4. The answer is written into the journal.
//!
//! A crash before 2 leaves nothing; the row comes again, with the same name. A crash between 2 and 4 leaves a request that may
//! have been sent: the venue is asked for an order of that name, and only where it has none it is sent. The same is done where
//! an answer does not come, or says nothing of the order (5xx, a timeout, a cut connection). Between the question and the
//! sending a first sending that was delayed on its way may still arrive; then the venue has two of one name, and refuses
//! the second: that it takes a client order id once is what the promise rests on in the end.
//!
//! Orders do not wait for checkpoints. After a restart rows since the last checkpoint come again; that they have the same names
//! is the engine's law. Rows of one symbol are sent one after the other, those of several symbols beside each other.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_connectors::broker::journal::Request;

pub mod command;
pub mod desk;
pub mod writer;

use command::Command;

/// What a venue answers to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was taken; the venue's id of the order, where it gives one.
    Taken(Option<String>),
    /// It was refused, and will be again: why.
    Refused(String),
    /// The venue has an order of that name already.
    Duplicate,
    /// It was not taken, and may be after this time.
    Busy(Duration),
    /// Nobody knows whether it was taken: why.
    Unknown(String),
    /// The venue takes nothing from us, whatever it is: why.
    Fatal(String),
}

/// What a venue has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An order.
    There {
        /// The venue's id.
        id: String,
        /// Nothing more can happen to it.
        over: bool,
    },
    /// None.
    Missing,
    /// It did not say, and may after this time.
    Busy(Duration),
    /// It did not say: why.
    Unknown(String),
    /// It takes nothing from us: why.
    Fatal(String),
}

/// Whether an order may be sent, as the account stands at the venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It may.
    Yes,
    /// It would do what it must not: why.
    No(String),
    /// The venue did not say: why.
    Unknown(String),
    /// It takes nothing from us: why.
    Fatal(String),
}

/// A venue that takes orders. What it does is tried once; when to try again is the desk's business.
#[async_trait]
pub trait Venue: Send + Sync + 'static {
    /// The request for a command; `target` is the venue's id of the order that is changed or cancelled. `Err`: the venue has no such thing,
    /// and why.
    fn encode(&self, command: &Command, target: Option<&str>) -> Result<Request, String>;

    /// Asked right before an order is sent: for conditions that the venue itself does not keep (reduce-only, say).
    async fn leave(&self, _command: &Command) -> Leave {
        Leave::Yes
    }

    /// What is wrong with this machine's clock, as far as the venue's answers tell.
    fn clock(&self) -> Option<String> {
        None
    }

    /// Sends a request.
    async fn send(&self, request: &Request) -> Answer;

    /// Looks for what a request with this key made: an order or a replacement of that client order id.
    async fn find(&self, key: &str) -> Found;

    /// Looks for the order that stands under this name now, replacements followed to their end.
    async fn resolve(&self, order: &str) -> Found;
}
