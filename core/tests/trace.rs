//! Span records: parents and links as S30 has them, and nothing for what is not sampled.

use std::sync::Arc;

use meshfold_core::engine::{Engine, Input, Outcome, Step};
use meshfold_core::event::{Event, Extra};
use meshfold_core::trace::{
    LINKS_MAX, Link, Outside, RECORDS_MAX, SpanKind, SpanRecord, event_span, local_span,
};

use meshfold_core::value::{Codec, Value};

const HERE: [u8; 8] = *b"producer";
const THERE: [u8; 8] = *b"another1";
const LIFE: [u8; 8] = *b"life0001";

fn engine() -> Engine {
    let mut engine = Engine::new(HERE, LIFE);
    engine.tracer.start(u64::MAX, u32::MAX, u32::MAX);
    engine
}

fn publish(engine: &mut Engine, route: [u8; 8], parents: &[&Event], ingest: i64) -> Arc<Event> {
    let index = engine.route(route, Codec::Bytes);
    let input = Input {
        payload: Some(b"1234"[..].into()),
        ingest,
        parents: parents.iter().map(|event| event.id()).collect(),
        ..Input::default()
    };
    engine.publish(index, input).expect("room")
}

fn run(engine: &mut Engine) {
    while !matches!(engine.step(), Step::Idle) {}
}

fn span_of(records: &[SpanRecord], event: &Event) -> SpanRecord {
    let found = records.iter().find(|record| record.event == event.id());
    found.expect("a record of the event").clone()
}

#[test]
fn what_is_not_sampled_leaves_nothing() {
    let mut engine = Engine::new(HERE, LIFE);
    engine.tracer.start(0, 0, u32::MAX);
    let event = publish(&mut engine, *b"route001", &[], 5);
    run(&mut engine);
    assert!(!event.sampled);
    assert_eq!(engine.tracer.counts(), (0, 0));
}

#[test]
fn a_derived_event_has_its_last_input_as_parent_and_links_the_others() {
    let mut engine = engine();
    let root = publish(&mut engine, *b"route001", &[], 5);
    let left = publish(&mut engine, *b"route002", &[&root], 6);
    let right = publish(&mut engine, *b"route003", &[&root], 7);
    let both = publish(&mut engine, *b"route004", &[&left, &right], 8);
    run(&mut engine);
    let records = engine.tracer.take(100);
    assert_eq!(span_of(&records, &root).parent, None);
    let derived = span_of(&records, &both);
    assert_eq!(derived.trace, root.trace());
    assert_eq!(derived.parent, Some(event_span(&right.id())));
    let link = Link {
        trace: root.trace(),
        span: event_span(&left.id()),
    };
    assert_eq!(derived.links, [link]);
    assert_eq!(derived.size, 4);
}

#[test]
fn inputs_of_several_traces_begin_a_new_one_and_are_all_linked() {
    let mut engine = engine();
    let left = publish(&mut engine, *b"route001", &[], 5);
    let right = publish(&mut engine, *b"route002", &[], 5);
    let both = publish(&mut engine, *b"route003", &[&left, &right], 8);
    run(&mut engine);
    let derived = span_of(&engine.tracer.take(100), &both);
    assert!(both.sampled);
    assert!(derived.trace != left.trace() && derived.trace != right.trace());
    assert_eq!(derived.parent, None);
    assert_eq!(
        derived
            .links
            .iter()
            .map(|link| link.trace)
            .collect::<Vec<_>>(),
        [left.trace(), right.trace()]
    );
}

#[test]
fn the_same_input_named_twice_is_no_link_of_its_own_parent() {
    let mut engine = engine();
    let root = publish(&mut engine, *b"route001", &[], 5);
    let event = publish(&mut engine, *b"route002", &[&root, &root], 6);
    run(&mut engine);
    assert_eq!(span_of(&engine.tracer.take(100), &event).links, []);
}

#[test]
fn an_event_of_another_node_is_processed_under_its_own_span_and_is_the_parent_of_what_follows() {
    let mut engine = engine();
    let index = engine.route(*b"route001", Codec::Bytes);
    let remote = Arc::new(Event {
        route: *b"route001",
        producer: THERE,
        incarnation: LIFE,
        seq: 1,
        extra: Extra {
            trace: Some([9; 16]),
            ..Extra::default()
        }
        .held(),
        sampled: true,
        payload: Some(b"12345678"[..].into()),
        ..Event::default()
    });
    let (meta, payload) = meshfold_core::batch::encode(std::slice::from_ref(&remote));
    let mut incoming = engine
        .unpack(index, (&meta, Some(&payload)), THERE, LIFE, 0)
        .expect("a batch");
    let receipt = engine.push(index, &mut incoming, 50).expect("room");
    assert_eq!((receipt.delivered, incoming.waiting()), (1, 0));
    run(&mut engine);
    let derived = publish(&mut engine, *b"route002", &[&remote], 60);
    run(&mut engine);
    let records = engine.tracer.take(100);
    let processed = span_of(&records, &remote);
    assert_eq!(processed.kind, SpanKind::Process);
    assert_eq!(processed.parent, Some(event_span(&remote.id())));
    assert_eq!(processed.span, local_span(&remote.id(), HERE));
    assert_ne!(processed.span, event_span(&remote.id()));
    assert_eq!((processed.start, processed.end), (50, 50));
    assert_eq!(derived.trace(), remote.trace());
    assert_eq!(span_of(&records, &derived).parent, Some(processed.span));
}

#[test]
fn an_operator_step_is_timed_by_the_ticks_of_the_host() {
    let mut engine = engine();
    let source = engine.route(*b"route001", Codec::Bytes);
    let sink = engine.route(*b"route002", Codec::Bytes);
    let spec = r#"{"name":"double","stages":[{"kind":"foreign"}],"inputs":[{"route":0}],"sink":1}"#;
    let spec = serde_json::from_str(spec).expect("a description");
    engine.install(&spec, &[source, sink]).expect("a node");
    let root = publish(&mut engine, *b"route001", &[], 100);
    let Step::Apply(call) = engine.step() else {
        panic!("the pipe runs first");
    };
    assert!(engine.tracer.is_open());
    engine.tracer.tick(140);
    let made = Value::Bytes(b"ab"[..].into());
    engine.resume(*call, Outcome::Value(made));
    engine.tracer.tick(160);
    assert!(matches!(engine.step(), Step::Idle));
    let records = engine.tracer.take(100);
    let step = records
        .iter()
        .find(|record| record.kind == SpanKind::Operator)
        .expect("the step");
    assert_eq!(step.parent, Some(event_span(&root.id())));
    assert_eq!((step.start, step.end), (140, 160));
    assert_eq!(span_of(&records, &root).end, 160);
}

#[test]
fn a_trace_from_outside_goes_on_under_its_span() {
    let mut engine = engine();
    let index = engine.route(*b"route001", Codec::Float);
    let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let outside = Outside::parse(header).expect("a header");
    let input = Input {
        outside: Some(outside),
        ..Input::default()
    };
    let event = engine.publish(index, input).expect("room");
    run(&mut engine);
    assert!(event.sampled);
    assert_eq!(event.trace(), outside.trace);
    let record = span_of(&engine.tracer.take(10), &event);
    assert_eq!(record.parent, Some(outside.span));
    let derived = publish(&mut engine, *b"route002", &[&event], 6);
    assert_eq!(derived.trace(), outside.trace);
}

#[test]
fn whoever_asks_from_outside_gets_no_more_traces_than_begin_here() {
    let mut engine = Engine::new(HERE, LIFE);
    engine.tracer.start(u64::MAX, 1, u32::MAX);
    let index = engine.route(*b"route001", Codec::Float);
    let outside = |sampled| {
        Some(Outside {
            trace: [7; 16],
            span: [7; 8],
            sampled,
        })
    };
    let sampled: Vec<bool> = [false, true, true]
        .into_iter()
        .map(|sampled| {
            let outside = outside(sampled);
            let input = Input {
                outside,
                ..Input::default()
            };
            engine.publish(index, input).expect("room").sampled
        })
        .collect();
    assert_eq!(sampled, [false, true, false]);
}

#[test]
fn headers_that_are_no_trace_context_are_refused() {
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert!(Outside::parse(good).is_some());
    assert!(
        !Outside::parse(&good.replace("-01", "-00"))
            .expect("one")
            .sampled
    );
    assert!(Outside::parse(&format!("cc{}-what-comes-later", &good[2..])).is_some());
    for bad in [
        "",
        "00",
        &good[..54],
        &format!("{good}-more"),
        &format!("{good}x"),
        &format!("cc{}x", &good[2..]),
        &format!("ff{}", &good[2..]),
        &good.to_uppercase(),
        &good.replace('-', "_"),
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        "00-0af7651916cd43dd8448eb211c80319é-b7ad6b716920333-01",
    ] {
        assert_eq!(Outside::parse(bad), None, "{bad}");
    }
}

#[test]
fn at_most_so_many_traces_begin_in_a_second() {
    let mut engine = Engine::new(HERE, LIFE);
    engine.tracer.start(u64::MAX, 2, u32::MAX);
    let second = 1_000_000_000;
    let sampled: Vec<bool> = [0, 1, 2, second, second + 1, second + 2]
        .into_iter()
        .map(|ingest| publish(&mut engine, *b"route001", &[], ingest).sampled)
        .collect();
    assert_eq!(sampled, [true, true, false, true, true, false]);
}

#[test]
fn a_ratio_samples_about_that_share() {
    let mut engine = Engine::new(HERE, LIFE);
    engine.tracer.start(u64::MAX / 4, u32::MAX, u32::MAX);
    let sampled = (0..4000)
        .filter(|_| {
            let event = publish(&mut engine, *b"route001", &[], 1);
            run(&mut engine);
            event.sampled
        })
        .count();
    assert!((800..1200).contains(&sampled), "{sampled} of 4000");
}

#[test]
fn more_inputs_than_links_keep_the_first_the_last_and_the_number() {
    let mut engine = engine();
    let index = engine.route(*b"route001", Codec::Bytes);
    engine.retain(index, 1000, usize::MAX, i64::MAX);
    let inputs: Vec<_> = (0..500)
        .map(|time| publish(&mut engine, *b"route001", &[], time))
        .collect();
    run(&mut engine);
    let all: Vec<&Event> = inputs.iter().map(|event| &**event).collect();
    let event = publish(&mut engine, *b"route002", &all, 600);
    run(&mut engine);
    let derived = span_of(&engine.tracer.take(RECORDS_MAX), &event);
    assert_eq!(derived.inputs, 500);
    assert_eq!(derived.links.len(), LINKS_MAX);
    assert!(
        derived
            .links
            .iter()
            .any(|link| link.trace == inputs[1].trace())
    );
    assert!(
        derived
            .links
            .iter()
            .any(|link| link.trace == inputs[499].trace())
    );
    assert!(
        !derived
            .links
            .iter()
            .any(|link| link.trace == inputs[250].trace())
    );
}

#[test]
fn records_nobody_takes_are_dropped_and_counted() {
    let mut engine = engine();
    for time in (0..).take(RECORDS_MAX + 3) {
        publish(&mut engine, *b"route001", &[], time);
        run(&mut engine);
    }
    assert_eq!(engine.tracer.counts(), (RECORDS_MAX as u64 + 3, 3));
    let taken = engine.tracer.take(usize::MAX);
    assert_eq!((taken.len(), taken[0].event.seq), (RECORDS_MAX, 4));
}

#[test]
fn more_records_than_allowed_in_a_second_are_dropped_and_counted() {
    let mut engine = Engine::new(HERE, LIFE);
    engine.tracer.start(u64::MAX, u32::MAX, 2);
    for time in [0, 1, 2, 1_000_000_000] {
        assert!(publish(&mut engine, *b"route001", &[], time).sampled);
        run(&mut engine);
    }
    assert_eq!(engine.tracer.counts(), (4, 1));
    assert_eq!(engine.tracer.take(10).len(), 3);
}
