//! Hanging edges and nodes on routes, and taking them off.

use std::sync::Arc;

use super::{Edge, Engine, Kind, Spent};
use crate::counters::Ledger;
use crate::node::{Description, Node, Sink, Spec, Stage, StageDescription};
use crate::operator::BuildError;
use crate::registry::DropReason;

/// Why a node is not installed. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uninstallable {
    /// Its description is wrong.
    Build(BuildError),
    /// It would close a cycle without a boundary through this route (S5, S22).
    Cycle(usize),
}

impl Engine {
    /// Hang an edge on a route; `replay` offers it the latest event first (S4), counted as a replay.
    pub fn attach(
        &mut self,
        route: usize,
        name: String,
        label: &str,
        kind: Kind,
        replay: bool,
    ) -> u32 {
        let id = self.hang(route, name, label.into(), kind);
        if let Kind::Forward(sink, _) = self.edges[&id].kind {
            let rank = self.routes[route].rank + 1;
            self.raise(sink, rank);
        }
        if replay && let Some(latest) = self.latest(route).cloned() {
            let Some(edge) = self.edges.get_mut(&id) else {
                return id;
            };
            match &mut edge.kind {
                Kind::Queue(ring) => ring.replay(latest),
                _ => self.observers.push_back((id, latest, true)),
            }
        }
        id
    }

    fn hang(&mut self, route: usize, name: String, label: Arc<str>, kind: Kind) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        let ledger = Ledger::default();
        let edge = Edge {
            name,
            label,
            route,
            kind,
            spent: Spent::default(),
            ledger,
        };
        self.gates += usize::from(edge.is_gate());
        self.topology += 1;
        self.edges.insert(id, edge);
        let r = &mut self.routes[route];
        r.edges.push(id);
        r.others += usize::from(!matches!(self.edges[&id].kind, Kind::Direct));
        id
    }

    /// Install a node; returns its id. `routes` are those that the description counts.
    pub fn install(&mut self, spec: &Spec, routes: &[usize]) -> Result<u32, Uninstallable> {
        let mut node = Node::build(spec, routes).map_err(Uninstallable::Build)?;
        if !node.boundary {
            for input in &spec.inputs {
                let source = routes[input.route];
                if node.outputs().any(|sink| self.would_cycle(source, sink)) {
                    return Err(Uninstallable::Cycle(source));
                }
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        for (place, input) in spec.inputs.iter().enumerate() {
            let port = node
                .stages
                .get(input.stage)
                .map_or("in", |stage| stage.port(input.port));
            let name = if place == 0 {
                spec.name.clone()
            } else {
                format!("{} ({port})", spec.name)
            };
            let kind = Kind::Port(id, input.stage, input.port, place);
            let edge = self.hang(routes[input.route], name, node.label.clone(), kind);
            node.inputs.push((edge, input.stage, input.port));
            node.rank = node.rank.max(self.routes[routes[input.route]].rank + 1);
        }
        let (rank, outputs): (_, Vec<_>) = (node.rank, node.outputs().collect());
        let boundary = node.boundary;
        for (_, operator) in node.timed() {
            self.due = self.due.min(operator.deadline().unwrap_or(i64::MAX));
        }
        self.nodes.insert(id, node);
        if !boundary {
            for route in outputs {
                self.raise(route, rank);
            }
        }
        for (place, input) in spec.inputs.iter().enumerate() {
            if input.replay
                && let Some(latest) = self.latest(routes[input.route]).cloned()
            {
                let edge = self.nodes[&id].inputs[place].0;
                self.line_up(edge, latest, true);
            }
        }
        Ok(id)
    }

    /// A route is now written at `rank`: everything behind it runs later.
    fn raise(&mut self, route: usize, rank: u32) {
        let mut open = vec![(route, rank)];
        while let Some((route, rank)) = open.pop() {
            if self.routes[route].rank >= rank {
                continue;
            }
            self.routes[route].rank = rank;
            for id in &self.routes[route].edges {
                match &self.edges[id].kind {
                    Kind::Forward(sink, _) => open.push((*sink, rank + 1)),
                    Kind::Port(node, ..) => {
                        if let Some(node) = self.nodes.get_mut(node) {
                            node.rank = node.rank.max(rank + 1);
                            if !node.boundary {
                                open.extend(node.outputs().map(|sink| (sink, node.rank)));
                            }
                        }
                    }
                    Kind::Direct | Kind::Queue(_) | Kind::Mail(_) => {}
                }
            }
        }
    }

    /// Take an edge or a node off; what waits in it is counted as closed. Idempotent.
    pub fn detach(&mut self, id: u32) -> Vec<Edge> {
        if let Some(node) = self.nodes.remove(&id) {
            return node
                .inputs
                .iter()
                .filter_map(|input| self.unhang(input.0))
                .collect();
        }
        self.unhang(id).into_iter().collect()
    }

    fn unhang(&mut self, id: u32) -> Option<Edge> {
        let mut edge = self.edges.remove(&id)?;
        let r = &mut self.routes[edge.route];
        r.edges.retain(|&other| other != id);
        r.others -= usize::from(!matches!(edge.kind, Kind::Direct));
        self.gates -= usize::from(edge.is_gate());
        self.topology += 1;
        match &mut edge.kind {
            Kind::Queue(ring) => ring.close(),
            Kind::Mail(mail) => mail.mailbox.close(),
            _ => edge.ledger.close(DropReason::Closed),
        }
        Some(edge)
    }

    /// Whether forwarding `source` to `sink` would close a cycle that no boundary cuts (S5, S22).
    pub fn would_cycle(&self, source: usize, sink: usize) -> bool {
        let mut seen = vec![false; self.routes.len()];
        let mut open = vec![sink];
        while let Some(route) = open.pop() {
            if route == source {
                return true;
            }
            if std::mem::replace(&mut seen[route], true) {
                continue;
            }
            for id in &self.routes[route].edges {
                match &self.edges[id].kind {
                    Kind::Forward(to, _) => open.push(*to),
                    Kind::Port(node, ..) => {
                        let node = self.nodes.get(node).filter(|node| !node.boundary);
                        open.extend(node.into_iter().flat_map(Node::outputs));
                    }
                    Kind::Direct | Kind::Queue(_) | Kind::Mail(_) => {}
                }
            }
        }
        false
    }

    /// A node.
    pub fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// All nodes as listings show them, in the order they were installed.
    pub fn describe(&self) -> Vec<Description> {
        let mut all: Vec<_> = self
            .nodes
            .iter()
            .map(|(id, node)| self.describe_node(*id, node))
            .collect();
        all.sort_by_key(|node| node.id);
        all
    }

    fn describe_node(&self, id: u32, node: &Node) -> Description {
        let stage = |stage: &Stage| StageDescription {
            kind: stage.kind.clone(),
            with: stage.with.to_string(),
            gauges: stage.gauges(),
        };
        let inputs = node.inputs.iter().map(|(edge, stage, port)| {
            let name = node
                .stages
                .get(*stage)
                .map_or("in", |stage| stage.port(*port));
            (self.edges[edge].route, *stage, name)
        });
        let sides = node
            .sides
            .iter()
            .map(|(stage, side, route)| (*stage, node.stages[*stage].sides()[*side], *route));
        Description {
            id,
            name: node.name.clone(),
            label: node.label.clone(),
            stages: node.stages.iter().map(stage).collect(),
            edges: node.inputs.iter().map(|input| input.0).collect(),
            inputs: inputs.collect(),
            sink: match node.sink {
                Sink::Route(route) => Some(route),
                Sink::Host => None,
            },
            sides: sides.collect(),
            emitted: node.emitted,
            failed: node.failed,
            dropped: node.dropped,
        }
    }

    /// The state of a node, one entry for each of its stages.
    pub fn save(&self, id: u32) -> Result<Vec<Vec<u8>>, BuildError> {
        let node = self
            .nodes
            .get(&id)
            .ok_or_else(|| BuildError("no such operator".into()))?;
        let mut states = vec![Vec::new(); node.stages.len()];
        for (place, operator) in node.native() {
            states[place] = operator.save()?;
        }
        Ok(states)
    }

    /// Take over a saved state of a node with the same stages: all of it, or an error and nothing has changed.
    pub fn load(&mut self, id: u32, states: &[Vec<u8>]) -> Result<(), BuildError> {
        let before = self.save(id);
        let Some(node) = self.nodes.get_mut(&id) else {
            return Err(BuildError("no such operator".into()));
        };
        if states.len() != node.stages.len() {
            let (given, have) = (states.len(), node.stages.len());
            return Err(BuildError(format!("a state of {given} stages, not {have}")));
        }
        let result = load_stages(node, states);
        if let (Err(_), Ok(before)) = (&result, before) {
            load_stages(node, &before)?;
        }
        self.due = self.deadline().unwrap_or(i64::MAX);
        result
    }
}

fn load_stages(node: &mut Node, states: &[Vec<u8>]) -> Result<(), BuildError> {
    for (place, state) in states.iter().enumerate() {
        if let Some(operator) = node.operator(place).filter(|_| !state.is_empty()) {
            operator.load(state)?;
        }
    }
    Ok(())
}
