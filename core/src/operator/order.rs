//! `dedupe` and `resequence`: each event once, and in the order of its numbers. `repair`: a proof from outside (S29).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::event::{EventId, Tag};
use crate::registry::{
    DELIVERY_DROPPED, DELIVERY_DUPLICATED, DET_NONREPLAYABLE, DropReason,
    ORDER_POSSIBLY_OUT_OF_ORDER, ORDER_RESEQUENCED, TAINT_DOMAINS, TAINTS, TRUST_TAMPER_SUSPECT,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Remember {
    ids_max: usize,
}

impl Default for Remember {
    fn default() -> Self {
        Self { ids_max: 65_536 }
    }
}

/// Knows the ids of the last `ids_max` events.
struct Dedupe {
    ids_max: usize,
    seen: HashSet<EventId>,
    order: VecDeque<EventId>,
    duplicates: u64,
}

pub(super) fn dedupe(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Remember { ids_max } = config(with)?;
    Ok(Box::new(Dedupe {
        ids_max: ids_max.max(1),
        seen: HashSet::new(),
        order: VecDeque::new(),
        duplicates: 0,
    }))
}

impl Operator for Dedupe {
    fn on_item(&mut self, _port: usize, mut item: Item, out: &mut Out) {
        if !self.seen.insert(item.id) {
            self.duplicates += 1;
            out.drop(DropReason::Coalesced, &item);
            return;
        }
        self.order.push_back(item.id);
        if self.order.len() > self.ids_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        // S29: that it was not here before is the proof.
        item.taints &= !DELIVERY_DUPLICATED;
        out.emit(item);
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("ids", self.order.len() as u64),
            ("duplicates", self.duplicates),
        ]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&(&self.order, self.duplicates))
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        (self.order, self.duplicates) = load(state)?;
        self.seen = self.order.iter().copied().collect();
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(default = "capacity_default")]
    capacity: usize,
    #[serde(default)]
    ns: Option<i64>,
}

fn capacity_default() -> usize {
    1024
}

#[derive(Default, Serialize, Deserialize)]
struct Source {
    next: u64,
    held: BTreeMap<u64, Item>,
    /// Numbers were given up since the last result.
    gap: bool,
}

/// Puts events back into the order of their numbers, by producer and incarnation. A gap is waited for until `capacity`
/// items are held or `ns` have passed; then it is given up, and what comes after all is late.
struct Resequence {
    capacity: usize,
    ns: Option<i64>,
    sources: BTreeMap<(Tag, Tag, Tag), Source>,
    held: usize,
}

pub(super) fn resequence(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Wait { capacity, ns } = config(with)?;
    if capacity == 0 || ns.is_some_and(|ns| ns <= 0) {
        return Err(BuildError("capacity and ns have to be above 0".into()));
    }
    Ok(Box::new(Resequence {
        capacity,
        ns,
        sources: BTreeMap::new(),
        held: 0,
    }))
}

impl Source {
    /// Emit what is next, and what follows it without a gap. Returns how many.
    fn drain(&mut self, out: &mut Out) -> usize {
        let mut count = 0;
        while let Some(mut item) = self.held.remove(&self.next) {
            self.next += 1;
            count += 1;
            out.release(&item);
            if item.taints & ORDER_POSSIBLY_OUT_OF_ORDER != 0 {
                item.taints &= !ORDER_POSSIBLY_OUT_OF_ORDER;
                item.mark(ORDER_RESEQUENCED);
            }
            if std::mem::take(&mut self.gap) {
                item.mark(DELIVERY_DROPPED);
            }
            out.emit(item);
        }
        count
    }

    /// Give up what is missing before the first held item.
    fn skip(&mut self) {
        if let Some(first) = self.held.keys().next() {
            self.next = *first;
            self.gap = true;
        }
    }
}

impl Operator for Resequence {
    fn sides(&self) -> &'static [&'static str] {
        &["late"]
    }

    fn on_item(&mut self, _port: usize, item: Item, out: &mut Out) {
        let EventId {
            producer,
            incarnation,
            route,
            seq,
        } = item.id;
        let source = self
            .sources
            .entry((producer, incarnation, route))
            .or_default();
        if source.next == 0 {
            source.next = seq;
        }
        if seq < source.next {
            out.drop(DropReason::Late, &item);
            return out.side(0, item.made());
        }
        if source.held.contains_key(&seq) {
            return out.drop(DropReason::Coalesced, &item);
        }
        out.hold(&item);
        source.held.insert(seq, item);
        self.held += 1;
        self.held -= source.drain(out);
        if self.held > self.capacity {
            source.skip();
            self.held -= source.drain(out);
        }
    }

    fn timed(&self) -> bool {
        self.ns.is_some()
    }

    fn deadline(&self) -> Option<i64> {
        let ns = self.ns?;
        let firsts = self
            .sources
            .values()
            .filter_map(|source| source.held.values().map(|item| item.ingest).min());
        firsts.min().map(|first| first.saturating_add(ns))
    }

    fn on_time(&mut self, now: i64, out: &mut Out) {
        let Some(ns) = self.ns else { return };
        for source in self.sources.values_mut() {
            while source
                .held
                .values()
                .any(|item| item.ingest.saturating_add(ns) <= now)
            {
                source.skip();
                self.held -= source.drain(out);
            }
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("held", self.held as u64),
            ("sources", self.sources.len() as u64),
        ]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.sources)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.sources = load(state)?;
        self.held = self.sources.values().map(|source| source.held.len()).sum();
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RepairSettings {
    domain: String,
    cleared: Vec<String>,
    #[serde(default)]
    added: Vec<String>,
    proof: String,
    by: String,
}

/// Clears taints that a proof from outside disposes of.
struct Repair {
    cleared: u64,
    added: u64,
    note: Arc<str>,
}

/// What may be cleared, and what takes its place (S29).
const LICENCES: [(&str, &str); 4] = [
    ("TIME_UNKNOWN", "TIME_REPAIRED"),
    ("TIME_ESTIMATED", "TIME_REPAIRED"),
    ("ORDER_POSSIBLY_OUT_OF_ORDER", "ORDER_RESEQUENCED"),
    ("DELIVERY_DUPLICATED", ""),
];

pub(super) fn repair(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let RepairSettings {
        domain,
        cleared,
        added,
        proof,
        by,
    } = config(with)?;
    let wrong = |what: String| Err(BuildError(what));
    if proof.trim().is_empty() {
        return wrong("a repair needs a proof".into());
    }
    let bit = |name: &String| {
        let place = TAINTS.iter().position(|known| known == name);
        place
            .map(|place| 1u64 << place)
            .ok_or_else(|| BuildError(format!("unknown taint {name}")))
    };
    let bits = |names: &[String]| {
        names
            .iter()
            .map(bit)
            .try_fold(0, |all, bit| bit.map(|bit| all | bit))
    };
    let (cleared_bits, added_bits) = (bits(&cleared)?, bits(&added)?);
    if cleared_bits & (DET_NONREPLAYABLE | TRUST_TAMPER_SUSPECT) != 0 {
        return wrong("DET_NONREPLAYABLE and TRUST_TAMPER_SUSPECT are never cleared".into());
    }
    let prefix = format!("{}_", domain.to_uppercase());
    let first = TAINTS
        .iter()
        .position(|name| name.starts_with(&prefix))
        .map(|place| 1u64 << place);
    let Some(&(_, whole)) = TAINT_DOMAINS
        .iter()
        .find(|(perfect, _)| Some(*perfect) == first)
    else {
        return wrong(format!("unknown domain {domain}"));
    };
    if (cleared_bits | added_bits) & !whole != 0 {
        return wrong(format!(
            "a repair of {domain} clears and adds {domain} only"
        ));
    }
    for name in &cleared {
        let Some((_, adds)) = LICENCES.iter().find(|(clears, _)| clears == name) else {
            return wrong(format!("{name} cannot be repaired"));
        };
        if !adds.is_empty() && !added.iter().any(|name| name == adds) {
            return wrong(format!("clearing {name} adds {adds}"));
        }
    }
    let note = format!("repaired {} by {by}: {proof}", cleared.join(" ")).into();
    Ok(Box::new(Repair {
        cleared: cleared_bits,
        added: added_bits,
        note,
    }))
}

impl Operator for Repair {
    fn on_item(&mut self, _port: usize, mut item: Item, out: &mut Out) {
        if item.taints & self.cleared != 0 {
            item.taints &= !self.cleared;
            item.mark(self.added);
            item.guards.push(self.note.clone());
        }
        out.emit(item);
    }
}
