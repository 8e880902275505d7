//! Messages that nobody honest sends, or that come much too late: refused by reason, with log and vote as they were.

use meshfold_consensus::checksum;
use meshfold_consensus::message::{
    Body, ENTRY_BYTES_MAX, Entry, EntryKind, Members, Message, Refused, Snapshot,
};
use meshfold_consensus::raft::{HardState, Raft, Role, Settings, TERM_JUMP_MAX};

const SETTINGS: Settings = Settings {
    id: 1,
    election_ticks: 10,
    heartbeat_ticks: 1,
    seed: 1,
};

fn founding() -> Snapshot {
    let members = Members {
        voters: vec![1, 2, 3],
        ..Members::default()
    };
    Snapshot {
        index: 1,
        term: 1,
        members,
        data: b"state".to_vec(),
    }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        kind: EntryKind::Command,
        data: b"x".to_vec(),
    }
}

/// Node 1, a follower of 2 in term 5 with entries 2 and 3, of which 2 is committed.
fn follower() -> Raft {
    let hard = HardState { term: 5, vote: 2 };
    let mut raft = Raft::new(SETTINGS, hard, founding(), vec![entry(2, 5), entry(3, 5)]);
    let body = Body::Append {
        prev_index: 2,
        prev_term: 5,
        commit: 2,
        round: 1,
        entries: vec![],
    };
    raft.step(message(2, 5, body)).expect("legal");
    raft.ready();
    raft
}

fn message(from: u64, term: u64, body: Body) -> Message {
    Message {
        from,
        to: 1,
        term,
        body,
    }
}

fn append(prev_index: u64, prev_term: u64, commit: u64, entries: Vec<Entry>) -> Body {
    Body::Append {
        prev_index,
        prev_term,
        commit,
        round: 2,
        entries,
    }
}

/// Refused, and nothing is changed by it.
fn refused(message: Message, why: Refused) {
    let said = format!("{message:?}");
    let mut raft = follower();
    assert_eq!(raft.step(message), Err(why), "{said}");
    assert_eq!((raft.term(), raft.commit(), raft.last_index()), (5, 2, 3));
    let ready = raft.ready();
    assert!(
        ready.hard_state.is_none() && ready.entries.is_empty(),
        "{said}"
    );
}

#[test]
fn hc1_who_is_no_member_is_not_heard() {
    let body = || Body::Vote {
        last_index: 9,
        last_term: 9,
        transfer: true,
    };
    refused(message(4, 6, body()), Refused::Member);
    // Unless it is known to be allowed: the log may not name it yet.
    let mut raft = follower();
    raft.allow([4]);
    raft.step(message(4, 6, body())).expect("allowed");
    assert_eq!(raft.term(), 6);
}

#[test]
fn hc2_what_is_meant_for_another_is_not_for_us() {
    let body = Body::TimeoutNow;
    refused(
        Message {
            from: 2,
            to: 3,
            term: 5,
            body: body.clone(),
        },
        Refused::Address,
    );
    refused(
        Message {
            from: 1,
            to: 1,
            term: 5,
            body,
        },
        Refused::Address,
    );
}

#[test]
fn hc3_a_term_that_nobody_reached_is_refused() {
    for term in [5 + TERM_JUMP_MAX + 1, 1 << 63, u64::MAX] {
        let body = Body::Vote {
            last_index: 3,
            last_term: 5,
            transfer: true,
        };
        refused(message(2, term, body), Refused::Term);
        refused(message(2, term, append(3, 5, 2, vec![])), Refused::Term);
    }
}

#[test]
fn hc4_stale_doubled_and_late_messages_change_nothing() {
    let mut raft = follower();
    let late = [
        message(2, 5, append(1, 1, 2, vec![entry(2, 5)])),
        message(2, 5, append(1, 1, 2, vec![entry(2, 5), entry(3, 5)])),
        message(2, 5, append(2, 5, 1, vec![])),
        message(3, 4, append(1, 1, 1, vec![entry(2, 4)])),
        message(3, 4, Body::VoteReply { granted: true }),
        message(
            3,
            5,
            Body::AppendReply {
                ok: true,
                index: 3,
                round: 9,
            },
        ),
        message(
            3,
            5,
            Body::InstallReply {
                index: 1,
                offset: 3,
                round: 9,
            },
        ),
    ];
    for late in late {
        raft.step(late).expect("legal");
    }
    assert_eq!((raft.term(), raft.commit(), raft.last_index()), (5, 2, 3));
    assert!(raft.ready().entries.is_empty());
    assert_eq!(raft.role(), Role::Follower);
}

#[test]
fn hc5_entries_that_contradict_what_is_committed_are_refused() {
    refused(
        message(2, 5, append(1, 1, 3, vec![entry(2, 4)])),
        Refused::Entry,
    );
    // Behind the end there is a question back and no error.
    let mut raft = follower();
    raft.step(message(2, 5, append(7, 5, 3, vec![entry(8, 5)])))
        .expect("legal");
    let replies = raft.ready().messages;
    assert!(matches!(
        replies[..],
        [Message {
            body: Body::AppendReply {
                ok: false,
                index: 3,
                ..
            },
            ..
        }]
    ));
    assert_eq!(raft.commit(), 2);
}

#[test]
fn hc6_a_commit_behind_the_end_counts_as_far_as_is_proved() {
    let mut raft = follower();
    raft.step(message(2, 5, append(2, 5, u64::MAX, vec![])))
        .expect("legal");
    assert_eq!(raft.commit(), 2);
    raft.step(message(2, 5, append(3, 5, u64::MAX, vec![])))
        .expect("legal");
    assert_eq!(raft.commit(), 3);
    assert_eq!(raft.ready().committed.len(), 1);
}

#[test]
fn hc7_entries_out_of_order_and_too_large_are_refused() {
    let large = Entry {
        data: vec![0; ENTRY_BYTES_MAX + 1],
        ..entry(4, 5)
    };
    let nobody = Entry {
        kind: EntryKind::Members,
        data: vec![0, 0, 0],
        ..entry(4, 5)
    };
    for entries in [
        vec![entry(5, 5)],
        vec![entry(4, 5), entry(6, 5)],
        vec![entry(4, 5), entry(4, 5)],
        vec![entry(4, 4)],
        vec![entry(4, 6)],
        vec![large],
        vec![nobody],
    ] {
        refused(message(2, 5, append(3, 5, 2, entries)), Refused::Entry);
    }
    refused(
        message(2, 5, append(u64::MAX, 5, 2, vec![entry(0, 5)])),
        Refused::Entry,
    );
}

#[test]
fn hc8_a_second_vote_in_a_term_goes_to_nobody_else() {
    let mut raft = Raft::new(SETTINGS, HardState::default(), founding(), vec![]);
    let vote = |from| {
        message(
            from,
            2,
            Body::Vote {
                last_index: 1,
                last_term: 1,
                transfer: false,
            },
        )
    };
    let mut answer = |from| {
        raft.step(vote(from)).expect("legal");
        let ready = raft.ready();
        (ready.hard_state, ready.messages[0].body.clone())
    };
    let granted = |granted| Body::VoteReply { granted };
    assert_eq!(
        answer(2),
        (Some(HardState { term: 2, vote: 2 }), granted(true))
    );
    assert_eq!(answer(3), (None, granted(false)));
    assert_eq!(answer(2), (None, granted(true)));
    // And after a restart it is the disk that remembers.
    let hard = HardState { term: 2, vote: 2 };
    let mut raft = Raft::new(SETTINGS, hard, founding(), vec![]);
    raft.step(vote(3)).expect("legal");
    assert_eq!(raft.ready().messages[0].body, granted(false));
}

#[test]
fn hc8_a_candidate_that_lacks_entries_gets_no_vote() {
    for (last_index, last_term) in [(2, 5), (9, 4), (0, 0)] {
        let mut raft = follower();
        let body = Body::Vote {
            last_index,
            last_term,
            transfer: true,
        };
        raft.step(message(3, 6, body)).expect("legal");
        assert_eq!(
            raft.ready().messages[0].body,
            Body::VoteReply { granted: false }
        );
    }
}

/// Figure 8 of the Raft paper: an older term's entry on a majority may still be overwritten.
#[test]
fn an_entry_of_an_older_term_is_committed_by_one_of_ours_behind_it_and_never_by_counting() {
    let hard = HardState { term: 3, vote: 1 };
    let mut raft = Raft::new(SETTINGS, hard, founding(), vec![entry(2, 2)]);
    for _ in 0..20 {
        raft.tick();
    }
    raft.step(message(2, 4, Body::PreVoteReply { granted: true }))
        .expect("legal");
    raft.step(message(2, 4, Body::VoteReply { granted: true }))
        .expect("legal");
    assert_eq!(
        (raft.role(), raft.term(), raft.last_index()),
        (Role::Leader, 4, 3)
    );
    let ok = |index| {
        message(
            2,
            4,
            Body::AppendReply {
                ok: true,
                index,
                round: 1,
            },
        )
    };
    raft.step(ok(2)).expect("legal");
    assert_eq!(raft.commit(), 1);
    raft.step(ok(3)).expect("legal");
    assert_eq!(raft.commit(), 1, "our own entry is not durable yet");
    raft.persisted(3, 4);
    assert_eq!(raft.commit(), 3);
}

#[test]
fn a_read_waits_for_a_majority_that_answers_a_later_heartbeat() {
    let members = Members {
        voters: vec![1, 2, 3, 4, 5],
        ..Members::default()
    };
    let base = Snapshot {
        members,
        ..founding()
    };
    let mut raft = Raft::new(SETTINGS, HardState { term: 3, vote: 0 }, base, vec![]);
    for _ in 0..20 {
        raft.tick();
    }
    for reply in [
        Body::PreVoteReply { granted: true },
        Body::VoteReply { granted: true },
    ] {
        for from in [2, 3] {
            raft.step(message(from, 4, reply.clone())).expect("legal");
        }
    }
    assert_eq!(raft.role(), Role::Leader);
    raft.persisted(2, 4);
    let answer = |from, round| {
        message(
            from,
            4,
            Body::AppendReply {
                ok: true,
                index: 2,
                round,
            },
        )
    };
    for from in [2, 3] {
        raft.step(answer(from, 1)).expect("legal");
    }
    assert_eq!(raft.commit(), 2);
    raft.ready();
    let before = raft.round();
    raft.read_index(7).expect("it leads");
    for (from, round) in [(2, before), (3, before), (4, before), (2, raft.round())] {
        raft.step(answer(from, round)).expect("legal");
        assert!(
            raft.ready().reads.is_empty(),
            "served after {from} answered round {round}"
        );
    }
    raft.step(answer(5, raft.round())).expect("legal");
    assert_eq!(raft.ready().reads, [(7, 2)]);
}

fn piece(offset: u64, data: &[u8], whole: u32, index: u64) -> Body {
    let members = founding().members;
    let data = data.to_vec();
    Body::Install {
        index,
        term: 5,
        members,
        total: 6,
        checksum: whole,
        offset,
        round: 1,
        data,
    }
}

#[test]
fn hc10_pieces_of_a_snapshot_out_of_order_damaged_or_old_do_no_harm() {
    let whole = checksum(b"abcdef");
    let mut raft = follower();
    let mut answer = |body| {
        raft.step(message(2, 5, body)).expect("legal");
        let ready = raft.ready();
        let offset = match &ready.messages[0].body {
            Body::InstallReply { offset, .. } => *offset,
            other => panic!("{other:?}"),
        };
        (offset, ready.snapshot)
    };
    // Older than what is committed here: as if it were all here.
    assert_eq!(answer(piece(0, b"abc", whole, 2)), (6, None));
    assert_eq!(answer(piece(3, b"def", whole, 9)), (0, None));
    assert_eq!(answer(piece(0, b"abc", whole, 9)), (3, None));
    assert_eq!(answer(piece(0, b"abc", whole, 9)), (3, None));
    // A wrong byte is found at the end, and it begins again.
    assert_eq!(answer(piece(3, b"deX", whole, 9)), (0, None));
    assert_eq!(answer(piece(0, b"abc", whole, 9)), (3, None));
    let (offset, snapshot) = answer(piece(3, b"def", whole, 9));
    assert_eq!(offset, 6);
    assert_eq!(
        snapshot.map(|found| (found.index, found.data)),
        Some((9, b"abcdef".to_vec()))
    );
    assert_eq!((raft.commit(), raft.last_index()), (9, 9));
}

#[test]
fn hc10_a_piece_that_cannot_be_one_is_refused() {
    refused(message(2, 5, piece(4, b"abc", 0, 9)), Refused::Snapshot);
    refused(
        message(2, 5, piece(u64::MAX, b"abc", 0, 9)),
        Refused::Snapshot,
    );
    let Body::Install { checksum, data, .. } = piece(0, b"abc", 0, 9) else {
        unreachable!()
    };
    let body = Body::Install {
        index: 9,
        term: 5,
        members: Members::default(),
        total: 6,
        checksum,
        offset: 0,
        round: 1,
        data,
    };
    refused(message(2, 5, body), Refused::Snapshot);
}

#[test]
fn hc12_nobody_is_promised_a_vote_while_the_leader_is_heard() {
    let mut raft = follower();
    let ask = || {
        message(
            3,
            6,
            Body::PreVote {
                last_index: 9,
                last_term: 5,
            },
        )
    };
    raft.step(ask()).expect("legal");
    assert!(raft.ready().messages.is_empty());
    for _ in 0..10 {
        raft.tick();
    }
    raft.ready();
    raft.step(ask()).expect("legal");
    let replies = raft.ready().messages;
    assert_eq!(replies[0].body, Body::PreVoteReply { granted: true });
    // A promise begins no term.
    assert_eq!(raft.term(), 5);
}

#[test]
fn hc16_a_node_that_stood_still_leads_no_more() {
    let mut raft = follower();
    for _ in 0..20 {
        raft.tick();
    }
    raft.step(message(3, 6, Body::PreVoteReply { granted: true }))
        .expect("legal");
    raft.step(message(3, 6, Body::VoteReply { granted: true }))
        .expect("legal");
    assert_eq!(raft.role(), Role::Leader);
    raft.stalled();
    assert_eq!(raft.role(), Role::Follower);
    assert!(raft.propose(vec![]).is_err());
}

#[test]
fn bytes_that_are_no_message_are_refused_and_never_a_panic() {
    let whole = message(2, 5, append(3, 5, 2, vec![entry(4, 5), entry(5, 5)])).encode();
    for cut in 0..whole.len() {
        assert!(Message::decode(&whole[..cut]).is_err());
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert_eq!(Message::decode(&longer), Err(Refused::Format));
    // Every flipped bit reads as another message or none, and what it reads as writes the same bytes.
    for place in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[place / 8] ^= 1 << (place % 8);
        if let Ok(read) = Message::decode(&flipped) {
            assert_eq!(read.encode(), flipped);
            let _ = follower().step(read);
        }
    }
}
