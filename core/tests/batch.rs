//! MB1 holds what it promises, on random and on hostile input.

use std::sync::Arc;

use meshfold_core::batch::{Columns, columns, decode, encode};
use meshfold_core::event::{Event, EventId, Extra, ParentRange};
use meshfold_core::taint::{join, normalize};
use proptest::prelude::*;

const ROUTE: [u8; 8] = *b"route001";
const PRODUCER: [u8; 8] = *b"producer";
const LIFE: [u8; 8] = *b"life0001";

fn text() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of("[a-z0-9é]{0,12}".prop_map(Into::into))
}

prop_compose! {
    fn event()(
        time in any::<i64>(), ingest in any::<i64>(), logical in any::<u64>(), epoch in any::<u64>(), qos in any::<u8>(),
        trace in prop::option::of(any::<[u8; 16]>()), cause in prop::option::of(1u64..), key in text(), correlation in text(),
        operator in text(), labels in prop::collection::vec("[a-z]{0,5}".prop_map(Into::into), 0..4),
        parents in prop::collection::vec((any::<[u8; 8]>(), 1u64..1000, 0u64..1000), 0..5), taints in any::<u64>(),
        payload in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), sampled in any::<bool>(),
    ) -> Event {
        let extra = Extra {
            logical, epoch, qos, trace,
            causality: cause.map(|seq| EventId { producer: PRODUCER, incarnation: LIFE, route: ROUTE, seq }),
            key, correlation, operator, labels,
            parents: parents.into_iter().map(|(tag, first, more)| ParentRange {
                producer: tag, incarnation: tag, route: tag, first, last: first + more,
            }).collect::<Vec<_>>().into(),
            ..Extra::default()
        };
        Event {
            route: ROUTE, producer: PRODUCER, incarnation: LIFE, time, ingest, sampled, taints: normalize(taints),
            extra: extra.held(),
            payload: payload.map(Into::into),
            ..Event::default()
        }
    }
}

fn batch() -> impl Strategy<Value = Vec<Arc<Event>>> {
    (1u64..u64::MAX / 2, prop::collection::vec(event(), 1..6)).prop_map(|(first, events)| {
        let number = |(place, event): (usize, Event)| {
            Arc::new(Event {
                seq: first + place as u64,
                ..event
            })
        };
        events.into_iter().enumerate().map(number).collect()
    })
}

#[test]
fn a_root_event_carries_no_trace_and_gets_its_own_back() {
    let event = Event {
        route: ROUTE,
        producer: PRODUCER,
        incarnation: LIFE,
        seq: 7,
        ..Event::default()
    };
    let (meta, payload) = encode(&[Arc::new(event.clone())]);
    assert_eq!(meta.len(), 6);
    let back = decode(&meta, Some(&payload), ROUTE, PRODUCER, LIFE).expect("own encoding");
    assert_eq!(back[0].trace(), event.usual_trace());
    // As docs/batch-format.md computes it; held here so that the wire does not change unseen.
    assert_eq!(
        u128::from_be_bytes(event.trace()),
        0x8b08_fd16_e1f4_17de_51ed_dda6_311e_7ec4
    );
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same(events in batch()) {
        let (meta, payload) = encode(&events);
        let back = decode(&meta, Some(&payload), ROUTE, PRODUCER, LIFE).expect("own encoding");
        let plain: Vec<Event> = events.iter().map(|event| (**event).clone()).collect();
        prop_assert_eq!(back, plain);
    }

    #[test]
    fn a_truncated_batch_is_refused(events in batch(), cut in any::<prop::sample::Index>()) {
        let (meta, payload) = encode(&events);
        let short = cut.index(meta.len());
        prop_assert!(decode(&meta[..short], Some(&payload), ROUTE, PRODUCER, LIFE).is_err());
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(events in batch(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (mut meta, payload) = encode(&events);
        let place = at.index(meta.len());
        meta[place] ^= 1 << bit;
        if let Ok(decoded) = decode(&meta, Some(&payload), ROUTE, PRODUCER, LIFE) {
            let again: Vec<_> = decoded.into_iter().map(Arc::new).collect();
            prop_assert_eq!(encode(&again), (meta, payload));
        }
    }

    #[test]
    fn columns_say_what_the_events_do_or_nothing(
        first in 1u64..1 << 40, times in prop::collection::vec(any::<i64>(), 1..9), taints in any::<u64>(),
        at in any::<prop::sample::Index>(), flip in any::<Option<u8>>(),
    ) {
        let event = |(place, time): (usize, &i64)| Arc::new(Event {
            route: ROUTE, producer: PRODUCER, incarnation: LIFE, time: *time, seq: first + place as u64,
            taints: normalize(taints), payload: Some(vec![7; place * 60].into()), ..Event::default()
        });
        let events: Vec<_> = times.iter().enumerate().map(event).collect();
        let (mut meta, mut payload) = encode(&events);
        if let Some(bits) = flip {
            let place = at.index(meta.len() + payload.len());
            let mut both = meta.iter_mut().chain(payload.iter_mut());
            *both.nth(place).expect("a byte") ^= bits;
        }
        let decoded = decode(&meta, Some(&payload), ROUTE, PRODUCER, LIFE);
        match columns(&meta, &payload) {
            Some(Columns { first, times, taints, values }) => {
                let decoded = decoded.expect("columns are a batch");
                prop_assert_eq!(decoded.len(), times.len());
                for (place, event) in decoded.iter().enumerate() {
                    prop_assert_eq!((event.seq, event.time), (first + place as u64, times[place]));
                    prop_assert_eq!((event.taints, &event.extra, event.sampled), (taints, &None, false));
                    let (start, len) = values[place];
                    prop_assert_eq!(event.payload.as_deref(), Some(&payload[start..start + len]));
                }
            }
            None => prop_assert!(flip.is_some(), "a plain batch is columns"),
        }
    }

    #[test]
    fn random_bytes_never_panic(meta in prop::collection::vec(any::<u8>(), 0..200), payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&meta, Some(&payload), ROUTE, PRODUCER, LIFE);
        let _ = decode(&meta, None, ROUTE, PRODUCER, LIFE);
        let _ = columns(&meta, &payload);
    }

    #[test]
    fn joining_taints_is_commutative_associative_and_idempotent(a in any::<u64>(), b in any::<u64>(), c in any::<u64>()) {
        prop_assert_eq!(join(a, b), join(b, a));
        prop_assert_eq!(join(join(a, b), c), join(a, join(b, c)));
        prop_assert_eq!(join(a, a), normalize(a));
    }
}
