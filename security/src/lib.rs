//! The part of the security room that runs once for each frame: sections sealed and opened, frames laid out, signatures.
//!
//! Which key a frame takes, who may send it and what is refused why is decided in Python (`meshfold.security`); here are
//! the primitives it decides over and the layout of MF1 (`docs/wire.md`). No clock, no randomness: nonces are counters.

mod frame;
mod section;
mod sign;

pub use frame::{Event, FrameError, HEADER_BYTES, Limits, RouteSeal, SIGNATURE_BYTES, Seat};
pub use section::{SectionKey, TAG_BYTES};
pub use sign::{SigningKey, VerifyingKey, sha256};
