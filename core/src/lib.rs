//! The local graph engine: no Python, no clock, no socket, no thread, no global.

#[rustfmt::skip]
pub mod registry;
