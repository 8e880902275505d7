//! Where a route lies in a graph, and what happens when it comes with another version of its schema (S1).
//!
//! An address has one schema in a graph at a time. What an accepted older schema publishes is upcast on its way in; a
//! newer schema that accepts the one there takes the address over while nobody is bound to it; all else is refused.

use std::sync::atomic::Ordering;

use meshfold_core::payload::Payload;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::error;
use crate::graph::{GraphBase, NUMBERS};
use crate::mailbox::lane_of;
use crate::route::RouteBase;

/// How often an address is tried to be taken over while others publish on it.
const ADOPTIONS_MAX: usize = 100;

/// The parts of a Python schema that decide here.
struct Version<'py> {
    schema: Bound<'py, PyAny>,
    id: Vec<u8>,
}

impl<'py> Version<'py> {
    fn of(py: Python<'py>, route: &RouteBase) -> PyResult<Self> {
        let schema = route.schema.bind(py).clone();
        let id = schema.getattr("id")?.extract()?;
        Ok(Self { schema, id })
    }

    fn accepts(&self, other: &Self) -> PyResult<bool> {
        let ways = self.schema.getattr("upcasters")?;
        ways.contains(PyBytes::new(self.schema.py(), &other.id))
    }

    fn upcast(&self, from: &Self, data: &[u8]) -> PyResult<Payload> {
        let py = self.schema.py();
        let args = (PyBytes::new(py, &from.id), PyBytes::new(py, data));
        let data = self.schema.call_method1("upcast", args)?;
        Ok(Payload::copy(data.cast::<PyBytes>()?.as_bytes()))
    }

    fn name(&self) -> PyResult<String> {
        let version: u32 = self.schema.getattr("version")?.extract()?;
        Ok(format!(
            "{} v{version}",
            self.schema.getattr("name")?.str()?
        ))
    }
}

impl GraphBase {
    /// Index of a route whose bytes are as the graph holds them.
    pub(crate) fn index(&self, py: Python<'_>, route: &Bound<'_, RouteBase>) -> PyResult<usize> {
        if let Some(index) = self.known(route.get()) {
            return Ok(index);
        }
        let number = self.number.load(Ordering::Acquire);
        let (index, known) = self.place(py, route);
        if let Some(known) = known {
            let (ours, there) = (Version::of(py, route.get())?, Version::of(py, known.get())?);
            if ours.id != there.id {
                if !ours.accepts(&there)? {
                    return Err(refused(
                        py,
                        route.get(),
                        &ours,
                        &there,
                        "does not accept it",
                    )?);
                }
                self.adopt(py, route, index, &ours, &there)?;
                return Ok(index);
            }
        }
        route.get().remember(number, index);
        Ok(index)
    }

    /// The index of a route that this graph used last, as it is.
    pub(crate) fn known(&self, route: &RouteBase) -> Option<usize> {
        route.place(self.number.load(Ordering::Acquire))
    }

    /// Index and schema for publishing: payloads of an older schema that the one there accepts are `rewritten` by what
    /// upcasts one of them.
    pub(crate) fn admit(
        &self,
        py: Python<'_>,
        route: &Bound<'_, RouteBase>,
        rewritten: impl FnOnce(&dyn Fn(&Payload) -> PyResult<Payload>) -> PyResult<()>,
    ) -> PyResult<(usize, Py<RouteBase>)> {
        if let Some(index) = self.known(route.get()) {
            return Ok((index, route.clone().unbind()));
        }
        if let (index, Some(known)) = self.place(py, route) {
            let (ours, there) = (Version::of(py, route.get())?, Version::of(py, known.get())?);
            if ours.id != there.id && there.accepts(&ours)? {
                rewritten(&|payload| there.upcast(&ours, payload))?;
                return Ok((index, known));
            }
        }
        Ok((self.index(py, route)?, route.clone().unbind()))
    }

    /// Index of the address, and the route that is there already if it is another object.
    fn place(
        &self,
        py: Python<'_>,
        route: &Bound<'_, RouteBase>,
    ) -> (usize, Option<Py<RouteBase>>) {
        let mut state = self.state();
        let index = state.engine.route(route.get().tag, route.get().codec);
        if index == state.routes.len() {
            let text = &route.get().text;
            state.engine.set_lane(index, lane_of(text));
            if text.split('.').nth(1) == Some("ephemeral") {
                state.engine.undeclared(index);
            }
            state.routes.push(route.clone().unbind());
            return (index, None);
        }
        let known = state.routes[index].clone_ref(py);
        drop(state);
        (index, Some(known).filter(|known| !known.is(route)))
    }

    /// The route takes its address over from an older schema, with everything that is retained there.
    fn adopt(
        &self,
        py: Python<'_>,
        route: &Bound<'_, RouteBase>,
        index: usize,
        ours: &Version<'_>,
        there: &Version<'_>,
    ) -> PyResult<()> {
        for _ in 0..ADOPTIONS_MAX {
            let state = self.state();
            let (free, kept) = (state.engine.unbound(index), state.engine.kept(index));
            drop(state);
            if !free {
                let why = "cannot take it over while the graph reads or writes it";
                return Err(refused(py, route.get(), ours, there, why)?);
            }
            let up = |payload: &Payload| ours.upcast(there, payload);
            let payloads: PyResult<Vec<_>> = kept
                .iter()
                .map(|event| event.payload.as_ref().map(up).transpose())
                .collect();
            let payloads = payloads?;
            let mut state = self.state();
            if state
                .engine
                .adopt(index, route.get().codec, &kept, payloads)
            {
                let old = std::mem::replace(&mut state.routes[index], route.clone().unbind());
                drop(state);
                drop(old);
                // Routes remember where they lie by this number: the older ones have to ask again.
                let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                self.number.store(number, Ordering::Release);
                return Ok(());
            }
        }
        let why = "cannot take it over while others publish on it";
        Err(refused(py, route.get(), ours, there, why)?)
    }
}

fn refused(
    py: Python<'_>,
    route: &RouteBase,
    ours: &Version<'_>,
    there: &Version<'_>,
    why: &str,
) -> PyResult<PyErr> {
    let (name, found) = (ours.name()?, there.name()?);
    let what = format!(
        "{} is in this graph with the schema {found}; {name} {why}",
        route.text
    );
    let fix =
        "use one schema for a route, or register the older one: schema.accepts(Older, mapper)";
    Ok(error(
        py,
        "SchemaMismatch",
        &what,
        fix,
        ("route", &route.text),
    ))
}
