//! Kafka: the source, and what its sink and the tools share.
//!
//! [`client`] holds the connection settings and turns librdkafka's logs into traces; [`embedded`]
//! is the in-process broker behind `brokers: embedded`; [`admin`] makes, lists, fills and reads
//! topics; the source is [`source`], one reader a partition in [`reader`], its messages made rows
//! in [`format`].

pub mod admin;
pub mod client;
pub mod embedded;
pub mod format;
mod reader;
pub mod source;

pub use client::Connection;
pub use embedded::embedded_address;
pub use source::{Kafka, Params};
