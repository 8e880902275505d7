//! What operations do with values.

use std::cmp::Ordering;

use super::{Fault, truth};
use crate::value::Value;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as what they do")]
pub enum Op {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
    Neg,
    Abs,
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
    And,
    Or,
    Not,
    Min,
    Max,
}

const NAMES: [(&str, Op); 20] = [
    ("+", Op::Add),
    ("-", Op::Sub),
    ("*", Op::Mul),
    ("/", Op::Div),
    ("//", Op::FloorDiv),
    ("%", Op::Mod),
    ("**", Op::Pow),
    ("neg", Op::Neg),
    ("abs", Op::Abs),
    ("<", Op::Lt),
    ("<=", Op::Le),
    (">", Op::Gt),
    (">=", Op::Ge),
    ("==", Op::Eq),
    ("!=", Op::Ne),
    ("and", Op::And),
    ("or", Op::Or),
    ("not", Op::Not),
    ("min", Op::Min),
    ("max", Op::Max),
];

const OVERFLOW: Fault = "an integer beyond 64 bits";
const ZERO: Fault = "a division by zero";
const KINDS: Fault = "operands that do not go together";

impl Op {
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, op)| *op)
    }

    pub(super) fn takes(self, operands: usize) -> bool {
        match self {
            Self::Neg | Self::Abs | Self::Not => operands == 1,
            Self::And | Self::Or => operands >= 1,
            _ => operands == 2,
        }
    }

    pub(super) fn one(self, value: &Value) -> Result<Value, Fault> {
        match (self, value) {
            (Self::Not, value) => Ok(Value::Bool(!truth(value)?)),
            (Self::Neg, Value::Int(int)) => int.checked_neg().map(Value::Int).ok_or(OVERFLOW),
            (Self::Neg, Value::Float(float)) => Ok(Value::Float(-float)),
            (Self::Abs, Value::Int(int)) => int.checked_abs().map(Value::Int).ok_or(OVERFLOW),
            (Self::Abs, Value::Float(float)) => Ok(Value::Float(float.abs())),
            _ => Err(KINDS),
        }
    }

    pub(super) fn two(self, left: &Value, right: &Value) -> Result<Value, Fault> {
        if let Some(truth) = self.ordered(left, right)? {
            return Ok(Value::Bool(truth));
        }
        match (left, right) {
            (Value::Int(a), Value::Int(b)) => self.ints(*a, *b),
            (Value::Str(a), Value::Str(b)) if self == Self::Add => {
                Ok(Value::Str(format!("{a}{b}").into()))
            }
            _ => match (left.number(), right.number()) {
                (Some(a), Some(b)) => match self.float(a, b) {
                    Some(float) => Ok(Value::Float(float)),
                    None => Err(ZERO),
                },
                _ => Err(KINDS),
            },
        }
    }

    /// The truth of a comparison; None: this is none.
    fn ordered(self, left: &Value, right: &Value) -> Result<Option<bool>, Fault> {
        let order = || {
            let known = matches!(
                (left, right),
                (
                    Value::Int(_) | Value::Float(_),
                    Value::Int(_) | Value::Float(_)
                )
            );
            let order = left.order(right);
            // Numbers that do not compare are NaN, and then nothing holds; other kinds cannot be asked.
            if order.is_none() && !known {
                Err(KINDS)
            } else {
                Ok(order)
            }
        };
        Ok(Some(match self {
            Self::Lt => order()? == Some(Ordering::Less),
            Self::Le => matches!(order()?, Some(Ordering::Less | Ordering::Equal)),
            Self::Gt => order()? == Some(Ordering::Greater),
            Self::Ge => matches!(order()?, Some(Ordering::Greater | Ordering::Equal)),
            Self::Eq => equal(left, right),
            Self::Ne => !equal(left, right),
            _ => return Ok(None),
        }))
    }

    /// The truth of a comparison of floats; None: this is none.
    pub(super) fn compare(self, a: f64, b: f64) -> Option<bool> {
        #[allow(clippy::float_cmp, reason = "that is what was asked")]
        Some(match self {
            Self::Lt => a < b,
            Self::Le => a <= b,
            Self::Gt => a > b,
            Self::Ge => a >= b,
            Self::Eq => a == b,
            Self::Ne => a != b,
            _ => return None,
        })
    }

    /// The operation on floats; None where it is none of theirs, or divides by zero.
    pub(super) fn float(self, a: f64, b: f64) -> Option<f64> {
        Some(match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div if b != 0.0 => a / b,
            Self::FloorDiv if b != 0.0 => (a / b).floor(),
            Self::Mod if b != 0.0 => {
                let rest = a % b;
                if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
                    rest + b
                } else {
                    rest
                }
            }
            Self::Pow => a.powf(b),
            Self::Min => a.min(b),
            Self::Max => a.max(b),
            _ => return None,
        })
    }

    #[allow(clippy::cast_precision_loss, reason = "a quotient of ints is a float")]
    fn ints(self, a: i64, b: i64) -> Result<Value, Fault> {
        let whole = |found: Option<i64>| found.map(Value::Int).ok_or(OVERFLOW);
        match self {
            Self::Add => whole(a.checked_add(b)),
            Self::Sub => whole(a.checked_sub(b)),
            Self::Mul => whole(a.checked_mul(b)),
            Self::Div | Self::FloorDiv | Self::Mod if b == 0 => Err(ZERO),
            Self::Div => Ok(Value::Float(a as f64 / b as f64)),
            Self::FloorDiv => {
                let quotient = a.checked_div(b).ok_or(OVERFLOW)?;
                whole(Some(quotient - i64::from(a % b != 0 && (a < 0) != (b < 0))))
            }
            Self::Mod => {
                let rest = a.checked_rem(b).ok_or(OVERFLOW)?;
                whole(Some(if rest != 0 && (rest < 0) != (b < 0) {
                    rest + b
                } else {
                    rest
                }))
            }
            Self::Pow => match u32::try_from(b) {
                Ok(power) => whole(a.checked_pow(power)),
                Err(_) => Ok(Value::Float((a as f64).powf(b as f64))),
            },
            Self::Min => whole(Some(a.min(b))),
            Self::Max => whole(Some(a.max(b))),
            _ => Err(KINDS),
        }
    }
}

/// Equality as Python has it: NaN equals nothing, different kinds are different.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::None, Value::None) => true,
        _ => left.order(right) == Some(Ordering::Equal),
    }
}
