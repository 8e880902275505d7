//! `resequence` and `dedupe` against a plain reference, on any order and repetition of an outsider's numbers.

use std::collections::BTreeSet;

use meshfold_core::event::{Event, EventId};
use meshfold_core::operator::{Item, Operator, Probe, build};
use meshfold_core::registry::{
    DELIVERY_DUPLICATED, ORDER_POSSIBLY_OUT_OF_ORDER, ORDER_RESEQUENCED,
};
use meshfold_core::value::Value;
use proptest::prelude::*;

const THERE: [u8; 8] = *b"producer";

fn item(seq: u64, taints: u64) -> Item {
    let event = Event {
        producer: THERE,
        incarnation: THERE,
        route: THERE,
        seq,
        taints,
        ingest: seq.cast_signed(),
        ..Event::default()
    };
    Item::enter(&event, Value::Int(seq.cast_signed()), 1)
}

fn operator(kind: &str, with: &str) -> Box<dyn Operator> {
    build(kind, &serde_json::from_str(with).expect("JSON")).expect("an operator")
}

fn numbers(probe: &Probe) -> Vec<u64> {
    probe.emitted().map(|item| item.id.seq).collect()
}

proptest! {
    #[test]
    fn what_comes_in_time_leaves_in_order_and_nothing_twice(
        order in prop::collection::vec(1u64..20, 1..60), capacity in 1usize..8,
    ) {
        let mut operator = operator("resequence", &format!("{{\"capacity\": {capacity}}}"));
        let mut probe = Probe::default();
        for seq in &order {
            probe.item(&mut *operator, 0, item(*seq, ORDER_POSSIBLY_OUT_OF_ORDER));
        }
        let out = numbers(&probe);
        prop_assert!(out.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", out);
        let (held, dropped) = (probe.held(), probe.dropped());
        prop_assert_eq!(out.len() + held + dropped, order.len());
        prop_assert!(held <= capacity);
        let repaired = ORDER_RESEQUENCED | ORDER_POSSIBLY_OUT_OF_ORDER;
        prop_assert!(probe.emitted().all(|item| item.taints & repaired == ORDER_RESEQUENCED));
    }

    #[test]
    fn with_room_enough_everything_from_the_first_on_is_put_in_order(mut order in Just((2u64..30).collect::<Vec<_>>()).prop_shuffle()) {
        order.insert(0, 1);
        let mut operator = operator("resequence", "{\"capacity\": 100}");
        let mut probe = Probe::default();
        for seq in &order {
            probe.item(&mut *operator, 0, item(*seq, 0));
        }
        prop_assert_eq!(numbers(&probe), (1..30).collect::<Vec<_>>());
        prop_assert!(probe.emitted().all(|item| item.taints == 0));
    }

    #[test]
    fn each_event_passes_once_and_is_no_duplicate_any_more(order in prop::collection::vec(1u64..20, 1..60)) {
        let mut operator = operator("dedupe", "{}");
        let mut probe = Probe::default();
        for seq in &order {
            probe.item(&mut *operator, 0, item(*seq, DELIVERY_DUPLICATED));
        }
        let mut seen = BTreeSet::new();
        let expected: Vec<u64> = order.into_iter().filter(|seq| seen.insert(*seq)).collect();
        prop_assert_eq!(numbers(&probe), expected);
        prop_assert!(probe.emitted().all(|item| item.taints == 0));
    }
}

#[test]
fn a_gap_is_given_up_when_its_time_is_over_and_what_comes_after_is_late() {
    let mut operator = operator("resequence", "{\"capacity\": 100, \"ns\": 10}");
    let mut probe = Probe::default();
    for seq in [1, 3, 4] {
        probe.item(&mut *operator, 0, item(seq, 0));
    }
    assert_eq!(numbers(&probe), [1]);
    assert_eq!(operator.deadline(), Some(13));
    probe.time(&mut *operator, 13);
    assert_eq!(numbers(&probe), [1, 3, 4]);
    probe.item(&mut *operator, 0, item(2, 0));
    let late: Vec<EventId> = probe.beside(0).map(|item| item.id).collect();
    assert_eq!((late[0].seq, probe.dropped()), (2, 1));
}
