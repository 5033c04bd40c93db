//! A frame: one thing that happened on a connection, as it came, before anything looked into it.

use bytes::Bytes;

/// One thing that happened on a connection of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When it was received or sent: nanoseconds since the epoch, by this machine's clock.
    pub received_ns: i64,
    /// Which connection of the feed, from 0; answers of REST requests carry the connection whose frame
    /// asked for them.
    pub connection: u32,
    /// What it is.
    pub kind: FrameKind,
    /// Its bytes: text, binary, a REST answer's body, the URL of an opened connection, the reason of a
    /// closed one.
    pub data: Bytes,
}

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A connection was made; `data` is its URL (without secrets). It has no subscriptions yet.
    Opened,
    /// A connection was lost or cut; `data` says why. Nothing more comes from it until it is opened again.
    Closed,
    /// A text or binary message from the venue.
    Received,
    /// A message to the venue, secrets blanked.
    Sent,
    /// The answer to [`Action::Fetch`](super::protocol::Action::Fetch): its URL (without secrets) and HTTP status; 0 where no
    /// answer came, with the reason in `data`.
    Response {
        /// What was fetched.
        url: String,
        /// The HTTP status.
        status: u16,
    },
}
