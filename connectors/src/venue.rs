//! What every venue's feed stands on: raw frames, a venue's protocol as a state machine over them, and
//! the two ways frames come about: live connections, and captures of them.
//!
//! The rule of this room: **rows are a function of the frames alone.** A protocol has no clock and does
//! no IO; it reads frames in the order in which they came and says what should be sent or fetched. A
//! capture holds every frame, answers of REST requests among them, so a replay gives the same rows.

mod address;
mod counts;
mod emit;
pub(crate) mod live;
mod replay;

pub mod books;
pub mod continuity;
pub mod feed;
pub mod forming;
pub mod frame;
pub mod ids;
pub mod json;
pub mod once;
pub mod overdue;
pub mod protocol;
pub mod shown;
pub mod table;
pub mod tables;

#[cfg(test)]
pub(crate) mod recorded;
