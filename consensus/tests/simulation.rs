//! Random schedules of everything that may go wrong; the rules of `sim` hold after every step, and at the end, when nothing
//! goes wrong any more, the group makes progress.
//!
//! `MESHFOLD_SEEDS=A..B` runs other seeds than the few of an ordinary run.

mod sim;

use meshfold_consensus::message::NodeId;
use meshfold_consensus::raft::Role;
use sim::{NODES, World};

const STEPS: u64 = 4000;

fn seeds() -> std::ops::Range<u64> {
    let chosen = std::env::var("MESHFOLD_SEEDS").unwrap_or_else(|_| "0..150".into());
    let (first, last) = chosen.split_once("..").expect("MESHFOLD_SEEDS=A..B");
    first.parse().expect("a number")..last.parse().expect("a number")
}

fn random_node(world: &mut World) -> NodeId {
    1 + world.random.below(NODES)
}

fn change_members(world: &mut World) {
    let Some(leader) = world.leader() else { return };
    let mut pick = |chance: u64| -> Vec<NodeId> {
        (1..=NODES)
            .filter(|_| world.random.below(100) < chance)
            .collect()
    };
    let voters = pick(50);
    let learners = pick(20)
        .into_iter()
        .filter(|id| !voters.contains(id))
        .collect();
    if let Some(raft) = world.raft(leader) {
        let _ = raft.change_members(voters, learners);
        world.work(leader, false);
    }
}

fn cut_links(world: &mut World) {
    world.cut.clear();
    match world.random.below(4) {
        // Two sides.
        0 => {
            let side = world.random.next();
            for from in 1..=NODES {
                for to in 1..=NODES {
                    if (side >> from) & 1 != (side >> to) & 1 {
                        world.cut.insert((from, to));
                    }
                }
            }
        }
        // One node is heard by nobody.
        1 => {
            let mute = random_node(world);
            world.cut.extend((1..=NODES).map(|to| (mute, to)));
        }
        // Single links, one way.
        2 => {
            for _ in 0..8 {
                let link = (random_node(world), random_node(world));
                world.cut.insert(link);
            }
        }
        _ => {}
    }
}

fn step(world: &mut World, with_members: bool) {
    let id = random_node(world);
    match world.random.below(1000) {
        0..=299 => {
            if let Some(raft) = world.raft(id) {
                raft.tick();
                world.work(id, false);
            }
        }
        300..=849 if !world.network.is_empty() => {
            let at = world.random.below(world.network.len() as u64) as usize;
            if world.random.below(20) == 0 {
                let again = world.network[at].clone();
                world.network.push(again);
                world.count("duplicates");
            }
            if world.random.below(12) == 0 {
                world.network.swap_remove(at);
                world.count("lost");
            } else {
                world.deliver(at, false);
            }
        }
        850..=914 => {
            let target = if world.random.below(4) == 0 {
                id
            } else {
                world.leader().unwrap_or(id)
            };
            world.propose(target);
            world.work(target, false);
        }
        915..=939 => {
            let target = if world.random.below(3) == 0 {
                id
            } else {
                world.leader().unwrap_or(id)
            };
            world.read(target);
            world.work(target, false);
        }
        940..=949 => world.crash(id),
        950..=969 if world.nodes[&id].raft.is_none() => world.start(id),
        970..=977 => world.compact(id),
        978..=981 => {
            if let Some(leader) = world.leader() {
                let _ = world.raft(leader).map(|raft| raft.transfer(id));
                world.work(leader, false);
                world.count("transfers");
            }
        }
        982..=987 if with_members => change_members(world),
        988..=992 => cut_links(world),
        993..=994 => {
            if let Some(raft) = world.raft(id) {
                raft.stalled();
                world.work(id, false);
            }
        }
        _ => {}
    }
    // An at-most-once network holds nothing for ever.
    if world.network.len() > 400 {
        let at = world.random.below(world.network.len() as u64) as usize;
        world.network.swap_remove(at);
    }
}

/// Heal everything, and the group must elect one leader and commit what it is given.
fn must_progress(world: &mut World) {
    world.cut.clear();
    for id in 1..=NODES {
        if world.nodes[&id].raft.is_none() {
            world.start(id);
        }
    }
    for _ in 0..200 {
        world.fair_round();
    }
    let seed = world.seed;
    let leader = world
        .leader()
        .unwrap_or_else(|| panic!("seed {seed}: nobody leads\n{}", world.describe()));
    let index = world
        .propose(leader)
        .unwrap_or_else(|| panic!("seed {seed}: {leader} takes nothing"));
    world.work(leader, true);
    for _ in 0..60 {
        world.fair_round();
    }
    let members = world.raft(leader).expect("it leads").members().clone();
    for id in members.all() {
        let applied = world.nodes[&id].machine.applied;
        assert!(
            applied >= index,
            "seed {seed}: {id} of {members:?} is at {applied}, not {index}"
        );
    }
    let leading = world.nodes.values().filter(|node| {
        node.raft
            .as_ref()
            .is_some_and(|raft| raft.role() == Role::Leader)
    });
    assert_eq!(leading.count(), 1, "seed {seed}");
}

fn run(seed: u64, with_members: bool) -> World {
    let mut world = World::new(seed, 1 + seed % 5);
    world.snapshot_padding = if seed.is_multiple_of(10) {
        1_200_000
    } else {
        100
    };
    for at in 0..STEPS {
        step(&mut world, with_members);
        if at % 50 == 0 {
            world.check_logs();
        }
    }
    must_progress(&mut world);
    world.check_logs();
    world
}

#[test]
fn safety_after_every_step_and_progress_when_healed() {
    let mut total = std::collections::BTreeMap::<&str, u64>::new();
    for seed in seeds() {
        for with_members in [false, true] {
            let world = run(seed, with_members);
            for (what, count) in world.counts {
                *total.entry(what).or_default() += count;
            }
        }
    }
    eprintln!("{total:?}");
    // The run means something only if all this happened.
    for what in [
        "proposals",
        "crashes",
        "lost",
        "duplicates",
        "transfers",
        "reads",
        "compactions",
        "snapshots installed",
        "member changes",
        "died before writing",
        "died before sending",
    ] {
        assert!(
            total.get(what).is_some_and(|count| *count > 0),
            "never: {what}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let transcript = |seed: u64| {
        let world = run(seed, true);
        let states: Vec<_> = world
            .nodes
            .values()
            .map(|node| node.machine.clone())
            .collect();
        (states, world.counts)
    };
    assert_eq!(transcript(7), transcript(7));
}
