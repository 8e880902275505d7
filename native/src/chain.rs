//! Functions of one stage as a chain of the interpreter's own iterators.
//!
//! `map` and `filter` call a Python function without making a tuple of its argument, for which the stable interface of
//! Python 3.11 has no other way. A chain begins at an iterator that hands out what is to be worked on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyIterator;

use crate::graph::locked;
use crate::hosts::{Function, Way};

/// A stage's functions, called one after the other.
pub(crate) struct Chain {
    pub(crate) functions: Vec<Function>,
    /// For single values, where the functions can be called by iterators; made when it is first used.
    single: PyOnceLock<Option<(Py<Single>, Py<PyIterator>)>>,
}

/// What became of a single value.
pub(crate) enum Once {
    Made(Py<PyAny>),
    /// A filter let it not pass.
    Discarded,
    /// Nothing: the functions cannot be called by iterators.
    Otherwise,
}

/// An iterator over the one value that is put there.
#[pyclass(frozen, module = "meshfold._native")]
struct Single {
    value: Mutex<Option<Py<PyAny>>>,
    /// It was asked for more than it had.
    over: AtomicBool,
}

#[pymethods]
impl Single {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self) -> Option<Py<PyAny>> {
        let value = locked(&self.value).take();
        self.over.store(value.is_none(), Ordering::Relaxed);
        value
    }
}

impl Chain {
    pub(crate) fn of(functions: Vec<Function>) -> Self {
        let single = PyOnceLock::new();
        Self { functions, single }
    }

    /// What the functions make of one value. `Err` is what one raised.
    pub(crate) fn single(&self, py: Python<'_>, value: &Py<PyAny>) -> PyResult<Once> {
        let Some((feed, end)) = self.single.get_or_init(py, || self.make(py).ok().flatten()) else {
            return Ok(Once::Otherwise);
        };
        let feed = feed.get();
        let before = locked(&feed.value).replace(value.clone_ref(py));
        drop(before);
        match end.bind(py).clone().next() {
            Some(result) => Ok(Once::Made(result?.unbind())),
            None if feed.over.load(Ordering::Relaxed) => Ok(Once::Discarded),
            // A function raised it.
            None => Err(PyStopIteration::new_err(())),
        }
    }

    fn make(&self, py: Python<'_>) -> PyResult<Option<(Py<Single>, Py<PyIterator>)>> {
        let iterates = |function: &Function| matches!(function.way, Way::Map | Way::Filter);
        if !self.functions.iter().all(iterates) {
            return Ok(None);
        }
        let feed = Bound::new(
            py,
            Single {
                value: Mutex::new(None),
                over: AtomicBool::new(false),
            },
        )?;
        let end = chained(py, feed.clone().into_any(), &self.functions)?;
        Ok(Some((feed.unbind(), end.unbind())))
    }
}

/// The results of functions for what an iterator gives; a `Spread` takes tuples.
pub(crate) fn chained<'py>(
    py: Python<'py>,
    feed: Bound<'py, PyAny>,
    functions: &[Function],
) -> PyResult<Bound<'py, PyIterator>> {
    let builtins = py.import("builtins")?;
    let mut end = feed;
    for function in functions {
        let args = (&function.call, end);
        end = match function.way {
            Way::Spread => py.import("itertools")?.call_method1("starmap", args)?,
            Way::Filter => builtins.call_method1("filter", args)?,
            _ => builtins.call_method1("map", args)?,
        };
    }
    Ok(end.cast_into()?)
}
