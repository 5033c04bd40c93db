//! Kafka: the source, and what its sink and the tools share.
//!
//! [`client`] holds the connection settings and turns librdkafka's logs into traces; [`embedded`]
//! is the in-process broker behind `brokers: embedded`; [`admin`] makes, lists, fills and reads
//! topics; the source is [`source`], one reader a partition in [`reader`], its messages made rows
//! in [`format`] and, with the schemas of a [`registry`], in [`avro`].
//! [`history`] puts archived rows before what Kafka still has.

pub mod admin;
pub mod avro;
pub mod client;
pub mod embedded;
pub mod format;
pub mod history;
mod reader;
pub mod registry;
pub mod source;

pub use client::Connection;
pub use embedded::embedded_address;
pub use source::{Kafka, Params};
