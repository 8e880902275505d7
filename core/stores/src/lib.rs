//! Durable stores (S35): byte keyspaces on redb, and an append-only event log of our own.
//!
//! The engine crate has no files; they are here. Nothing here knows Python, a clock or a thread.

pub mod error;
pub mod key;
pub mod keyspace;
mod lease;
pub mod log;
mod place;
pub mod record;
mod segment;
