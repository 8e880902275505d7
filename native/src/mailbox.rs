//! Mailboxes as Python sees them: consumers that join, receive, acknowledge; and what a full one keeps on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use meshfold_core::engine::{Engine, Kind, Mail};
use meshfold_core::event::Event as Inner;
use meshfold_core::mailbox::{Mailbox, Policy, Settled};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::errors::{error, raise};
use crate::event::Event;
use crate::graph::{GraphBase, State};
use crate::hosts::Host;
use crate::route::RouteBase;
use crate::stores::{EventLogBase, refused};

/// Events brought back from the disk at a time.
const REFILL_MAX: usize = 256;
const REFILL_BYTES: usize = 4 * 1024 * 1024;

/// The file of a mailbox that spills, and the number of the record that comes back next.
pub(crate) struct Spill {
    log: Py<EventLogBase>,
    next: AtomicU64,
    /// One reader at a time, or two would bring the same records.
    reading: AtomicBool,
}

/// The reading end of a mailbox.
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct MailboxBase {
    graph: Py<GraphBase>,
    edge: u32,
}

fn wrong(py: Python<'_>, what: &str, fix: &str) -> PyErr {
    error(py, "WiringError", what, fix, ("item", "mailbox"))
}

/// Hang a mailbox on its ingress route. `spill` keeps on disk what does not fit.
#[pyfunction]
pub(crate) fn attach_mailbox(
    graph: &Bound<'_, GraphBase>,
    ingress: &Bound<'_, RouteBase>,
    name: String,
    policy: &str,
    poison: Option<&Bound<'_, RouteBase>>,
    on_ready: Py<PyAny>,
    spill: Option<Py<EventLogBase>>,
) -> PyResult<MailboxBase> {
    let py = graph.py();
    let policy: Policy =
        serde_json::from_str(policy).map_err(|why| wrong(py, &why.to_string(), ""))?;
    policy
        .check()
        .map_err(|why| wrong(py, &format!("{name}: {why}"), "see MailboxDescriptor"))?;
    let base = graph.get();
    let index = base.index(py, ingress)?;
    let poison = poison.map(|r| base.index(py, r)).transpose()?;
    let mut mailbox = Mailbox::new(policy);
    let spill = match spill {
        Some(log) => {
            // What an earlier life left on disk comes first.
            let next = log.get().left_at().map_err(|why| refused(py, &why))?;
            mailbox.left_over(log.get().next_number() - next);
            Some(Spill {
                log,
                next: AtomicU64::new(next),
                reading: AtomicBool::new(false),
            })
        }
        None => None,
    };
    let kind = Kind::Mail(Box::new(Mail::new(mailbox, poison)));
    let edge = base.hang_mailbox(index, name, kind, Host::Mail(on_ready, spill));
    Ok(MailboxBase {
        graph: graph.clone().unbind(),
        edge,
    })
}

impl State {
    /// Take what is held for edges that went with their routes; to be dropped without the lock.
    pub(crate) fn let_go(&mut self) -> Vec<Option<Arc<Host>>> {
        let gone = self.engine.take_gone();
        if !gone.is_empty() {
            self.readers.clear();
        }
        gone.iter().map(|id| self.hosts.remove(id)).collect()
    }
}

impl GraphBase {
    pub(crate) fn hang_mailbox(&self, route: usize, name: String, kind: Kind, host: Host) -> u32 {
        self.hang(route, name, "mailbox", kind, false, Some(host))
    }

    /// Keep an event of a mailbox on disk.
    pub(crate) fn keep_spilled(&self, py: Python<'_>, edge: u32, event: &Arc<Inner>, host: &Host) {
        let kept = match host {
            Host::Mail(_, Some(spill)) => {
                let log = spill.log.get();
                py.detach(|| log.append_inner(std::slice::from_ref(event)).is_ok())
            }
            _ => false,
        };
        self.state().engine.spilled(edge, event, kept);
    }

    /// Bring back what a mailbox has on disk, as far as it fits; whether anything came.
    pub(crate) fn bring_back(&self, py: Python<'_>, edge: u32, host: &Host) -> PyResult<bool> {
        let Host::Mail(_, Some(spill)) = host else {
            return Ok(false);
        };
        if spill.reading.swap(true, Ordering::AcqRel) {
            return Ok(true);
        }
        let came = self.read_back(py, edge, spill);
        spill.reading.store(false, Ordering::Release);
        came
    }

    fn read_back(&self, py: Python<'_>, edge: u32, spill: &Spill) -> PyResult<bool> {
        let mut next = spill.next.load(Ordering::Acquire);
        let room = {
            let mut state = self.state();
            let Some(mail) = state.engine.mail(edge) else {
                return Ok(false);
            };
            let policy = mail.mailbox.policy();
            let room = policy.capacity.saturating_sub(mail.mailbox.depth());
            if mail.mailbox.fits(0) { room } else { 0 }
        };
        let room = room.min(REFILL_MAX);
        if room == 0 {
            return Ok(false);
        }
        let log = spill.log.get();
        let rows = py.detach(|| log.read_inner(next, room, REFILL_BYTES));
        let rows = rows.map_err(|why| refused(py, &why))?;
        let came = !rows.is_empty();
        for (number, event) in rows {
            self.state().engine.refill(edge, Arc::new(event), number);
            next = number + 1;
        }
        spill.next.store(next, Ordering::Release);
        if let Some(settled) = self.keep_place(py, edge, spill, false) {
            // Only what was worked off leaves the disk. A file that cannot be removed is tried again with the next one.
            let _ = py.detach(|| log.forget_inner(settled));
        }
        Ok(came)
    }

    /// Keep for the next life how far this one has worked off what was on disk; returns it.
    fn keep_place(&self, py: Python<'_>, edge: u32, spill: &Spill, durable: bool) -> Option<u64> {
        // Before the entries are looked at: what comes back meanwhile is not worked off.
        let next = spill.next.load(Ordering::Acquire);
        let oldest = self.state().engine.mail(edge)?.mailbox.oldest_record();
        let settled = oldest.map_or(next, |record| record.min(next));
        // A place that cannot be kept costs duplicates, which say so.
        let _ = py.detach(|| spill.log.get().keep_place(settled, durable));
        Some(settled)
    }
}

impl MailboxBase {
    /// Do something to the mailbox, then what follows from it.
    fn with<T>(&self, py: Python<'_>, act: impl FnOnce(&mut Engine, u32, i64) -> T) -> PyResult<T> {
        let graph = self.graph.get();
        let now = graph.now(py)?;
        let mut state = graph.state();
        let result = act(&mut state.engine, self.edge, now);
        state.engine.settle_mail(self.edge);
        let spilled = state
            .engine
            .mail(self.edge)
            .is_some_and(|mail| mail.mailbox.on_disk() > 0);
        let host = state.host(self.edge);
        drop(state);
        if let Some(host) = host {
            if spilled {
                graph.bring_back(py, self.edge, &host)?;
            } else if let Host::Mail(_, Some(spill)) = &*host {
                graph.keep_place(py, self.edge, spill, false);
            }
        }
        graph.run(py)?;
        graph.let_on(py)?;
        Ok(result)
    }

    fn closed(&self, py: Python<'_>) -> PyErr {
        let what = format!("mailbox {} is closed", self.edge);
        wrong(py, &what, "make a new one")
    }
}

#[pymethods]
impl MailboxBase {
    /// Number of the edge.
    #[getter]
    fn edge(&self) -> u32 {
        self.edge
    }

    /// A consumer joins a group.
    fn join(&self, py: Python<'_>, group: &str, member: &str) -> PyResult<()> {
        let joined = self.with(py, |engine, edge, _| {
            engine
                .mail(edge)
                .map(|mail| mail.mailbox.join(group, member))
        })?;
        let joined = joined.ok_or_else(|| self.closed(py))?;
        joined.map_err(|why| wrong(py, &why, "choose another delivery mode or group"))
    }

    /// A consumer leaves its group.
    fn leave(&self, py: Python<'_>, group: &str, member: &str) -> PyResult<()> {
        self.with(py, |engine, edge, now| {
            if let Some(mail) = engine.mail(edge) {
                mail.mailbox.leave(group, member, now);
            }
        })
    }

    /// Entries of a group become events of a route; returns the member that it is.
    fn connect(
        &self,
        py: Python<'_>,
        group: &str,
        sink: &Bound<'_, RouteBase>,
    ) -> PyResult<String> {
        let index = self.graph.get().index(py, sink)?;
        let added = self.with(py, |engine, edge, _| engine.add_sink(edge, group, index))?;
        added.map_err(|why| wrong(py, &why, "choose another delivery mode or group"))
    }

    /// Take a connected route off.
    fn disconnect(&self, py: Python<'_>, member: &str) -> PyResult<()> {
        self.with(py, |engine, edge, _| engine.remove_sink(edge, member))
    }

    /// (event, ticket, attempt, ns of the deadline) of the next entry, if there is one now.
    fn receive(
        &self,
        py: Python<'_>,
        group: &str,
        member: &str,
    ) -> PyResult<Option<(Event, u64, u32, i64)>> {
        let graph = self.graph.get();
        let now = graph.now(py)?;
        let mut state = graph.state();
        let Some(mail) = state.engine.mail(self.edge) else {
            drop(state);
            return Err(self.closed(py));
        };
        let found = mail.mailbox.receive(group, member, now);
        let poisoned = mail.mailbox.has_poisoned();
        let deadline = mail.mailbox.deadline();
        drop(state);
        if poisoned {
            self.with(py, |_, _, _| ())?;
        }
        if let Some(deadline) = deadline {
            graph.due_by(py, deadline)?;
        }
        let Some(found) = found else { return Ok(None) };
        let event = graph.event(py, found.event)?;
        Ok(Some((event, found.ticket, found.attempt, found.deadline)))
    }

    /// Wait without the interpreter lock until an entry may be there, for at most so many seconds.
    fn wait(&self, py: Python<'_>, timeout: f64) {
        let graph = self.graph.get();
        let edge = self.edge;
        py.detach(|| {
            let mut state = graph.state();
            let seen = posted(&mut state, edge);
            drop(graph.sleep_while(state, timeout, |state| posted(state, edge) == seen));
        });
    }

    /// ("done" | "expired" | "unknown", ticket of who has it now).
    fn ack(&self, py: Python<'_>, ticket: u64) -> PyResult<(&'static str, Option<u64>)> {
        let done = self.with(py, |engine, edge, _| {
            engine
                .mail(edge)
                .map_or(Settled::Unknown, |mail| mail.mailbox.ack(ticket))
        })?;
        Ok(named(done))
    }

    /// As `ack`.
    fn nack(
        &self,
        py: Python<'_>,
        ticket: u64,
        retryable: bool,
        why: &str,
    ) -> PyResult<(&'static str, Option<u64>)> {
        let done = self.with(py, |engine, edge, now| {
            engine.mail(edge).map_or(Settled::Unknown, |mail| {
                mail.mailbox.nack(ticket, retryable, now, why)
            })
        })?;
        Ok(named(done))
    }

    /// Make durable how far what was on disk is worked off; before it is taken off, which gives up what is here.
    fn keep(&self, py: Python<'_>) {
        let graph = self.graph.get();
        let host = graph.state().host(self.edge);
        if let Some(Host::Mail(_, Some(spill))) = host.as_deref() {
            graph.keep_place(py, self.edge, spill, true);
        }
    }

    /// Figures of the moment.
    fn figures<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let graph = self.graph.get();
        let now = graph.now(py)?;
        let mut state = graph.state();
        let Some(mail) = state.engine.mail(self.edge) else {
            drop(state);
            return Err(self.closed(py));
        };
        let mailbox = &mail.mailbox;
        let (groups, producers) = (mailbox.groups(), mailbox.producers());
        let plain = [
            ("depth", mailbox.depth() as u64),
            ("bytes", mailbox.bytes() as u64),
            ("largest_depth", mailbox.largest_depth as u64),
            ("oldest_age_ns", mailbox.oldest_age(now).unsigned_abs()),
            ("spilled", mailbox.on_disk()),
        ];
        drop(state);
        let out = PyDict::new(py);
        for (name, figure) in plain {
            out.set_item(name, figure)?;
        }
        let rows = PyList::empty(py);
        for (name, members, waiting, leased, c) in groups {
            let counts = (c.deliveries, c.redeliveries, c.acks, c.nacks, c.poisoned);
            rows.append((name, members, waiting, leased, counts))?;
        }
        out.set_item("groups", rows)?;
        let rows = PyDict::new(py);
        for ((producer, incarnation), count) in producers {
            rows.set_item((&producer[..], &incarnation[..]), count)?;
        }
        out.set_item("producers", rows)?;
        Ok(out)
    }
}

/// What changes when somebody should look again: entries that came, and settlements that freed some.
fn posted(state: &mut State, edge: u32) -> Option<u64> {
    state.engine.mail(edge).map(|mail| mail.mailbox.changes())
}

fn named(settled: Settled) -> (&'static str, Option<u64>) {
    match settled {
        Settled::Done => ("done", None),
        Settled::Expired(now) => ("expired", now),
        Settled::Unknown => ("unknown", None),
    }
}

/// The reading end of a mailbox that is installed; None if that edge is none.
#[pyfunction]
pub(crate) fn mailbox_of(graph: &Bound<'_, GraphBase>, edge: u32) -> Option<MailboxBase> {
    graph.get().state().engine.mail(edge)?;
    Some(MailboxBase {
        graph: graph.clone().unbind(),
        edge,
    })
}

/// The credit of every edge with a window, as rows of plain figures.
#[pyfunction]
pub(crate) fn credit_rows<'py>(
    py: Python<'py>,
    graph: &GraphBase,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let rows = graph.state().engine.credits();
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        let found = PyDict::new(py);
        found.set_item("edge", row.edge)?;
        found.set_item("capacity", row.capacity)?;
        found.set_item("bytes_max", row.bytes_max)?;
        found.set_item("available", row.available)?;
        found.set_item("available_bytes", row.available_bytes)?;
        found.set_item("gate", row.gate)?;
        found.set_item("overflow", row.overflow)?;
        found.set_item("returned", row.returned)?;
        found.set_item("spent", row.spent.total)?;
        found.set_item("on_the_way", row.spent.events)?;
        found.set_item("waiting", row.spent.waiting)?;
        found.set_item("waits", row.spent.waits)?;
        found.set_item("rejected", row.spent.rejected)?;
        out.push(found);
    }
    Ok(out)
}

/// The error of an edge that refuses or has no credit, where nothing may wait.
pub(crate) fn no_credit(
    py: Python<'_>,
    class: &str,
    text: &str,
    edge: &str,
    capacity: usize,
) -> PyErr {
    let what = format!("{edge} has no room for another event of {text}");
    let fix = match class {
        "QueueFull" => "publish less, or let its consumers catch up",
        _ => "publish waits for credit, apublish too without blocking the event loop",
    };
    raise(
        py,
        class,
        &what,
        fix,
        &[("route", &text), ("capacity", &capacity), ("edge", &edge)],
    )
}

/// The error of an event larger than a window.
pub(crate) fn too_large(py: Python<'_>, text: &str, edge: &str, most: usize) -> PyErr {
    let what =
        format!("an event of {text} is larger than the {most} bytes that {edge} can ever hold");
    raise(
        py,
        "TooLarge",
        &what,
        "split it, or publish it as a lazy payload",
        &[("item", &text), ("limit_bytes", &most)],
    )
}

/// The lane of a route, by its plane and layer (S7).
pub(crate) fn lane_of(text: &str) -> meshfold_core::engine::Lane {
    use meshfold_core::engine::Lane;
    let mut tokens = text.split('.');
    match (tokens.next(), tokens.next()) {
        (Some("write"), Some(_)) => Lane::Control,
        (Some("debug"), Some(_)) => Lane::Debug,
        (_, Some("bulk")) => Lane::Payload,
        _ => Lane::Metadata,
    }
}
