//! Joining taints (S28): the union, in which a perfect value vanishes beside any worse one of its domain.

use crate::registry::{TAINT_DOMAINS, TAINTS};

/// The bit of a taint by its name.
pub fn bit(name: &str) -> Option<u64> {
    let place = TAINTS.iter().position(|known| *known == name)?;
    Some(1 << place)
}

/// Join two sets of taint bits. Commutative, associative, idempotent; the empty set is its identity.
pub fn join(a: u64, b: u64) -> u64 {
    normalize(a | b)
}

/// Drop the perfect value of each domain that has a worse one, and bits of no domain.
pub fn normalize(taints: u64) -> u64 {
    if taints == 0 {
        return 0;
    }
    let mut out = 0;
    for (perfect, all) in TAINT_DOMAINS {
        let here = taints & all;
        out |= if here & !perfect == 0 {
            here
        } else {
            here & !perfect
        };
    }
    out
}
