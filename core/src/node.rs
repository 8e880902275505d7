//! A node: a list of stages that runs as one, with its inputs, its sink and its counters.
//!
//! A pipeline is one node and not a route for each stage, so an envelope is made once, at its end.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Config;

use crate::operator::{self, BuildError, Operator};
use crate::registry::DROP_REASONS;

/// Stages of one node.
pub const STAGES_MAX: usize = 64;
/// Inputs of one node.
pub const INPUTS_MAX: usize = 256;

/// A node as the host describes it. Routes are places in the list of routes given with it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// What it is called in listings and as `operator` of its events.
    pub name: String,
    /// What listings call its edges: pipe, join, capacitor.
    #[serde(default = "pipe")]
    pub label: String,
    /// What is done, in order.
    #[serde(default)]
    pub stages: Vec<StageSpec>,
    /// Where items come from.
    pub inputs: Vec<InputSpec>,
    /// Where results go; None: to the host.
    #[serde(default)]
    pub sink: Option<usize>,
    /// Where side outputs go.
    #[serde(default)]
    pub sides: Vec<SideSpec>,
}

fn pipe() -> String {
    "pipe".into()
}

/// One stage: an operator with its configuration, or a function of the host's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    /// The operator's kind, or `foreign`.
    pub kind: String,
    /// Its configuration.
    #[serde(default)]
    pub with: Config,
    /// For `foreign`: which of the host's functions.
    #[serde(default)]
    pub function: usize,
}

/// One input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// The route.
    pub route: usize,
    /// The stage it enters.
    #[serde(default)]
    pub stage: usize,
    /// The port of that stage.
    #[serde(default)]
    pub port: usize,
    /// Whether the route's latest event counts as an input when the node is installed.
    #[serde(default)]
    pub replay: bool,
}

/// One side output.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideSpec {
    /// The stage that has it.
    pub stage: usize,
    /// Its name there.
    pub side: String,
    /// The route it goes to.
    pub route: usize,
}

/// How a stage runs.
pub(crate) enum Run {
    Native(Box<dyn Operator>),
    Foreign(usize),
}

pub(crate) struct Stage {
    pub(crate) kind: String,
    pub(crate) with: Config,
    pub(crate) run: Run,
    /// Whether it may wait for time.
    pub(crate) timed: bool,
}

/// Where results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// They become events of a route.
    Route(usize),
    /// The host takes the values.
    Host,
}

/// An installed node.
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// What listings call its edges.
    pub label: Arc<str>,
    pub(crate) stages: Vec<Stage>,
    /// Its input edges, with stage and port.
    pub inputs: Vec<(u32, usize, usize)>,
    /// Where results go.
    pub sink: Sink,
    /// (stage, side, route).
    pub sides: Vec<(usize, usize, usize)>,
    /// What it emits begins a turn of its own.
    pub boundary: bool,
    /// Items that could not be worked on.
    pub failed: u64,
    /// Results.
    pub emitted: u64,
    /// Items lost inside, by reason.
    pub dropped: [u64; DROP_REASONS.len()],
    pub(crate) rank: u32,
    /// Arrivals lined up in this turn, by input.
    pub(crate) waiting: Vec<u32>,
}

/// What listings and diagrams show of a node.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its id, by which it is removed.
    pub id: u32,
    /// Its name.
    pub name: Arc<str>,
    /// What listings call it.
    pub label: Arc<str>,
    /// What each stage is.
    pub stages: Vec<StageDescription>,
    /// Its input edges.
    pub edges: Vec<u32>,
    /// (route, stage, name of the port).
    pub inputs: Vec<(usize, usize, &'static str)>,
    /// Where results go; None: to the host.
    pub sink: Option<usize>,
    /// (stage, name of the side output, route).
    pub sides: Vec<(usize, &'static str, usize)>,
    /// Results.
    pub emitted: u64,
    /// Items that could not be worked on.
    pub failed: u64,
    /// Items lost inside, by reason.
    pub dropped: [u64; DROP_REASONS.len()],
}

/// What listings show of one stage.
#[derive(Clone, Debug)]
pub struct StageDescription {
    /// The operator's kind, or `foreign`.
    pub kind: String,
    /// Its configuration as JSON.
    pub with: String,
    /// Figures of the moment.
    pub gauges: Vec<(&'static str, u64)>,
}

impl Node {
    /// Build the stages and check that inputs and sides name what is there.
    pub(crate) fn build(spec: &Spec, routes: &[usize]) -> Result<Self, BuildError> {
        let wrong = |what: String| Err(BuildError(what));
        if spec.stages.len() > STAGES_MAX || spec.inputs.len() > INPUTS_MAX {
            return wrong(format!(
                "{} has more than {STAGES_MAX} stages or {INPUTS_MAX} inputs",
                spec.name
            ));
        }
        let mut stages = Vec::with_capacity(spec.stages.len());
        for stage in &spec.stages {
            let run = if stage.kind == "foreign" {
                Run::Foreign(stage.function)
            } else {
                Run::Native(operator::build(&stage.kind, &stage.with)?)
            };
            let timed = matches!(&run, Run::Native(operator) if operator.timed());
            stages.push(Stage {
                kind: stage.kind.clone(),
                with: stage.with.clone(),
                run,
                timed,
            });
        }
        let known = |place: usize| {
            let unknown = || BuildError(format!("{} names a route that is not given", spec.name));
            routes.get(place).copied().ok_or_else(unknown)
        };
        for input in &spec.inputs {
            known(input.route)?;
            let ports = stages.get(input.stage).map_or(1, Stage::ports);
            if input.port >= ports || input.stage > stages.len() {
                return wrong(format!(
                    "{} has no port {} of stage {}",
                    spec.name, input.port, input.stage
                ));
            }
        }
        let mut sides = Vec::with_capacity(spec.sides.len());
        for side in &spec.sides {
            let names = stages.get(side.stage).map_or(&[][..], Stage::sides);
            let Some(place) = names.iter().position(|name| *name == side.side) else {
                return wrong(format!("{} has no output {}", spec.name, side.side));
            };
            sides.push((side.stage, place, known(side.route)?));
        }
        let boundary = stages
            .iter()
            .any(|stage| matches!(&stage.run, Run::Native(operator) if operator.boundary()));
        Ok(Self {
            name: spec.name.as_str().into(),
            label: spec.label.as_str().into(),
            stages,
            inputs: Vec::new(),
            sink: spec
                .sink
                .map_or(Ok(Sink::Host), |place| known(place).map(Sink::Route))?,
            sides,
            boundary,
            failed: 0,
            emitted: 0,
            dropped: [0; DROP_REASONS.len()],
            rank: 0,
            waiting: vec![0; spec.inputs.len()],
        })
    }

    /// Routes it writes to.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = usize> + '_ {
        let main = match self.sink {
            Sink::Route(route) => Some(route),
            Sink::Host => None,
        };
        main.into_iter().chain(self.sides.iter().map(|side| side.2))
    }

    /// Its native operators with their places.
    pub(crate) fn native(&self) -> impl Iterator<Item = (usize, &dyn Operator)> + '_ {
        self.stages
            .iter()
            .enumerate()
            .filter_map(|(place, stage)| match &stage.run {
                Run::Native(operator) => Some((place, &**operator)),
                Run::Foreign(_) => None,
            })
    }

    /// Those that may wait for time.
    pub(crate) fn timed(&self) -> impl Iterator<Item = (usize, &dyn Operator)> + '_ {
        self.native().filter(|(place, _)| self.stages[*place].timed)
    }

    /// How many of its stages are functions of the host's.
    pub(crate) fn foreign(&self) -> usize {
        let foreign = |stage: &&Stage| matches!(stage.run, Run::Foreign(_));
        self.stages.iter().filter(foreign).count()
    }

    /// The function of the host's that is its first stage.
    pub(crate) fn first_function(&self) -> Option<usize> {
        match self.stages.first()?.run {
            Run::Foreign(number) => Some(number),
            Run::Native(_) => None,
        }
    }

    pub(crate) fn operator(&mut self, stage: usize) -> Option<&mut Box<dyn Operator>> {
        match &mut self.stages.get_mut(stage)?.run {
            Run::Native(operator) => Some(operator),
            Run::Foreign(_) => None,
        }
    }
}

impl Stage {
    fn ports(&self) -> usize {
        match &self.run {
            Run::Native(operator) => operator.ports().len(),
            Run::Foreign(_) => 1,
        }
    }

    pub(crate) fn port(&self, port: usize) -> &'static str {
        match &self.run {
            Run::Native(operator) => operator.ports().get(port).copied().unwrap_or("in"),
            Run::Foreign(_) => "in",
        }
    }

    pub(crate) fn sides(&self) -> &'static [&'static str] {
        match &self.run {
            Run::Native(operator) => operator.sides(),
            Run::Foreign(_) => &[],
        }
    }

    pub(crate) fn gauges(&self) -> Vec<(&'static str, u64)> {
        match &self.run {
            Run::Native(operator) => operator.gauges(),
            Run::Foreign(_) => Vec::new(),
        }
    }
}
