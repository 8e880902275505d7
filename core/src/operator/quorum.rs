//! `quorum`: one result when enough distinct members of a fixed set say yes to the same proposal in time (S33).
//!
//! A vote names its proposal by correlation id, or by partition key. A member's further votes change nothing. Each proposal
//! ends once: with a result on the main output, or with the number of its votes on `timeout`. An ended proposal is
//! remembered until its time is over, so that a late vote does not begin it anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::scatter::{NUMBERED, WAYS_MAX};
use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::registry::DropReason;
use crate::value::Value;

/// Proposals open or remembered at a time; the vote for one more is refused.
const PROPOSALS_MAX: usize = 65_536;
const TIMEOUT: usize = 0;

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum By {
    Correlation,
    Key,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    members: usize,
    threshold: usize,
    timeout_ns: i64,
    by: By,
}

struct Quorum {
    settings: Settings,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    proposals: BTreeMap<Arc<str>, Proposal>,
}

#[derive(Serialize, Deserialize)]
struct Proposal {
    /// Bit m: member m voted.
    members: u64,
    due: i64,
    /// The votes, in the order they came; empty once it has its result.
    votes: Vec<Item>,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let settings: Settings = config(with)?;
    if !(1..=WAYS_MAX).contains(&settings.members) {
        return Err(BuildError(format!("members is 1 to {WAYS_MAX}")));
    }
    if !(1..=settings.members).contains(&settings.threshold) {
        return Err(BuildError("threshold is 1 to the number of members".into()));
    }
    if settings.timeout_ns <= 0 {
        return Err(BuildError("timeout_ns is above 0".into()));
    }
    let state = State::default();
    Ok(Box::new(Quorum { settings, state }))
}

impl Quorum {
    fn end_overdue(&mut self, now: i64, out: &mut Out) {
        let over: Vec<Arc<str>> = (self.state.proposals.iter())
            .filter(|(_, proposal)| now >= proposal.due)
            .map(|(name, _)| name.clone())
            .collect();
        for name in over {
            let Some(proposal) = self.state.proposals.remove(&name) else {
                continue;
            };
            let votes = i64::from(proposal.members.count_ones());
            for vote in &proposal.votes {
                out.drop_held(DropReason::Expired, vote);
            }
            if let Some(mut result) = joined(proposal.votes) {
                result.ingest = result.ingest.max(now);
                out.side(TIMEOUT, result.with(Value::Int(votes)));
            }
        }
    }
}

/// The last vote, with all of them as parents.
fn joined(mut votes: Vec<Item>) -> Option<Item> {
    let mut last = votes.pop()?;
    for vote in &votes {
        last.also(vote);
    }
    Some(last.made())
}

impl Operator for Quorum {
    fn ports(&self) -> &'static [&'static str] {
        &NUMBERED[..self.settings.members]
    }

    fn sides(&self) -> &'static [&'static str] {
        &["timeout"]
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        // Under a virtual clock nothing calls between two items.
        self.end_overdue(item.ingest, out);
        let name = match self.settings.by {
            By::Correlation => item.correlation.clone(),
            By::Key => item.key.clone(),
        };
        let Some(name) = name else {
            return out.fail("a vote that names no proposal");
        };
        let proposals = &mut self.state.proposals;
        if !proposals.contains_key(&name) && proposals.len() >= PROPOSALS_MAX {
            return out.drop(DropReason::OverflowNewest, &item);
        }
        let due = item.ingest.saturating_add(self.settings.timeout_ns);
        let proposal = proposals.entry(name).or_insert(Proposal {
            members: 0,
            due,
            votes: Vec::new(),
        });
        let ended = proposal.members.count_ones() as usize >= self.settings.threshold;
        if ended || proposal.members >> port & 1 == 1 {
            return; // delivered, and changes nothing
        }
        proposal.members |= 1 << port;
        out.hold(&item);
        proposal.votes.push(item);
        if proposal.votes.len() >= self.settings.threshold {
            let votes = std::mem::take(&mut proposal.votes);
            for vote in &votes {
                out.release(vote);
            }
            if let Some(result) = joined(votes) {
                out.emit(result);
            }
        }
    }

    fn timed(&self) -> bool {
        true
    }

    fn deadline(&self) -> Option<i64> {
        self.state.proposals.values().map(|p| p.due).min()
    }

    fn on_time(&mut self, now: i64, out: &mut Out) {
        self.end_overdue(now, out);
    }

    fn on_clock_set(&mut self, by: i64) {
        for proposal in self.state.proposals.values_mut() {
            proposal.due = proposal.due.saturating_add(by);
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        let open = self
            .state
            .proposals
            .values()
            .filter(|p| !p.votes.is_empty());
        vec![("open", open.count() as u64)]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.state = load(state)?;
        for vote in (self.state.proposals.values_mut()).flat_map(|p| &mut p.votes) {
            vote.edge = 0; // the edges of another life are not ours
        }
        Ok(())
    }
}
