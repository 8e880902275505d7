//! The graph as Python sees it: the engine under a lock, and the turn that runs it.
//!
//! Rules: Python is never called and no reference count touched while the engine's lock is held; the interpreter lock is
//! never held while waiting. One thread at a time owns the turn (S3).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use meshfold_core::engine::{Engine, INPUT_EVENTS_MAX, Input, Kind, Refused, Step, queue};
use meshfold_core::event::{Event as Inner, EventId, Tag};
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::codec::{decode, encode};
use crate::convert::{counters, cycle, ids, overflow, payloads, taint_bits};
use crate::errors::error;
use crate::event::Event;
use crate::queue::Queue;
use crate::route::RouteBase;

/// Failures of observers kept for `failures()`; all are counted.
const FAILURES_MAX: usize = 256;
/// Events numbered in one go by `publish_many` before their turns run.
pub(crate) const SLICE: usize = 4096;

/// What reads a queue, as `edges()` names it.
const QUEUE_LABELS: [&str; 5] = ["observer", "stream", "tap", "log", "memory"];

/// What the host does for an edge.
enum Host {
    Observe(Py<PyAny>),
    /// Stages of a pipeline, each a map or a filter, and the sink.
    Apply(
        Vec<(bool, Py<PyAny>)>,
        Option<Py<RouteBase>>,
        Option<Py<PyAny>>,
        String,
    ),
    Wake(Option<Py<PyAny>>),
}

pub(crate) struct State {
    pub(crate) engine: Engine,
    owner: Option<ThreadId>,
}

/// Base of `meshfold.core.Graph`.
#[pyclass(subclass, frozen, module = "meshfold._native")]
pub(crate) struct GraphBase {
    state: Mutex<State>,
    /// Signalled when the turn ends or a queue fills: whoever waits looks again.
    pub(crate) changed: Condvar,
    hosts: Mutex<HashMap<u32, Arc<Host>>>,
    routes: Mutex<HashMap<Tag, Py<RouteBase>>>,
    failures: Mutex<(u64, VecDeque<(String, String)>)>,
    clock: Option<Py<PyAny>>,
    producer: Tag,
    incarnation: Tag,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding these locks; should it, the data is whole, for every call keeps it so.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GraphBase {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the binding is where the system clock enters"
    )]
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<i64> {
        if let Some(clock) = &self.clock {
            return clock.bind(py).call_method0("now")?.get_item(0)?.extract();
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Ok(since.map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        }))
    }

    /// Index of a route; a second schema on one address is refused (S1).
    pub(crate) fn index(&self, py: Python<'_>, route: &Bound<'_, RouteBase>) -> PyResult<usize> {
        let tag = route.get().tag;
        let mut routes = locked(&self.routes);
        if let Some(known) = routes.get(&tag) {
            if !known.is(route) {
                let known = known.clone_ref(py);
                drop(routes);
                let same = known.get().schema.bind(py).getattr("id")?.eq(route
                    .get()
                    .schema
                    .bind(py)
                    .getattr("id")?)?;
                if !same {
                    let what = format!("{} is in this graph with another schema", route.get().text);
                    let fix = "use one schema for a route";
                    return Err(error(
                        py,
                        "SchemaMismatch",
                        &what,
                        fix,
                        ("route", &route.get().text),
                    ));
                }
            }
        } else {
            routes.insert(tag, route.clone().unbind());
        }
        Ok(self.state().engine.route(tag))
    }

    pub(crate) fn event(&self, py: Python<'_>, inner: Arc<Inner>) -> PyResult<Event> {
        let route = locked(&self.routes)
            .get(&inner.route)
            .map(|route| route.clone_ref(py));
        let route = route.ok_or_else(|| PyValueError::new_err("event of an unknown route"))?;
        Ok(Event::new(inner, route))
    }

    pub(crate) fn tag(&self) -> Tag {
        self.producer
    }

    pub(crate) fn route_text(&self, tag: Tag) -> String {
        let known = locked(&self.routes);
        known
            .get(&tag)
            .map_or_else(String::new, |route| route.get().text.clone())
    }

    /// Queue numbered events for their turn, then run the turn unless another thread does (S3).
    pub(crate) fn submit(
        &self,
        py: Python<'_>,
        text: &str,
        mut put: impl FnMut(&mut Engine) -> Result<(), Refused> + Send,
    ) -> PyResult<()> {
        let me = std::thread::current().id();
        loop {
            let mut state = self.state();
            match put(&mut state.engine) {
                Ok(()) => {
                    if state.owner.is_some() {
                        return Ok(());
                    }
                    state.owner = Some(me);
                    drop(state);
                    return self.turn(py);
                }
                Err(Refused::Full) if state.owner == Some(me) => {
                    drop(state);
                    let what =
                        format!("the input queue of the graph is full ({INPUT_EVENTS_MAX} events)");
                    return Err(error(
                        py,
                        "QueueFull",
                        &what,
                        "publish less inside an observer",
                        ("route", text),
                    ));
                }
                Err(Refused::Full) => {
                    drop(state);
                    py.detach(|| {
                        let state = self.state();
                        drop(self.changed.wait_timeout(state, Duration::from_millis(10)));
                    });
                    py.check_signals()?;
                }
                Err(Refused::Batch(why)) => {
                    drop(state);
                    return Err(error(
                        py,
                        "DecodeError",
                        &format!("not a batch: {}", why.0),
                        "",
                        ("reason", "batch"),
                    ));
                }
                Err(Refused::Producers) => {
                    drop(state);
                    let what = "too many producers on one route";
                    return Err(error(py, "DecodeError", what, "", ("reason", "limit")));
                }
            }
        }
    }

    /// Run the turn to its end. An exception that is no `Exception` (Ctrl-C) is raised after it.
    fn turn(&self, py: Python<'_>) -> PyResult<()> {
        let mut interrupted = None;
        let mut traced = false;
        loop {
            // Only a sampled event asks for the time after each step; a clock that fails costs a duration, no event.
            let now = traced.then(|| self.now(py).ok()).flatten();
            let mut state = self.state();
            if let Some(now) = now {
                state.engine.tracer.tick(now);
            }
            let step = state.engine.step();
            traced = state.engine.tracer.is_open();
            if matches!(step, Step::Idle) {
                state.owner = None;
            }
            drop(state);
            match step {
                Step::Idle => {
                    self.changed.notify_all();
                    return interrupted.map_or(Ok(()), Err);
                }
                Step::Ready(edge) => {
                    self.changed.notify_all();
                    if let Some(Host::Wake(Some(wake))) = self.host(edge).as_deref() {
                        let result = wake.call0(py).map(|_| ());
                        self.note(py, edge, result, &mut interrupted);
                    }
                }
                Step::Observe(edge, event) => {
                    if let Some(Host::Observe(callback)) = self.host(edge).as_deref() {
                        let result = self
                            .event(py, event)
                            .and_then(|event| callback.call1(py, (event,)).map(|_| ()));
                        self.note(py, edge, result, &mut interrupted);
                    }
                }
                Step::Apply(edge, event) => self.apply(py, edge, &event, &mut interrupted),
            }
        }
    }

    fn apply(
        &self,
        py: Python<'_>,
        edge: u32,
        event: &Arc<Inner>,
        interrupted: &mut Option<PyErr>,
    ) {
        let Some(host) = self.host(edge) else { return };
        let Host::Apply(stages, sink, observer, name) = &*host else {
            return;
        };
        let run = || -> PyResult<Option<Arc<[u8]>>> {
            let source = self.event(py, event.clone())?;
            let mut value = match &event.payload {
                Some(payload) => decode(py, source_route(self, py, event)?.get(), payload)?,
                None => Py::new(py, source)?.getattr(py, "value")?,
            };
            for (is_filter, stage) in stages {
                let result = stage.call1(py, (&value,))?;
                if !is_filter {
                    value = result;
                } else if !result.bind(py).is_truthy()? {
                    return Ok(None);
                }
            }
            if let Some(observer) = observer {
                observer.call1(py, (&value,))?;
            }
            sink.as_ref()
                .map(|sink| encode(sink.get(), value.bind(py)))
                .transpose()
        };
        match run() {
            Ok(payload) => self.state().engine.resume(edge, name, event, payload),
            Err(failure) => self.note(py, edge, Err(failure), interrupted),
        }
    }

    fn host(&self, edge: u32) -> Option<Arc<Host>> {
        locked(&self.hosts).get(&edge).cloned()
    }

    /// A failing observer is isolated: counted and kept, the others go on (S4).
    fn note(
        &self,
        py: Python<'_>,
        edge: u32,
        result: PyResult<()>,
        interrupted: &mut Option<PyErr>,
    ) {
        let Err(failure) = result else { return };
        if !failure.is_instance_of::<PyException>(py) {
            interrupted.get_or_insert(failure);
            return;
        }
        let name = self
            .state()
            .engine
            .edge(edge)
            .map_or_else(String::new, |edge| edge.name.clone());
        let text = failure.to_string();
        let mut failures = locked(&self.failures);
        failures.0 += 1;
        if failures.1.len() >= FAILURES_MAX {
            failures.1.pop_front();
        }
        failures.1.push_back((name, text));
    }

    fn hang(
        &self,
        route: usize,
        name: String,
        label: &'static str,
        kind: Kind,
        host: Option<Host>,
    ) -> u32 {
        // The host first: an event may reach the edge as soon as it is attached.
        let mut hosts = locked(&self.hosts);
        let id = self.state().engine.attach(route, name, label, kind);
        if let Some(host) = host {
            hosts.insert(id, Arc::new(host));
        }
        id
    }
}

fn source_route(graph: &GraphBase, py: Python<'_>, event: &Inner) -> PyResult<Py<RouteBase>> {
    let route = locked(&graph.routes)
        .get(&event.route)
        .map(|route| route.clone_ref(py));
    route.ok_or_else(|| PyValueError::new_err("event of an unknown route"))
}

#[pymethods]
impl GraphBase {
    #[new]
    #[pyo3(signature = (producer, incarnation, clock))]
    fn new(producer: Tag, incarnation: Tag, clock: Option<Py<PyAny>>) -> Self {
        Self {
            state: Mutex::new(State {
                engine: Engine::new(producer, incarnation),
                owner: None,
            }),
            changed: Condvar::new(),
            hosts: Mutex::default(),
            routes: Mutex::default(),
            failures: Mutex::default(),
            clock,
            producer,
            incarnation,
        }
    }

    #[getter]
    fn producer(&self) -> &[u8] {
        &self.producer
    }
    #[getter]
    fn incarnation(&self) -> &[u8] {
        &self.incarnation
    }

    #[pyo3(signature = (r, value, *, time=None, key=None, parents=None, correlation=None, taints=None))]
    #[allow(clippy::too_many_arguments, reason = "the public signature of publish")]
    fn publish(
        &self,
        py: Python<'_>,
        r: &Bound<'_, RouteBase>,
        value: &Bound<'_, PyAny>,
        time: Option<i64>,
        key: Option<String>,
        parents: Option<&Bound<'_, PyAny>>,
        correlation: Option<String>,
        taints: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Event> {
        let route = r.get();
        let payload = encode(route, value)?;
        let ingest = self.now(py)?;
        let index = self.index(py, r)?;
        let input = Input {
            payload: Some(payload),
            time: time.unwrap_or(ingest),
            ingest,
            key: key.map(Into::into),
            correlation: correlation.map(Into::into),
            parents: parents.map_or_else(|| Ok(Vec::new()), |parents| ids(py, parents))?,
            taints: taints.map_or(Ok(0), |taints| taint_bits(py, taints))?,
            operator: None,
        };
        let mut made = None;
        self.submit(py, &route.text, |engine| {
            made = Some(engine.publish(index, input.clone())?);
            Ok(())
        })?;
        let inner = made.ok_or_else(|| PyValueError::new_err("not published"))?;
        Ok(Event::new(inner, r.clone().unbind()))
    }

    /// Publish values one after the other; returns (first, last). Nothing is published if one cannot be encoded.
    #[pyo3(signature = (r, values, times, keys))]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "extracted from Python objects"
    )]
    fn publish_all(
        &self,
        py: Python<'_>,
        r: &Bound<'_, RouteBase>,
        values: &Bound<'_, PyAny>,
        times: Option<Vec<i64>>,
        keys: Option<Vec<String>>,
    ) -> PyResult<(u64, u64)> {
        let (times, keys) = (times.as_deref(), keys.as_deref());
        let route = r.get();
        let payloads = payloads(py, route, values)?;
        let count = payloads.len();
        for given in [times.map(<[_]>::len), keys.map(<[_]>::len)]
            .into_iter()
            .flatten()
        {
            if given != count {
                return Err(PyValueError::new_err(
                    "times and keys need one entry for each value",
                ));
            }
        }
        let ingest = self.now(py)?;
        let index = self.index(py, r)?;
        let (mut first, mut last) = (0, 0);
        for (place, slice) in payloads.chunks(SLICE).enumerate() {
            let mut done = 0;
            self.submit(py, &route.text, |engine| {
                while done < slice.len() {
                    let at = place * SLICE + done;
                    let input = Input {
                        payload: Some(slice[done].clone()),
                        time: times.map_or(ingest, |times| times[at]),
                        ingest,
                        key: keys.map(|keys| keys[at].as_str().into()),
                        ..Input::default()
                    };
                    last = engine.publish(index, input)?.seq;
                    first = if first == 0 { last } else { first };
                    done += 1;
                }
                Ok(())
            })?;
        }
        Ok((first, last))
    }

    /// The newest retained event.
    fn latest(&self, py: Python<'_>, r: &Bound<'_, RouteBase>) -> PyResult<Option<Event>> {
        let index = self.index(py, r)?;
        let found = self.state().engine.latest(index).cloned();
        Ok(found.map(|inner| Event::new(inner, r.clone().unbind())))
    }

    /// Numbers given on the route by this incarnation.
    fn published(&self, py: Python<'_>, r: &Bound<'_, RouteBase>) -> PyResult<u64> {
        let index = self.index(py, r)?;
        Ok(self.state().engine.published(index))
    }

    /// Set what a route keeps: events, payload bytes, age in ns.
    fn retain(
        &self,
        py: Python<'_>,
        r: &Bound<'_, RouteBase>,
        events: usize,
        bytes: Option<usize>,
        age: Option<i64>,
    ) -> PyResult<()> {
        let index = self.index(py, r)?;
        self.state().engine.retain(
            index,
            events,
            bytes.unwrap_or(usize::MAX),
            age.unwrap_or(i64::MAX),
        );
        Ok(())
    }

    /// Attach a direct observer; the latest event is delivered first if `replay` (S4).
    fn attach_observer(
        &self,
        py: Python<'_>,
        r: &Bound<'_, RouteBase>,
        callback: Py<PyAny>,
        name: String,
        replay: bool,
    ) -> PyResult<u32> {
        let index = self.index(py, r)?;
        let replayed = if replay {
            self.state().engine.latest(index).cloned()
        } else {
            None
        };
        let first =
            replayed.map(|inner| callback.call1(py, (Event::new(inner, r.clone().unbind()),)));
        let id = self.hang(
            index,
            name,
            "observer",
            Kind::Direct,
            Some(Host::Observe(callback)),
        );
        if let Some(Err(failure)) = first {
            let mut interrupted = None;
            self.note(py, id, Err(failure), &mut interrupted);
            if let Some(failure) = interrupted {
                return Err(failure);
            }
        }
        Ok(id)
    }

    /// Attach a bounded queue; `on_ready` is called when it goes from empty to non-empty.
    #[pyo3(signature = (r, name, label, capacity, policy, replay, on_ready))]
    #[allow(clippy::too_many_arguments, reason = "plain data for one queue")]
    fn attach_queue(
        slf: &Bound<'_, Self>,
        r: &Bound<'_, RouteBase>,
        name: String,
        label: &str,
        capacity: usize,
        policy: &str,
        replay: bool,
        on_ready: Option<Py<PyAny>>,
    ) -> PyResult<Queue> {
        let py = slf.py();
        let graph = slf.get();
        let index = graph.index(py, r)?;
        let label = QUEUE_LABELS
            .iter()
            .find(|known| **known == label)
            .copied()
            .unwrap_or("observer");
        let kind = queue(capacity, overflow(policy)?);
        let wake = on_ready.as_ref().map(|wake| wake.clone_ref(py));
        let mut hosts = locked(&graph.hosts);
        let mut state = graph.state();
        let id = state.engine.attach(index, name, label, kind);
        // Under one lock with attaching, so there is neither a gap nor a repetition between replay and live (S4).
        let replayed = if replay {
            state.engine.latest(index).cloned()
        } else {
            None
        };
        let mut woken = false;
        if let (Some(event), Some(ring)) = (replayed, state.engine.ring(id)) {
            woken = ring.push(event);
        }
        drop(state);
        hosts.insert(id, Arc::new(Host::Wake(on_ready)));
        drop(hosts);
        if let (true, Some(wake)) = (woken, wake) {
            wake.call0(py)?;
        }
        Ok(Queue {
            graph: slf.clone().unbind(),
            edge: id,
        })
    }

    /// Attach a pipeline: stages are (whether a filter, callable); results go to `sink`, or to `observer`.
    #[pyo3(signature = (r, stages, sink, observer, name))]
    fn attach_pipe(
        &self,
        py: Python<'_>,
        r: &Bound<'_, RouteBase>,
        stages: Vec<(bool, Py<PyAny>)>,
        sink: Option<&Bound<'_, RouteBase>>,
        observer: Option<Py<PyAny>>,
        name: String,
    ) -> PyResult<u32> {
        let source = self.index(py, r)?;
        let target = match sink {
            Some(sink) => self.index(py, sink)?,
            None => usize::MAX,
        };
        if target != usize::MAX && self.state().engine.would_cycle(source, target) {
            return Err(cycle(py, &r.get().text));
        }
        let sink = sink.map(|sink| sink.clone().unbind());
        let host = Host::Apply(stages, sink, observer, name.clone());
        Ok(self.hang(source, name, "pipe", Kind::Apply(target), Some(host)))
    }

    /// Forward every event of `source` to `sink`; cycles are refused (S5).
    fn attach_forward(
        &self,
        py: Python<'_>,
        source: &Bound<'_, RouteBase>,
        sink: &Bound<'_, RouteBase>,
        name: String,
    ) -> PyResult<u32> {
        let from = self.index(py, source)?;
        let to = self.index(py, sink)?;
        if self.state().engine.would_cycle(from, to) {
            return Err(cycle(py, &source.get().text));
        }
        Ok(self.hang(from, name, "connect", Kind::Forward(to), None))
    }

    /// Take an edge off. Idempotent.
    fn detach(&self, edge: u32) {
        let host = locked(&self.hosts).remove(&edge);
        let gone = self.state().engine.detach(edge);
        drop((host, gone));
        self.changed.notify_all();
    }

    /// All edges as (id, name, label, route, counters).
    fn edge_rows<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let rows: Vec<_> = {
            let state = self.state();
            let row = |(id, e): (u32, &meshfold_core::engine::Edge)| {
                (
                    id,
                    e.name.clone(),
                    e.label,
                    state.engine.tag(e.route),
                    e.ledger().total(),
                )
            };
            state.engine.edges().into_iter().map(row).collect()
        };
        let mut out = Vec::with_capacity(rows.len());
        for (id, name, label, tag, total) in rows {
            let route = locked(&self.routes)
                .get(&tag)
                .map(|route| route.clone_ref(py));
            out.push((id, name, label, route, counters(py, &total)?).into_pyobject(py)?);
        }
        Ok(out)
    }

    /// (count, [(edge, error)]) of failing observers.
    fn failure_rows(&self) -> (u64, Vec<(String, String)>) {
        let failures = locked(&self.failures);
        (failures.0, failures.1.iter().cloned().collect())
    }

    /// All routes.
    fn route_objects(&self, py: Python<'_>) -> Vec<Py<RouteBase>> {
        locked(&self.routes)
            .values()
            .map(|route| route.clone_ref(py))
            .collect()
    }

    /// Make a route known without publishing.
    fn declare(&self, py: Python<'_>, r: &Bound<'_, RouteBase>) -> PyResult<()> {
        self.index(py, r).map(|_| ())
    }

    /// A retained event by the parts of its id.
    fn find(
        &self,
        py: Python<'_>,
        producer: Tag,
        incarnation: Tag,
        route: Tag,
        seq: u64,
    ) -> PyResult<Option<Event>> {
        let found = self
            .state()
            .engine
            .find(EventId {
                producer,
                incarnation,
                route,
                seq,
            })
            .cloned();
        found.map(|inner| self.event(py, inner)).transpose()
    }

    /// Push a batch of a remote producer; (delivered, duplicates, lost, first, last).
    #[pyo3(signature = (r, meta, payload, producer, incarnation, taints))]
    #[allow(clippy::too_many_arguments, reason = "plain data for one batch")]
    fn push_batch(
        &self,
        py: Python<'_>,
        r: &Bound<'_, RouteBase>,
        meta: &[u8],
        payload: Option<&[u8]>,
        producer: Tag,
        incarnation: Tag,
        taints: &Bound<'_, PyAny>,
    ) -> PyResult<(u64, u64, u64, u64, u64)> {
        let bits = taint_bits(py, taints)?;
        let ingest = self.now(py)?;
        let index = self.index(py, r)?;
        let mut receipt = None;
        self.submit(py, &r.get().text, |engine| {
            receipt =
                Some(engine.push(index, (meta, payload), producer, incarnation, bits, ingest)?);
            Ok(())
        })?;
        let r = receipt.ok_or_else(|| PyValueError::new_err("not pushed"))?;
        Ok((r.delivered, r.duplicates, r.lost, r.first_seq, r.last_seq))
    }

    /// Numbers up to `last_seq` were sent: returns how many are newly lost.
    fn expect_seq(
        &self,
        py: Python<'_>,
        r: &Bound<'_, RouteBase>,
        producer: Tag,
        incarnation: Tag,
        last_seq: u64,
    ) -> PyResult<u64> {
        let index = self.index(py, r)?;
        Ok(self
            .state()
            .engine
            .expect(index, producer, incarnation, last_seq))
    }

    /// Remote producers of a route: (producer, incarnation, counters, last number, first number counted).
    fn track_rows<'py>(
        &self,
        py: Python<'py>,
        r: &Bound<'_, RouteBase>,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let index = self.index(py, r)?;
        let rows = self.state().engine.tracks(index);
        rows.into_iter()
            .map(|(producer, incarnation, c, last, attach)| {
                let bytes = |tag: Tag| pyo3::types::PyBytes::new(py, &tag);
                (
                    bytes(producer),
                    bytes(incarnation),
                    counters(py, &c)?,
                    last,
                    attach,
                )
                    .into_pyobject(py)
            })
            .collect()
    }
}
