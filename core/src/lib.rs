//! The local graph engine: no Python, no clock, no socket, no thread, no global.
//!
//! The host (the binding crate, a test, a simulator) gives events and time in and asks `step` what to do next; whatever
//! runs foreign code is handed to the host as a step, so that no lock of the host's needs to be held meanwhile.

pub mod batch;
pub mod counters;
pub mod engine;
pub mod event;
pub mod expr;
pub mod ids;
mod inlet;
pub mod json;
pub mod mailbox;
pub mod node;
pub mod operator;
pub mod payload;
#[rustfmt::skip]
pub mod registry;
pub mod ring;
pub mod taint;
pub mod trace;
pub mod value;
