//! Protocol scenarios as text: each `> command` of a file in `scenarios/` is carried out, and what follows it is what must
//! come out. `MESHFOLD_RECORD=1` writes what comes out; record only what you can explain.
//!
//! Commands: `group N`, `start ID`, `crash ID`, `tick ID TIMES`, `tick-all TIMES` (delivering after each), `deliver`,
//! `lose` (everything under way), `isolate ID`, `mute ID` (heard by nobody), `cut A B`, `heal`, `propose ID [TIMES]`,
//! `read ID`, `transfer ID TO`, `members ID VOTERS [LEARNERS]`, `compact ID`, `allow`, `state`.

mod sim;

use std::fmt::Write as _;
use std::path::Path;

use meshfold_consensus::message::NodeId;
use sim::{NODES, World};

fn ids(text: &str) -> Vec<NodeId> {
    text.split(',')
        .map(|id| id.parse().expect("a node"))
        .collect()
}

fn settle(world: &mut World) {
    for _ in 0..200 {
        if world.network.is_empty() {
            return;
        }
        world.deliver_all();
    }
    panic!("messages without end");
}

fn state(world: &World) -> String {
    let mut out = String::new();
    for (id, node) in &world.nodes {
        let Some(raft) = &node.raft else {
            let _ = writeln!(out, "{id} down");
            continue;
        };
        let members = raft.members();
        if raft.last_index() == 0 && !members.votes(*id) {
            continue;
        }
        let _ = write!(
            out,
            "{id} {:?} term {} leader {} log {}..{} commit {} voters {:?}",
            raft.role(),
            raft.term(),
            raft.leader()
                .map_or("-".into(), |leader| leader.to_string()),
            raft.base_index(),
            raft.last_index(),
            raft.commit(),
            members.voters
        );
        if members.joint() {
            let _ = write!(out, " outgoing {:?}", members.outgoing);
        }
        if !members.learners.is_empty() {
            let _ = write!(out, " learners {:?}", members.learners);
        }
        out.push('\n');
    }
    out
}

fn links(world: &mut World, words: &[&str]) {
    match words {
        ["isolate", id] => {
            let id: NodeId = id.parse().expect("a node");
            world
                .cut
                .extend((1..=NODES).flat_map(|other| [(id, other), (other, id)]));
        }
        ["mute", id] => {
            let id: NodeId = id.parse().expect("a node");
            world.cut.extend((1..=NODES).map(|other| (id, other)));
        }
        ["cut", one, other] => {
            let (one, other) = (one.parse().expect("a node"), other.parse().expect("a node"));
            world.cut.extend([(one, other), (other, one)]);
        }
        ["heal"] => world.cut.clear(),
        other => panic!("no command {other:?}"),
    }
}

fn command(world: &mut World, words: &[&str]) -> String {
    let number = |at: usize| {
        words
            .get(at)
            .map_or(1, |word| word.parse().expect("a number"))
    };
    let id = number(1);
    match words[0] {
        "group" => *world = World::new(1, id),
        "start" => world.start(id),
        "crash" => world.crash(id),
        "tick" => {
            for _ in 0..number(2) {
                if let Some(raft) = world.raft(id) {
                    raft.tick();
                    world.work(id, true);
                }
            }
        }
        "tick-all" => {
            for _ in 0..id {
                for node in 1..=NODES {
                    if let Some(raft) = world.raft(node) {
                        raft.tick();
                        world.work(node, true);
                    }
                }
                settle(world);
            }
        }
        "deliver" => settle(world),
        "lose" => world.network.clear(),
        "propose" => {
            for _ in 0..number(2) {
                let raft = world.raft(id).expect("it runs");
                if let Err(why) = raft.propose(b"x".to_vec()) {
                    return format!("{why:?}\n");
                }
                world.work(id, true);
            }
        }
        "read" => {
            let before = world.counts.get("reads").copied().unwrap_or(0);
            world.read(id);
            world.work(id, true);
            settle(world);
            let served = world.counts.get("reads").copied().unwrap_or(0) > before;
            return if served { "served\n" } else { "not served\n" }.into();
        }
        "transfer" => {
            let to = number(2);
            if let Err(why) = world.raft(id).expect("it runs").transfer(to) {
                return format!("{why:?}\n");
            }
            world.work(id, true);
        }
        "members" => {
            let learners = words.get(3).map_or(Vec::new(), |text| ids(text));
            let raft = world.raft(id).expect("it runs");
            if let Err(why) = raft.change_members(ids(words[2]), learners) {
                return format!("{why:?}\n");
            }
            world.work(id, true);
        }
        "compact" => world.compact(id),
        "state" => return state(world),
        _ => links(world, words),
    }
    String::new()
}

fn play(script: &str) -> String {
    let mut world = World::new(1, 3);
    let mut out = String::new();
    for line in script.lines() {
        if let Some(text) = line.strip_prefix("> ") {
            let words: Vec<&str> = text.split_whitespace().collect();
            let _ = writeln!(out, "{line}");
            out.push_str(&command(&mut world, &words));
        } else if line.starts_with('#') || line.is_empty() {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

#[test]
fn every_scenario_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 8);
    for path in files {
        let script = std::fs::read_to_string(&path).expect("a script");
        let out = play(&script);
        if std::env::var_os("MESHFOLD_RECORD").is_some() {
            std::fs::write(&path, &out).expect("recorded");
            continue;
        }
        assert_eq!(out, script, "{}", path.display());
    }
}
