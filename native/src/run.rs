//! Runs: many values published in one call, and functions called on many values of one.
//!
//! A slice goes through the engine as a run where that is the same as one event after the other; else it is queued event
//! by event. Functions are called by the interpreter's own `map` and `filter`, chained over a feed of the values: each value
//! passes all of them before the next, and an exception costs its value alone.

use std::sync::atomic::{AtomicUsize, Ordering};

use meshfold_core::engine::{Input, Made, Outcome, RUN_MAX, RunCall, RunInput};
use meshfold_core::operator::lot::Times;
use meshfold_core::operator::{Batch, Column, Lot};
use meshfold_core::value::Value;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyTuple};

use crate::chain::chained;
use crate::graph::{GraphBase, me};
use crate::hosts::{Function, Functions, Host, Way, failed, outcome_of, raised};
use crate::many::Many;
use crate::route::RouteBase;
use crate::turn::Full;
use crate::values::{give, take};

/// The part of a `publish_many` that is taken in at once.
struct Slice<'a> {
    many: &'a Many,
    from: usize,
    to: usize,
    times: Option<&'a [i64]>,
    keys: Option<&'a [String]>,
    ingest: i64,
}

impl Slice<'_> {
    fn time(&self, at: usize) -> i64 {
        self.times.map_or(self.ingest, |times| times[at])
    }

    fn one(&self, at: usize) -> Input {
        Input {
            payload: Some(self.many.payload(at)),
            time: self.time(at),
            ingest: self.ingest,
            key: self.keys.map(|keys| keys[at].as_str().into()),
            ..Input::default()
        }
    }

    fn run(&self, route: &RouteBase, index: usize, from: usize, to: usize) -> RunInput {
        let (values, bytes) = self.many.column(from, to, route.codec, index);
        let key = |key: &String| key.as_str().into();
        RunInput {
            values,
            len: to - from,
            bytes,
            times: self.times.map_or(Times::Same(self.ingest), |times| {
                Times::Each(times[from..to].to_vec())
            }),
            keys: self
                .keys
                .map(|keys| keys[from..to].iter().map(key).collect()),
            ingest: self.ingest,
        }
    }
}

impl GraphBase {
    /// Publish many values in order; returns the first and the last number.
    pub(crate) fn publish_slices(
        &self,
        py: Python<'_>,
        r: &Bound<'_, RouteBase>,
        values: &Bound<'_, PyAny>,
        times: Option<&[i64]>,
        keys: Option<&[String]>,
    ) -> PyResult<(u64, u64)> {
        let route = r.get();
        let mut many = Many::take(py, route, values)?;
        let count = many.len();
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
        let number = self.number.load(Ordering::Acquire);
        let index = if let Some(index) = route.place(number) {
            index
        } else {
            let (index, _) = self.admit(py, r, |upcast| {
                let payloads = (0..count).map(|at| upcast(&many.payload(at)));
                many = Many::Payloads(payloads.collect::<PyResult<_>>()?);
                Ok(())
            })?;
            index
        };
        let mut numbers = None;
        for from in (0..count).step_by(RUN_MAX) {
            let slice = Slice {
                many: &many,
                from,
                to: count.min(from + RUN_MAX),
                times,
                keys,
                ingest,
            };
            let (first, last) = self.publish_slice(py, route, index, &slice)?;
            numbers = Some((numbers.map_or(first, |(first, _)| first), last));
        }
        Ok(numbers.unwrap_or((0, 0)))
    }

    fn publish_slice(
        &self,
        py: Python<'_>,
        route: &RouteBase,
        index: usize,
        slice: &Slice<'_>,
    ) -> PyResult<(u64, u64)> {
        let mut numbers = None;
        let mut note = |first, last| {
            numbers = Some((numbers.map_or(first, |(first, _)| first), last));
        };
        let mut at = slice.from;
        while at < slice.to {
            let started = py.detach(|| self.start_run(route, index, slice, at));
            if let Some((first, count)) = started.filter(|started| started.1 > 0) {
                note(first, first + count as u64 - 1);
                at += count;
                self.turn(py, self.state(), None)?;
                continue;
            }
            // One by one: the next, which is recorded, or all.
            let until = if started.is_some() { at + 1 } else { slice.to };
            self.submit(py, &route.text, Full::Wait, |engine| {
                while at < until {
                    let seq = engine.publish(index, slice.one(at))?.seq;
                    note(seq, seq);
                    at += 1;
                }
                Ok(())
            })?;
        }
        Ok(numbers.unwrap_or((0, 0)))
    }

    /// Publish what is left of a slice, or the first part of it, as a run: the first number and how many. Then its turn
    /// has begun and is this thread's. A count of 0: the next event has to be alone.
    fn start_run(
        &self,
        route: &RouteBase,
        index: usize,
        slice: &Slice<'_>,
        from: usize,
    ) -> Option<(u64, usize)> {
        let mut state = self.state();
        if state.owner != 0 {
            return None;
        }
        let count = state
            .engine
            .takes_runs(index, slice.to - from, slice.ingest)?;
        if count == 0 {
            return Some((0, 0));
        }
        let mut input = Some(slice.run(route, index, from, from + count));
        let first = state.engine.publish_run(index, &mut input)?;
        state.owner = me();
        Some((first, count))
    }

    /// Run a function on the items of a run.
    pub(crate) fn apply_run(
        &self,
        py: Python<'_>,
        host: Option<&Host>,
        call: RunCall,
        interrupted: &mut Option<PyErr>,
    ) {
        let discard =
            |batch: &Batch| Made::Each((0..batch.len()).map(|_| Outcome::Discard).collect());
        let made = match host {
            Some(Host::Node(functions)) => {
                let work = |batch| functions.run_batch(py, self, call.function, batch, interrupted);
                call.batches.iter().map(work).collect()
            }
            _ => call.batches.iter().map(discard).collect(),
        };
        self.state().engine.resume_run(call, made);
        self.grave.empty();
    }
}

impl Functions {
    fn run_batch(
        &self,
        py: Python<'_>,
        graph: &GraphBase,
        function: Option<usize>,
        batch: &Batch,
        interrupted: &mut Option<PyErr>,
    ) -> Made {
        let chain = function.and_then(|function| self.stages.get(function));
        let chain = chain.map(|chain| &chain.functions[..]);
        if let (Batch::Lot(lot), Some(chain)) = (batch, chain)
            && let Some(feed) = Feed::of(py, graph, lot)
            && feed.fits(chain)
        {
            return match feed.through(py, graph, chain, interrupted) {
                Ok(made) => made,
                Err(failure) => {
                    let why = failed(py, failure, interrupted);
                    Made::Each((0..batch.len()).map(|_| raised(why.clone())).collect())
                }
            };
        }
        let mut one = |value: &Value| {
            let result = self.run(py, graph, function, value);
            outcome_of(py, result, interrupted)
        };
        Made::Each(match batch {
            Batch::Lot(lot) => (0..lot.len())
                .map(|row| one(&lot.values.get(row)))
                .collect(),
            Batch::Items(items) => items.iter().map(|(_, item)| one(&item.value)).collect(),
        })
    }
}

/// One of the lists of which a feed gives the entries.
enum Part {
    Floats(Vec<f64>),
    Ints(Vec<i64>),
    Same(Py<PyAny>),
}

impl Part {
    fn of(py: Python<'_>, graph: &GraphBase, values: &Column) -> Option<Self> {
        match values {
            Column::Floats(floats) => Some(Self::Floats(floats.clone())),
            Column::Ints(ints) => Some(Self::Ints(ints.clone())),
            Column::Same(value) => {
                let same = give(py, value, &|index| graph.route_at(py, index));
                same.ok().map(Self::Same)
            }
            _ => None,
        }
    }

    fn get<'py>(&self, py: Python<'py>, at: usize) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self {
            Self::Floats(floats) => PyFloat::new(py, floats[at]).into_any(),
            Self::Ints(ints) => ints[at].into_pyobject(py)?.into_any(),
            Self::Same(same) => same.bind(py).clone(),
        })
    }
}

/// An iterator over values, or over tuples of them, that tells how far it was asked.
#[pyclass(frozen, module = "meshfold._native")]
struct Feed {
    parts: Vec<Part>,
    /// Each value is a tuple.
    tuples: bool,
    len: usize,
    asked: AtomicUsize,
}

#[pymethods]
impl Feed {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let at = self.asked.load(Ordering::Relaxed);
        if at >= self.len {
            return Ok(None);
        }
        self.asked.store(at + 1, Ordering::Relaxed);
        if !self.tuples {
            return self.parts[0].get(py, at).map(Some);
        }
        let values: PyResult<Vec<_>> = self.parts.iter().map(|part| part.get(py, at)).collect();
        Ok(Some(PyTuple::new(py, values?)?.into_any()))
    }
}

impl Feed {
    fn of(py: Python<'_>, graph: &GraphBase, lot: &Lot) -> Option<Self> {
        let (columns, tuples) = match &lot.values {
            Column::Zip(columns) => (&columns[..], true),
            column => (std::slice::from_ref(column), false),
        };
        let parts = columns.iter().map(|column| Part::of(py, graph, column));
        Some(Self {
            parts: parts.collect::<Option<_>>()?,
            tuples,
            len: lot.len(),
            asked: AtomicUsize::new(0),
        })
    }

    /// Whether a chain of functions can be called by iterators.
    fn fits(&self, chain: &[Function]) -> bool {
        chain
            .iter()
            .enumerate()
            .all(|(place, function)| match function.way {
                Way::Map | Way::Filter => true,
                Way::Spread => place == 0 && self.tuples,
                _ => false,
            })
    }

    /// What comes of the values behind a chain of functions.
    fn through(
        self,
        py: Python<'_>,
        graph: &GraphBase,
        chain: &[Function],
        interrupted: &mut Option<PyErr>,
    ) -> PyResult<Made> {
        let len = self.len;
        let feed = Bound::new(py, self)?;
        let mut end = chained(py, feed.clone().into_any(), chain)?;
        let (mut picks, mut faults) = (Vec::with_capacity(len), Vec::new());
        let mut made = Results::Floats(Vec::with_capacity(len));
        loop {
            let next = end.next();
            let asked = feed.get().asked.load(Ordering::Relaxed);
            let row = asked.saturating_sub(1) as u32;
            match next {
                Some(Ok(value)) => {
                    picks.push(row);
                    made.push(&value, graph);
                }
                Some(Err(failure)) => {
                    faults.extend(failed(py, failure, interrupted).map(|why| (row, why)));
                }
                // The end of the values, or a function raised `StopIteration`.
                None if asked >= len => break,
                None => faults.push((row, "StopIteration".into())),
            }
        }
        let picks = (picks.len() < len).then_some(picks);
        Ok(Made::Column(picks, made.column(), faults))
    }
}

/// Results as narrow as they come.
enum Results {
    Floats(Vec<f64>),
    Values(Vec<Value>),
}

impl Results {
    fn push(&mut self, value: &Bound<'_, PyAny>, graph: &GraphBase) {
        match self {
            Self::Floats(floats) => {
                if let Ok(float) = value.cast_exact::<PyFloat>() {
                    floats.push(float.value());
                } else {
                    let mut values: Vec<_> = floats.drain(..).map(Value::Float).collect();
                    values.push(take(value, &graph.grave));
                    *self = Self::Values(values);
                }
            }
            Self::Values(values) => values.push(take(value, &graph.grave)),
        }
    }

    fn column(self) -> Column {
        match self {
            Self::Floats(floats) => Column::Floats(floats),
            Self::Values(values) => Column::of(values),
        }
    }
}
