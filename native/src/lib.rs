//! The only crate that knows Python; one thin file per concept, plain data across the boundary.

mod alarm;
mod chain;
mod codec;
mod consensus;
mod convert;
mod envelope;
mod errors;
mod event;
mod graph;
mod hosts;
mod incoming;
mod mailbox;
mod many;
mod nodes;
mod publish;
mod queue;
mod reading;
mod route;
mod run;
mod sealing;
mod spans;
mod stores;
mod turn;
mod values;
mod versions;
mod writes;

#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::alarm::Alarm;
    #[pymodule_export]
    use crate::codec::{check_json, decode_scalar, encode_scalar};
    #[pymodule_export]
    use crate::consensus::{Raft, RaftReady, crc32c, raft_members};
    #[pymodule_export]
    use crate::event::Event;
    #[pymodule_export]
    use crate::graph::GraphBase;
    #[pymodule_export]
    use crate::incoming::{Incoming, push_batch, push_waiting, unpack_batch};
    #[pymodule_export]
    use crate::mailbox::{MailboxBase, attach_mailbox, credit_rows, mailbox_of};
    #[pymodule_export]
    use crate::nodes::{keep_transcript, transcript};
    #[pymodule_export]
    use crate::queue::{Batch, Queue};
    #[pymodule_export]
    use crate::reading::{bound_taints, connections, kept, redact, route_of, taint_bound, wall_ns};
    #[pymodule_export]
    use crate::route::RouteBase;
    #[pymodule_export]
    use crate::sealing::{EventFrame, RouteSeal, SectionKey, SigningKey, VerifyingKey};
    #[pymodule_export]
    use crate::spans::{
        event_span, trace_bridge, trace_counts, trace_ignored, trace_start, trace_stop, trace_take,
    };
    #[pymodule_export]
    use crate::stores::{EventLogBase, KeyspaceBase, derive_all, pack_event, restore};

    #[pymodule_export]
    use crate::writes::{
        checkpoint_rows, end_route, frozen, live_until, lives, own, publish_owned,
        publish_reference,
    };

    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
