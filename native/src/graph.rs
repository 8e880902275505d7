//! The graph as Python sees it: the engine under a lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meshfold_core::engine::{Engine, Kind, queue};
use meshfold_core::event::{Event as Inner, EventId, Tag};
use meshfold_core::ids::IdMap;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::alarm::{Alarm, Bell};
use crate::convert::{counters, cycle, overflow};
use crate::envelope::Given;
use crate::errors::error;
use crate::event::Event;
use crate::hosts::Host;
use crate::many::whole_numbers;
use crate::queue::Queue;
use crate::route::RouteBase;
use crate::turn::Full;
use crate::values::Grave;

/// Failures of observers kept for `failures()`; all are counted.
pub(crate) const FAILURES_MAX: usize = 256;
/// The longest that a thread waits before it looks for signals.
const MOMENT: Duration = Duration::from_millis(100);
/// Edges with what to call for them.
pub(crate) type Readers = Arc<[(u32, Arc<Host>)]>;

pub(crate) struct State {
    pub(crate) engine: Engine,
    /// The routes by their index in the engine.
    pub(crate) routes: Vec<Py<RouteBase>>,
    /// The thread that runs the turn, as `me` says; 0: none.
    pub(crate) owner: u64,
    /// What to call for edges and nodes.
    pub(crate) hosts: IdMap<Arc<Host>>,
    pub(crate) readers: Vec<Option<Readers>>,
    /// Threads that wait for `changed`.
    pub(crate) sleepers: usize,
    /// Somebody is told of each failure as it happens.
    pub(crate) tells: bool,
}

impl State {
    /// The direct observers of a route; remembered until an edge of the route comes or goes.
    pub(crate) fn readers(&mut self, route: usize) -> Readers {
        if self.readers.len() <= route {
            self.readers.resize(self.routes.len().max(route + 1), None);
        }
        let hosts = &self.hosts;
        let edges = self.engine.edges_of(route).iter();
        let found = || {
            edges
                .filter_map(|id| Some((*id, hosts.get(id)?.clone())))
                .collect()
        };
        self.readers[route].get_or_insert_with(found).clone()
    }

    fn forget_readers(&mut self, route: usize) {
        if let Some(known) = self.readers.get_mut(route) {
            *known = None;
        }
    }

    /// The route of an event.
    pub(crate) fn route_of(&self, py: Python<'_>, event: &Inner) -> Option<Py<RouteBase>> {
        let index = self.engine.index(event.route)?;
        Some(self.routes[index].clone_ref(py))
    }

    pub(crate) fn host(&self, id: u32) -> Option<Arc<Host>> {
        self.hosts.get(&id).cloned()
    }
}

/// Base of `meshfold.core.Graph`.
#[pyclass(subclass, frozen, module = "meshfold._native")]
pub(crate) struct GraphBase {
    /// Tells graphs apart in what routes remember; never 0, and another one once a schema was taken over.
    pub(crate) number: AtomicU32,
    state: Mutex<State>,
    /// Signalled when the turn ends or a queue fills: whoever waits looks again.
    pub(crate) changed: Condvar,
    pub(crate) failures: Mutex<(u64, VecDeque<(String, String)>)>,
    /// Whether somebody waits in `rooms`.
    pub(crate) waiting: AtomicBool,
    pub(crate) rooms: Mutex<Vec<Py<PyAny>>>,
    pub(crate) grave: Grave,
    pub(crate) bell: Arc<Bell>,
    pub(crate) alarmed: AtomicBool,
    /// Called once, when the first operator waits for time.
    pub(crate) starter: Mutex<Option<Py<PyAny>>>,
    /// Called with each failure of an observer or operator: its name, its route, what happened.
    pub(crate) failed: Mutex<Option<Py<PyAny>>>,
    clock: Option<Py<PyAny>>,
    pub(crate) producer: Tag,
    pub(crate) incarnation: Tag,
}

/// Numbers of graphs in this process: they only tell what a route remembers apart.
pub(crate) static NUMBERS: AtomicU32 = AtomicU32::new(1);

static THREADS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static ME: u64 = THREADS.fetch_add(1, Ordering::Relaxed);
}

/// A number of this thread, never 0. Unlike `std::thread::current` it counts no references.
pub(crate) fn me() -> u64 {
    ME.with(|number| *number)
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding these locks; should it, the data is whole, for every call keeps it so.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GraphBase {
    /// The state, with everything worked on that was deferred. Whoever looks at the graph or changes it comes this way.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.settled(self.unsettled())
    }

    /// The state while events may be deferred: only to defer one more.
    pub(crate) fn unsettled(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    #[inline]
    pub(crate) fn settled<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.engine.settle() {
            return state;
        }
        self.finish(state)
    }

    /// The rare way: a result that Python has to encode, or a failure.
    fn finish<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        drop(state);
        Python::attach(|py| {
            if let Err(failure) = self.run(py) {
                failure.write_unraisable(py, None);
            }
        });
        locked(&self.state)
    }

    /// Wait while `idle` holds, looking again whenever a turn has changed something, for at most so many seconds.
    pub(crate) fn sleep_while<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        seconds: f64,
        idle: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        state.sleepers += 1;
        let limit = Duration::from_secs_f64(seconds.clamp(0.0, 3600.0));
        let waited = self.changed.wait_timeout_while(state, limit, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.sleepers -= 1;
        state
    }

    /// Wait until a turn has changed something, or for a moment: then signals are looked at.
    pub(crate) fn nap<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.sleepers += 1;
        let waited = self.changed.wait_timeout(state, MOMENT);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.sleepers -= 1;
        state
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
        // 64 bits hold ns until the year 2262.
        Ok(since.map_or(0, |since| {
            (since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())).cast_signed()
        }))
    }

    pub(crate) fn event(&self, py: Python<'_>, inner: Arc<Inner>) -> PyResult<Event> {
        let route = self.state().route_of(py, &inner);
        let route = route.ok_or_else(|| PyValueError::new_err("event of an unknown route"))?;
        Ok(Event::new(inner, route))
    }

    pub(crate) fn route_text(&self, tag: Tag) -> String {
        let state = self.state();
        let index = state.engine.index(tag);
        index.map_or_else(String::new, |index| state.routes[index].get().text.clone())
    }

    /// The route with this index in the engine.
    pub(crate) fn route_at(&self, py: Python<'_>, index: u32) -> Option<Py<RouteBase>> {
        let state = self.state();
        state
            .routes
            .get(index as usize)
            .map(|route| route.clone_ref(py))
    }

    pub(crate) fn hang(
        &self,
        route: usize,
        name: String,
        label: &str,
        kind: Kind,
        replay: bool,
        host: Option<Host>,
    ) -> u32 {
        let mut state = self.state();
        let id = state.engine.attach(route, name, label, kind, replay);
        if let Some(host) = host {
            state.hosts.insert(id, Arc::new(host));
        }
        state.forget_readers(route);
        id
    }
}

#[pymethods]
impl GraphBase {
    #[new]
    #[pyo3(signature = (producer, incarnation, clock))]
    fn new(producer: Tag, incarnation: Tag, clock: Option<Py<PyAny>>) -> Self {
        Self {
            number: AtomicU32::new(NUMBERS.fetch_add(1, Ordering::Relaxed)),
            state: Mutex::new(State {
                engine: Engine::new(producer, incarnation),
                routes: Vec::new(),
                owner: 0,
                hosts: IdMap::default(),
                readers: Vec::new(),
                sleepers: 0,
                tells: false,
            }),
            changed: Condvar::new(),
            failures: Mutex::default(),
            waiting: AtomicBool::new(false),
            rooms: Mutex::default(),
            grave: Grave::default(),
            bell: Arc::default(),
            alarmed: AtomicBool::new(false),
            starter: Mutex::default(),
            failed: Mutex::default(),
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

    #[pyo3(signature = (r, value, *, time=None, key=None, parents=None, correlation=None, taints=None, labels=None, guards=None, qos=None, epoch=None, clock=None, logical_time=None, traceparent=None), text_signature = "($self, r, value, *, time=None, key=None, parents=None, correlation=None, \
        taints=None, labels=None, guards=None, qos=0, epoch=0, clock=None, logical_time=0, traceparent=None)")]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn publish(
        &self,
        r: &Bound<'_, RouteBase>,
        value: &Bound<'_, PyAny>,
        time: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        parents: Option<&Bound<'_, PyAny>>,
        correlation: Option<&Bound<'_, PyAny>>,
        taints: Option<&Bound<'_, PyAny>>,
        labels: Option<&Bound<'_, PyAny>>,
        guards: Option<&Bound<'_, PyAny>>,
        qos: Option<&Bound<'_, PyAny>>,
        epoch: Option<&Bound<'_, PyAny>>,
        clock: Option<&Bound<'_, PyAny>>,
        logical_time: Option<&Bound<'_, PyAny>>,
        traceparent: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Event>> {
        let given = Given {
            time,
            key,
            parents,
            correlation,
            taints,
            labels,
            guards,
            qos,
            epoch,
            clock,
            logical_time,
            traceparent,
        };
        self.publish_one(r, value, Full::Wait, &given, false)
    }

    /// As `publish`; raises `WouldBlock` instead of waiting for room.
    #[pyo3(signature = (r, value, *, time=None, key=None, parents=None, correlation=None, taints=None, labels=None, guards=None, qos=None, epoch=None, clock=None, logical_time=None, traceparent=None), text_signature = "($self, r, value, *, time=None, key=None, parents=None, correlation=None, \
        taints=None, labels=None, guards=None, qos=0, epoch=0, clock=None, logical_time=0, traceparent=None)")]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn try_publish(
        &self,
        r: &Bound<'_, RouteBase>,
        value: &Bound<'_, PyAny>,
        time: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        parents: Option<&Bound<'_, PyAny>>,
        correlation: Option<&Bound<'_, PyAny>>,
        taints: Option<&Bound<'_, PyAny>>,
        labels: Option<&Bound<'_, PyAny>>,
        guards: Option<&Bound<'_, PyAny>>,
        qos: Option<&Bound<'_, PyAny>>,
        epoch: Option<&Bound<'_, PyAny>>,
        clock: Option<&Bound<'_, PyAny>>,
        logical_time: Option<&Bound<'_, PyAny>>,
        traceparent: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Event>> {
        let given = Given {
            time,
            key,
            parents,
            correlation,
            taints,
            labels,
            guards,
            qos,
            epoch,
            clock,
            logical_time,
            traceparent,
        };
        self.publish_one(r, value, Full::Raise, &given, false)
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
        times: Option<&Bound<'_, PyAny>>,
        keys: Option<Vec<String>>,
    ) -> PyResult<(u64, u64)> {
        let times = times.map(|times| whole_numbers(py, times)).transpose()?;
        self.publish_slices(py, r, values, times.as_deref(), keys.as_deref())
    }

    /// The newest retained event.
    fn latest(&self, py: Python<'_>, r: &Bound<'_, RouteBase>) -> PyResult<Option<Event>> {
        let index = self.index(py, r)?;
        let found = self.state().engine.latest(index).cloned();
        Ok(found.map(|inner| Event::new(inner, r.clone().unbind())))
    }

    /// What the route retains, oldest first.
    fn history(&self, py: Python<'_>, r: &Bound<'_, RouteBase>) -> PyResult<Vec<Event>> {
        let index = self.index(py, r)?;
        let kept = self.state().engine.history(index);
        let event = |inner| Event::new(inner, r.clone().unbind());
        Ok(kept.into_iter().map(event).collect())
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
        let host = Some(Host::Observe(callback));
        let id = self.hang(index, name, "observer", Kind::Direct, replay, host);
        // What is replayed is delivered by the turn, before anything newer (S4).
        self.run(py)?;
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
        let kind = queue(capacity, overflow(policy)?);
        let wake = on_ready.as_ref().map(|wake| wake.clone_ref(py));
        let host = Some(Host::Wake(on_ready));
        let id = graph.hang(index, name, label, kind, replay, host);
        let waits = graph
            .state()
            .engine
            .ring(id)
            .is_some_and(|ring| !ring.is_empty());
        if let (true, Some(wake)) = (waits, wake) {
            wake.call0(py)?;
        }
        Ok(Queue {
            graph: slf.clone().unbind(),
            edge: id,
        })
    }

    /// Install a node from its description (JSON); returns its id. `functions` has, for each foreign stage, a list
    /// of (way, callable).
    #[pyo3(signature = (spec, routes, functions, observer))]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "extracted from Python objects"
    )]
    fn install(
        &self,
        py: Python<'_>,
        spec: &str,
        routes: Vec<Bound<'_, RouteBase>>,
        functions: Vec<Vec<(String, Py<PyAny>)>>,
        observer: Option<Py<PyAny>>,
    ) -> PyResult<u32> {
        self.install_node(py, spec, &routes, functions, observer)
    }

    /// All nodes: (id, name, label, stages, inputs, sink, sides, emitted, failed, dropped, edges).
    fn node_rows<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.describe_nodes(py)
    }

    /// The state of a node: bytes for each of its stages.
    fn save_node<'py>(&self, py: Python<'py>, id: u32) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let saved = self.state().engine.save(id);
        let wrong = |why: &str| error(py, "WiringError", why, "", ("item", "state"));
        let states = saved.map_err(|why| wrong(&why.0))?;
        Ok(states.iter().map(|state| PyBytes::new(py, state)).collect())
    }

    /// Take over a saved state.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "extracted from Python objects"
    )]
    fn load_node(&self, py: Python<'_>, id: u32, states: Vec<Vec<u8>>) -> PyResult<()> {
        let loaded = self.state().engine.load(id, &states);
        self.grave.empty();
        let wrong = |why: &str| {
            error(
                py,
                "WiringError",
                why,
                "restore into the same operator",
                ("item", "state"),
            )
        };
        loaded.map_err(|why| wrong(&why.0))
    }

    /// Let operators that wait for time act up to now; returns the ns of the next deadline. `clock_set`: by how many ns
    /// the wall clock was set since the last call.
    #[pyo3(signature = (clock_set=0))]
    fn advance(&self, py: Python<'_>, clock_set: i64) -> PyResult<Option<i64>> {
        let now = self.now(py)?;
        let mut state = self.state();
        if clock_set != 0 {
            state.engine.clock_set(clock_set);
        }
        state.engine.advance(now);
        let hosts = state.let_go();
        drop(state);
        drop(hosts);
        self.run(py)?;
        let deadline = self.state().engine.deadline();
        self.ring_at(py, deadline.unwrap_or(i64::MAX))?;
        Ok(deadline)
    }

    /// What is called once, when the first operator waits for time; it must not hold the graph.
    fn on_timed(&self, start: Py<PyAny>) {
        *locked(&self.starter) = Some(start);
    }

    /// Call this with each failure from now on: (name, route, what happened); None: no more.
    #[pyo3(signature = (call))]
    fn on_failure(&self, call: Option<Py<PyAny>>) {
        self.state().tells = call.is_some();
        let before = std::mem::replace(&mut *locked(&self.failed), call);
        drop(before);
    }

    /// How many events may be published on a route now without waiting.
    fn room_for(&self, py: Python<'_>, r: &Bound<'_, RouteBase>) -> PyResult<usize> {
        let index = self.index(py, r)?;
        Ok(self.state().engine.available(index))
    }

    /// What readers that hold producers up still take: (events, bytes where they are counted); None where none does.
    fn window_for(
        &self,
        py: Python<'_>,
        r: &Bound<'_, RouteBase>,
    ) -> PyResult<Option<(usize, Option<usize>)>> {
        let index = self.index(py, r)?;
        Ok(self.state().engine.window(index))
    }

    /// Now, in ns of the graph's clock.
    fn now_ns(&self, py: Python<'_>) -> PyResult<i64> {
        self.now(py)
    }

    /// What a thread sleeps on that calls `advance` when it is time; None where the clock is not the system's.
    fn alarm(&self) -> Option<Alarm> {
        self.clock.is_none().then(|| Alarm::new(self.bell.clone()))
    }

    /// When `advance` should be called next.
    fn deadline(&self) -> Option<i64> {
        self.state().engine.deadline()
    }

    /// Call `call` once when an event of the route, of so many bytes, may be published again.
    #[pyo3(signature = (call, r, bytes=0))]
    fn when_room(
        &self,
        py: Python<'_>,
        call: Py<PyAny>,
        r: &Bound<'_, RouteBase>,
        bytes: usize,
    ) -> PyResult<()> {
        let index = self.index(py, r)?;
        locked(&self.rooms).push(call);
        self.waiting.store(true, Ordering::Release);
        let mut state = self.state();
        let room = state.owner == 0 && state.engine.admits(index, bytes);
        drop(state);
        if room {
            let calls = std::mem::take(&mut *locked(&self.rooms));
            for call in calls {
                call.call0(py)?;
            }
        }
        Ok(())
    }

    /// Forward every event of `source` to `sink`; cycles are refused (S5). `propagate`: what is behind it holds producers up.
    fn attach_forward(
        &self,
        py: Python<'_>,
        source: &Bound<'_, RouteBase>,
        sink: &Bound<'_, RouteBase>,
        name: String,
        propagate: bool,
    ) -> PyResult<u32> {
        let from = self.index(py, source)?;
        let to = self.index(py, sink)?;
        if self.state().engine.would_cycle(from, to) {
            return Err(cycle(py, &source.get().text));
        }
        Ok(self.hang(
            from,
            name,
            "connect",
            Kind::Forward(to, propagate),
            false,
            None,
        ))
    }

    /// Take an edge or a node off. Idempotent.
    fn detach(&self, edge: u32) {
        let mut state = self.state();
        let host = state.hosts.remove(&edge);
        let gone = state.engine.detach(edge);
        for edge in &gone {
            state.forget_readers(edge.route);
        }
        drop(state);
        drop((host, gone));
        self.grave.empty();
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
                    e.label.to_string(),
                    state.routes[e.route].clone_ref(py),
                    e.ledger().total(),
                )
            };
            state.engine.edges().into_iter().map(row).collect()
        };
        let mut out = Vec::with_capacity(rows.len());
        for (id, name, label, route, total) in rows {
            out.push((id, name, label, route, counters(py, &total)?).into_pyobject(py)?);
        }
        Ok(out)
    }

    /// (count, [(edge, error)]) of failing observers.
    fn failure_rows(&self) -> (u64, Vec<(String, String)>) {
        // What waited may have failed.
        drop(self.state());
        let failures = locked(&self.failures);
        (failures.0, failures.1.iter().cloned().collect())
    }

    /// All routes.
    fn route_objects(&self, py: Python<'_>) -> Vec<Py<RouteBase>> {
        let state = self.state();
        state
            .routes
            .iter()
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
