//! `shadow`: what a write asked for, what was reported, and what therefore holds (S17, S18).
//!
//! A request is projected to `desired` in the same turn, once. A report that names the write as its cause makes what it
//! says effective, even where it differs (a clamp). A report of another or unknown cause does not while a write was asked
//! for; the shadow then says `ECHO_UNMATCHED` until both agree or the owner says what holds.
//!
//! Where the device cannot name causes, `write_ids` is off and equality of values is all there is.

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::event::EventId;
use crate::registry::{
    COHERENCE_ECHO_UNMATCHED, COHERENCE_STABLE, COHERENCE_STALE_REPORTED, COHERENCE_WRITE_PENDING,
};
use crate::value::Value;

const REQUEST: usize = 1;
const ACK: usize = 2;
const OVERRIDE: usize = 3;
const DESIRED: usize = 0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    write_ids: bool,
    /// Nobody reports or acknowledges: what is desired is taken for effective, and stays marked.
    fire_and_forget: bool,
    /// After so many ns without a report a request's report counts as stale; 0: never.
    report_within: i64,
}

struct Shadow {
    settings: Settings,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct State {
    write: Option<EventId>,
    desired: Value,
    reported: Option<Item>,
    effective: Value,
    has_effective: bool,
    /// The newest request was answered by a report it caused.
    echoed: bool,
    /// It was answered by an acknowledgement.
    acked: bool,
    /// A report came behind that.
    report_behind: bool,
    /// The newest report had another cause than the newest request.
    foreign: bool,
    due: i64,
    overdue: bool,
    requests: u64,
    unmatched: u64,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let settings = config(with)?;
    let state = State::default();
    Ok(Box::new(Shadow { settings, state }))
}

impl Shadow {
    /// The coherence marks of this moment.
    fn marks(&self) -> u64 {
        let s = &self.state;
        if self.settings.fire_and_forget {
            return s.write.map_or(0, |_| COHERENCE_WRITE_PENDING);
        }
        if !self.settings.write_ids {
            return self.marks_by_value();
        }
        if s.write.is_none() {
            return if s.has_effective { COHERENCE_STABLE } else { 0 };
        }
        let mut marks = 0;
        if !s.echoed && !s.acked {
            marks |= COHERENCE_WRITE_PENDING;
        }
        if !s.echoed && ((s.acked && !s.report_behind) || s.overdue) {
            marks |= COHERENCE_STALE_REPORTED;
        }
        if s.foreign && self.differs() {
            marks |= COHERENCE_ECHO_UNMATCHED;
        }
        if marks == 0 { COHERENCE_STABLE } else { marks }
    }

    fn marks_by_value(&self) -> u64 {
        let s = &self.state;
        if s.write.is_none() {
            return if s.has_effective { COHERENCE_STABLE } else { 0 };
        }
        let reported = s.reported.as_ref().map(|item| &item.value);
        let mut marks = 0;
        if !s.has_effective || !s.effective.same(&s.desired) {
            marks |= COHERENCE_WRITE_PENDING;
        }
        if reported.is_none_or(|reported| !reported.same(&s.desired)) {
            marks |= COHERENCE_STALE_REPORTED;
        }
        if self.differs() {
            marks |= COHERENCE_ECHO_UNMATCHED;
        }
        if marks == 0 { COHERENCE_STABLE } else { marks }
    }

    fn differs(&self) -> bool {
        let reported = self.state.reported.as_ref();
        reported.is_some_and(|item| !item.value.same(&self.state.effective))
    }

    fn request(&mut self, mut item: Item, out: &mut Out) {
        let s = &mut self.state;
        s.write = Some(item.id);
        s.desired = item.value.clone();
        (s.echoed, s.acked, s.report_behind, s.overdue) = (false, false, false, false);
        s.due = match self.settings.report_within {
            0 => 0,
            within => item.ingest.saturating_add(within),
        };
        s.requests += 1;
        if self.settings.fire_and_forget {
            s.effective = item.value.clone();
            s.has_effective = true;
        }
        item.mark(self.marks());
        out.side(DESIRED, item.clone());
        if self.settings.fire_and_forget {
            out.emit(item.made());
        }
    }

    fn report(&mut self, item: Item, out: &mut Out) {
        let s = &mut self.state;
        let ours = s.write.is_some() && s.write == item.cause;
        s.report_behind = s.acked;
        s.foreign = s.write.is_some() && !ours;
        if ours {
            (s.echoed, s.overdue) = (true, false);
        }
        let adopt = s.write.is_none()
            || ours
            || !s.has_effective
            || (!self.settings.write_ids && item.value.same(&s.desired));
        s.reported = Some(item.clone());
        if adopt {
            self.adopt(item, out);
        } else if !item.value.same(&s.effective) {
            s.unmatched += 1;
        }
    }

    fn adopt(&mut self, mut item: Item, out: &mut Out) {
        self.state.effective = item.value.clone();
        self.state.has_effective = true;
        item.mark(self.marks());
        out.emit(item);
    }
}

impl Operator for Shadow {
    fn ports(&self) -> &'static [&'static str] {
        &["reported", "request", "ack", "override"]
    }

    fn sides(&self) -> &'static [&'static str] {
        &["desired"]
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        match port {
            REQUEST => self.request(item, out),
            ACK => {
                // An acknowledgement of an older write says nothing about this one.
                if self.state.write.is_some() && self.state.write == item.cause {
                    (self.state.acked, self.state.report_behind) = (true, false);
                }
            }
            OVERRIDE => {
                self.state.foreign = false;
                self.adopt(item, out);
            }
            _ => self.report(item, out),
        }
    }

    fn timed(&self) -> bool {
        true
    }

    fn deadline(&self) -> Option<i64> {
        let s = &self.state;
        (s.due > 0 && !s.echoed && !s.overdue).then_some(s.due)
    }

    fn on_time(&mut self, now: i64, _out: &mut Out) {
        if self.deadline().is_some_and(|due| now >= due) {
            self.state.overdue = true;
        }
    }

    fn on_clock_set(&mut self, by: i64) {
        if self.state.due > 0 {
            self.state.due = self.state.due.saturating_add(by);
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("coherence", self.marks()),
            ("requests", self.state.requests),
            ("unmatched", self.state.unmatched),
        ]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.state = load(state)?;
        Ok(())
    }
}
