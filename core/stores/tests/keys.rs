//! Keys sort as their parts do, and come back.

use meshfold_stores::key::{Part, decode, encode, end_of};
use proptest::prelude::*;

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        any::<i64>().prop_map(Part::Int),
        "[\\x00-\\x03a-cé]{0,4}".prop_map(Part::Text),
        prop::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()],
            0..4
        )
        .prop_map(Part::Bytes),
    ]
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    prop::collection::vec(part(), 0..4)
}

proptest! {
    #[test]
    fn a_key_comes_back(parts in parts()) {
        prop_assert_eq!(decode(&encode(&parts)), Some(parts));
    }

    #[test]
    fn bytes_sort_as_parts_do(a in parts(), b in parts()) {
        prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
    }

    #[test]
    fn a_prefix_ends_behind_all_it_begins(a in parts(), b in parts()) {
        let (a, b) = (encode(&a), encode(&b));
        let behind = end_of(&a).is_some_and(|end| b >= end);
        prop_assert_eq!(b.starts_with(&a), b >= a && !behind);
    }

    #[test]
    fn foreign_bytes_are_no_key_or_one_that_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
        if let Some(parts) = decode(&bytes) {
            prop_assert_eq!(encode(&parts), bytes);
        }
    }
}
