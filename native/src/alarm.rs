//! The alarm: when operators wait for time, a thread of the host's sleeps here until the earliest deadline.
//!
//! It sleeps by the monotonic clock, so a wall clock that is set meanwhile neither wakes it early nor late; how far the
//! wall clock was set is told, so that deadlines told in it can be moved along.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;

use crate::graph::{GraphBase, locked};

/// A wall clock that deviates by less is taken to be slewed, not set.
const STEP: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Due {
    /// ns of the wall clock; None: nobody waits.
    at: Option<i64>,
    closed: bool,
}

/// Shared by the graph, which sets it, and the thread that sleeps.
#[derive(Default)]
pub(crate) struct Bell {
    due: Mutex<Due>,
    changed: Condvar,
}

impl Bell {
    /// The earliest deadline is now this.
    pub(crate) fn set(&self, at: Option<i64>) {
        let mut due = locked(&self.due);
        if due.at != at {
            due.at = at;
            self.changed.notify_all();
        }
    }

    pub(crate) fn close(&self) {
        locked(&self.due).closed = true;
        self.changed.notify_all();
    }
}

/// What the thread holds. It keeps the graph from nothing: a dropped graph closes it.
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct Alarm {
    pub(crate) bell: Arc<Bell>,
    /// Wall and monotonic clock when they were last compared.
    anchor: Mutex<(i64, Instant)>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "the binding is where the system's clocks enter"
)]
fn clocks() -> (i64, Instant) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall = wall.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    });
    (wall, Instant::now())
}

impl Alarm {
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self {
            bell,
            anchor: Mutex::new(clocks()),
        }
    }

    /// By how many ns the wall clock was set since the last call.
    fn step(&self) -> i64 {
        let (wall, mono) = clocks();
        let mut anchor = locked(&self.anchor);
        let elapsed = i64::try_from((mono - anchor.1).as_nanos()).unwrap_or(i64::MAX);
        let step = wall.saturating_sub(anchor.0).saturating_sub(elapsed);
        *anchor = (wall, mono);
        if step.unsigned_abs() > STEP.as_nanos() as u64 {
            step
        } else {
            0
        }
    }
}

#[pymethods]
impl Alarm {
    /// Sleep until the deadline; returns by how many ns the wall clock was set meanwhile, or None once the graph is gone.
    fn wait(&self, py: Python<'_>) -> Option<i64> {
        py.detach(|| {
            let mut due = locked(&self.bell.due);
            loop {
                if due.closed {
                    return None;
                }
                let step = self.step();
                if step != 0 {
                    return Some(step);
                }
                let Some(at) = due.at else {
                    due = self
                        .bell
                        .changed
                        .wait(due)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    continue;
                };
                let left = at.saturating_sub(clocks().0);
                if left <= 0 {
                    return Some(0);
                }
                let left = Duration::from_nanos(left.unsigned_abs());
                due = self
                    .bell
                    .changed
                    .wait_timeout(due, left)
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .0;
            }
        })
    }
}

impl GraphBase {
    /// Something has to be done at that time, if not before.
    pub(crate) fn due_by(&self, py: Python<'_>, deadline: i64) -> PyResult<()> {
        let mut state = self.state();
        if deadline >= state.engine.due() {
            return Ok(());
        }
        state.engine.due_by(deadline);
        drop(state);
        self.ring_at(py, deadline)
    }

    /// Set the alarm to a deadline; the first one starts the thread that sleeps on it.
    pub(crate) fn ring_at(&self, py: Python<'_>, due: i64) -> PyResult<()> {
        self.bell.set((due < i64::MAX).then_some(due));
        if due < i64::MAX && !self.alarmed.swap(true, Ordering::AcqRel) {
            let start = locked(&self.starter).take();
            if let Some(start) = start {
                start.call0(py)?;
            }
        }
        Ok(())
    }
}

impl Drop for GraphBase {
    fn drop(&mut self) {
        self.bell.close();
    }
}
