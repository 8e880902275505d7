//! Expressions over many items at once. What is not floats all through is left to the way of single items.

use super::{Expr, Op, Step};
use crate::operator::lot::{Column, Lot};
use crate::value::Value;

/// Floats of a lot.
pub(crate) enum Floats<'a> {
    /// Those of a column.
    Column(&'a [f64]),
    /// Computed ones.
    Made(Vec<f64>),
    /// The same for all rows.
    Same(f64),
}

impl Floats<'_> {
    /// The list, or what is the same for all.
    fn list(&self) -> Result<&[f64], f64> {
        match self {
            Self::Column(floats) => Ok(floats),
            Self::Made(floats) => Ok(floats),
            Self::Same(float) => Err(*float),
        }
    }

    /// As one for each of `len` rows.
    pub(crate) fn each(self, len: usize) -> Vec<f64> {
        match self {
            Self::Column(floats) => floats.to_vec(),
            Self::Made(floats) => floats,
            Self::Same(float) => vec![float; len],
        }
    }
}

impl Expr {
    /// The values of the expression over a lot; None where single items have to be asked.
    pub(crate) fn column(&self, lot: &Lot) -> Option<Column> {
        match self {
            Self::Value => {
                Some(lot.values.clone()).filter(|column| matches!(column, Column::Floats(_)))
            }
            _ => self
                .floats(lot)
                .map(|floats| Column::Floats(floats.each(lot.len()))),
        }
    }

    /// The rows for which it holds; None where single items have to be asked.
    pub(crate) fn picks(&self, lot: &Lot) -> Option<Vec<u32>> {
        let holds = self.truths(lot)?;
        if holds.iter().all(|holds| *holds) {
            return Some((0..lot.len() as u32).collect());
        }
        let mut picks = vec![0; holds.len()];
        let mut count = 0;
        // Without a branch: the next place is overwritten unless the row is kept.
        for (row, holds) in holds.iter().enumerate() {
            picks[count] = row as u32;
            count += usize::from(*holds);
        }
        picks.truncate(count);
        Some(picks)
    }

    fn truths(&self, lot: &Lot) -> Option<Vec<bool>> {
        let Self::Apply(op, args) = self else {
            return None;
        };
        if let [left, right] = args.as_slice()
            && op.compare(0.0, 0.0).is_some()
        {
            return Some(compare(
                *op,
                &left.floats(lot)?,
                &right.floats(lot)?,
                lot.len(),
            ));
        }
        let mut sides = args.iter().map(|arg| arg.truths(lot));
        let mut truths = sides.next()??;
        if *op == Op::Not {
            for truth in &mut truths {
                *truth = !*truth;
            }
            return Some(truths);
        }
        for side in sides {
            for (truth, other) in truths.iter_mut().zip(side?) {
                match op {
                    Op::And => *truth &= other,
                    Op::Or => *truth |= other,
                    _ => return None,
                }
            }
        }
        matches!(op, Op::And | Op::Or).then_some(truths)
    }

    /// Its floats over a lot.
    pub(crate) fn floats<'a>(&'a self, lot: &'a Lot) -> Option<Floats<'a>> {
        match self {
            Self::Value => column(&lot.values),
            Self::Field(path) => match (&lot.values, &path[..]) {
                (Column::Zip(columns), [Step::Place(place)]) => column(columns.get(*place)?),
                _ => None,
            },
            Self::Literal(Value::Float(float)) => Some(Floats::Same(*float)),
            // Beside a float an int is one.
            #[allow(clippy::cast_precision_loss, reason = "exact up to there")]
            Self::Literal(Value::Int(int)) if int.unsigned_abs() <= 1 << 53 => {
                Some(Floats::Same(*int as f64))
            }
            Self::Apply(op, args) => match args.as_slice() {
                [one] => match (op, one.floats(lot)?) {
                    (_, Floats::Same(_)) => None,
                    (Op::Neg, floats) => Some(made(floats, |float| -float)),
                    (Op::Abs, floats) => Some(made(floats, f64::abs)),
                    _ => None,
                },
                [left, right] => two(*op, &left.floats(lot)?, &right.floats(lot)?, lot.len()),
                _ => None,
            },
            _ => None,
        }
    }
}

fn column(column: &Column) -> Option<Floats<'_>> {
    match column {
        Column::Floats(floats) => Some(Floats::Column(floats)),
        Column::Same(Value::Float(float)) => Some(Floats::Same(*float)),
        _ => None,
    }
}

fn made(floats: Floats<'_>, of: impl Fn(f64) -> f64) -> Floats<'_> {
    Floats::Made(floats.each(0).into_iter().map(of).collect())
}

/// A list of what `of` gives for each pair of rows.
#[inline]
fn both<T>(
    left: &Floats<'_>,
    right: &Floats<'_>,
    len: usize,
    of: impl Fn(f64, f64) -> T,
) -> Vec<T> {
    match (left.list(), right.list()) {
        (Ok(a), Ok(b)) => a.iter().zip(b).map(|(a, b)| of(*a, *b)).collect(),
        (Ok(a), Err(b)) => a.iter().map(|a| of(*a, b)).collect(),
        (Err(a), Ok(b)) => b.iter().map(|b| of(a, *b)).collect(),
        (Err(a), Err(b)) => (0..len).map(|_| of(a, b)).collect(),
    }
}

fn compare(op: Op, left: &Floats<'_>, right: &Floats<'_>, len: usize) -> Vec<bool> {
    // A loop for each: they become vector instructions.
    #[allow(clippy::float_cmp, reason = "that is what was asked")]
    match op {
        Op::Lt => both(left, right, len, |a, b| a < b),
        Op::Le => both(left, right, len, |a, b| a <= b),
        Op::Gt => both(left, right, len, |a, b| a > b),
        Op::Ge => both(left, right, len, |a, b| a >= b),
        Op::Eq => both(left, right, len, |a, b| a == b),
        _ => both(left, right, len, |a, b| a != b),
    }
}

/// An operation of two; None where a row has no float.
fn two<'a>(op: Op, left: &Floats<'a>, right: &Floats<'a>, len: usize) -> Option<Floats<'a>> {
    if let (Floats::Same(_), Floats::Same(_)) = (left, right) {
        // Constants follow the rules of single items: two ints stay ints.
        return None;
    }
    // The usual ones have a loop of their own, which becomes vector instructions.
    let made = match op {
        Op::Add => both(left, right, len, |a, b| a + b),
        Op::Sub => both(left, right, len, |a, b| a - b),
        Op::Mul => both(left, right, len, |a, b| a * b),
        _ => both(left, right, len, |a, b| op.float(a, b))
            .into_iter()
            .collect::<Option<_>>()?,
    };
    Some(Floats::Made(made))
}
