//! Majorities, simple and joint (Ongaro's thesis, 4.3).

use crate::message::{Members, NodeId};

impl Members {
    /// Everyone who gets entries.
    pub fn all(&self) -> Vec<NodeId> {
        let mut all = [&self.voters[..], &self.outgoing, &self.learners].concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether the node's vote counts.
    pub fn votes(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether a change is under way.
    pub fn joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether those for which `yes` holds are a majority of each half.
    pub fn quorum(&self, yes: impl Fn(NodeId) -> bool) -> bool {
        [&self.voters, &self.outgoing].into_iter().all(|half| {
            half.is_empty() || half.iter().filter(|id| yes(**id)).count() > half.len() / 2
        })
    }

    /// Whether no majority can come about any more, as those for which `no` holds refuse.
    pub fn lost(&self, no: impl Fn(NodeId) -> bool) -> bool {
        !self.quorum(|id| !no(id))
    }

    /// The highest number that a majority of each half has reached.
    pub fn reached(&self, number: impl Fn(NodeId) -> u64) -> u64 {
        let of_half = |half: &[NodeId]| {
            let mut numbers: Vec<u64> = half.iter().map(|id| number(*id)).collect();
            numbers.sort_unstable_by(|left, right| right.cmp(left));
            numbers.get(half.len() / 2).copied().unwrap_or(u64::MAX)
        };
        of_half(&self.voters).min(of_half(&self.outgoing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clever version against a dumb one: a number is reached if those at or above it are a quorum.
    #[test]
    fn reached_is_the_highest_number_that_a_quorum_has() {
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..2000 {
            let half = |next: &mut dyn FnMut(u64) -> u64| {
                let mut ids: Vec<NodeId> = (0..next(6)).map(|_| next(8)).collect();
                ids.sort_unstable();
                ids.dedup();
                ids
            };
            let (mut voters, outgoing) = (half(&mut next), half(&mut next));
            if voters.is_empty() {
                voters.push(1);
            }
            let numbers: Vec<u64> = (0..8).map(|_| next(5)).collect();
            let members = Members {
                voters,
                outgoing,
                learners: vec![],
            };
            let dumb = (0..5)
                .filter(|n| members.quorum(|id| numbers[id as usize] >= *n))
                .max();
            assert_eq!(
                Some(members.reached(|id| numbers[id as usize])),
                dumb,
                "{members:?} {numbers:?}"
            );
        }
    }
}
