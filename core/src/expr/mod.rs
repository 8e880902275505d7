//! Expressions over items: arithmetic, comparisons and logic, run without the interpreter.
//!
//! They follow Python where the two could differ: `/` gives a float, `//` and `%` round towards minus infinity, an int
//! and a float compare by value. An int beyond 64 bits, a missing field and a division by zero are failures of the item,
//! never a wrong value.

mod column;
mod json;
mod ops;

use std::sync::Arc;

use serde_json::Value as Config;

use crate::operator::{BuildError, Item};
use crate::value::Value;
pub use ops::Op;

/// Nested expressions; deeper ones are refused.
const DEPTH_MAX: usize = 48;

/// Why an item has no value under an expression.
pub type Fault = &'static str;

/// A compiled expression.
#[derive(Clone, Debug)]
pub enum Expr {
    /// A constant.
    Literal(Value),
    /// The item's value.
    Value,
    /// A field of the item's JSON value.
    Field(Arc<[Step]>),
    /// The partition key, or none.
    Key,
    /// The device time, ns.
    Time,
    /// An operation.
    Apply(Op, Vec<Expr>),
}

/// One step into a document.
#[derive(Clone, Debug)]
pub enum Step {
    /// A key of an object.
    Name(String),
    /// A place in an array, from 0.
    Place(usize),
}

impl Expr {
    /// Compile the JSON form: a literal, `{"value": true}`, `{"field": [...]}`, `{"key": true}`, `{"time": true}` or
    /// `{"op": "+", "args": [...]}`.
    pub fn compile(form: &Config) -> Result<Self, BuildError> {
        Self::nested(form, 0)
    }

    fn nested(form: &Config, depth: usize) -> Result<Self, BuildError> {
        let wrong = |what: &str| Err(BuildError(format!("not an expression: {what}")));
        if depth > DEPTH_MAX {
            return wrong("nested too deeply");
        }
        let fields = match form {
            Config::Object(fields) => fields,
            Config::Null => return Ok(Self::Literal(Value::None)),
            Config::Bool(truth) => return Ok(Self::Literal(Value::Bool(*truth))),
            Config::String(text) => return Ok(Self::Literal(Value::Str(text.as_str().into()))),
            Config::Number(number) => return literal(number),
            Config::Array(_) => return wrong("an array"),
        };
        let only = (fields.len() == 1).then(|| fields.iter().next()).flatten();
        match only.map(|(name, inner)| (name.as_str(), inner)) {
            Some(("value", _)) => return Ok(Self::Value),
            Some(("key", _)) => return Ok(Self::Key),
            Some(("time", _)) => return Ok(Self::Time),
            Some(("field", Config::Array(path))) if !path.is_empty() => {
                let steps: Option<Vec<_>> = path.iter().map(step).collect();
                return match steps {
                    Some(steps) => Ok(Self::Field(steps.into())),
                    None => wrong("a path of names and places"),
                };
            }
            _ => {}
        }
        let (Some(Config::String(name)), Some(Config::Array(args)), 2) =
            (fields.get("op"), fields.get("args"), fields.len())
        else {
            return wrong(&form.to_string());
        };
        let Some(op) = Op::named(name) else {
            return wrong(&format!("operation {name}"));
        };
        if !op.takes(args.len()) {
            return wrong(&format!("{} operands for {name}", args.len()));
        }
        let args: Result<Vec<_>, _> = args
            .iter()
            .map(|arg| Self::nested(arg, depth + 1))
            .collect();
        Ok(Self::Apply(op, args?))
    }

    /// The value of the expression for an item.
    pub fn eval(&self, item: &Item) -> Result<Value, Fault> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Value | Self::Field(_) if matches!(item.value, Value::Gone) => {
                Err("a payload that is not here")
            }
            Self::Value => Ok(plain(&item.value)),
            Self::Field(path) => match &item.value {
                Value::Encoded(text, _, true) | Value::Json(text) => json::find(text, path),
                Value::List(values) => pick(values, path),
                _ => Err("a field of a value that has none"),
            },
            Self::Key => Ok(item.key.clone().map_or(Value::None, Value::Str)),
            Self::Time => Ok(Value::Int(item.time)),
            Self::Apply(Op::And, args) => short(args, item, false),
            Self::Apply(Op::Or, args) => short(args, item, true),
            Self::Apply(op, args) => match args.as_slice() {
                [one] => op.one(&one.eval(item)?),
                [left, right] => op.two(&left.eval(item)?, &right.eval(item)?),
                _ => Err("an operation without operands"),
            },
        }
    }

    /// Whether the expression holds.
    pub fn holds(&self, item: &Item) -> Result<bool, Fault> {
        // The usual filter, a comparison of numbers, makes no value.
        if let Self::Apply(op, args) = self
            && let [left, right] = args.as_slice()
            && let (Some(left), Some(right)) = (left.number(item), right.number(item))
            && let Some(truth) = op.compare(left, right)
        {
            return Ok(truth);
        }
        truth(&self.eval(item)?)
    }

    /// The value as a number, where it is a float without further ado.
    pub fn number(&self, item: &Item) -> Option<f64> {
        match self {
            Self::Value => match item.value {
                Value::Float(float) => Some(float),
                _ => None,
            },
            Self::Literal(Value::Float(float)) => Some(*float),
            // Beside a float an int is one.
            #[allow(clippy::cast_precision_loss, reason = "exact up to there")]
            Self::Literal(Value::Int(int)) if int.unsigned_abs() <= 1 << 53 => Some(*int as f64),
            Self::Apply(op, args) => match args.as_slice() {
                [left, right] => op.float(left.number(item)?, right.number(item)?),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value, by the short way where all is floats.
    pub fn value(&self, item: &Item) -> Result<Value, Fault> {
        match self.number(item) {
            Some(float) => Ok(Value::Float(float)),
            None => self.eval(item),
        }
    }
}

fn literal(number: &serde_json::Number) -> Result<Expr, BuildError> {
    let value = match (number.as_i64(), number.as_f64()) {
        (Some(int), _) => Value::Int(int),
        (None, Some(float)) if number.is_f64() => Value::Float(float),
        _ => {
            return Err(BuildError(format!(
                "not an expression: the number {number}"
            )));
        }
    };
    Ok(Expr::Literal(value))
}

fn step(part: &Config) -> Option<Step> {
    match part {
        Config::String(name) => Some(Step::Name(name.clone())),
        Config::Number(place) => place.as_u64().map(|place| Step::Place(place as usize)),
        _ => None,
    }
}

/// A value as expressions see it: a document of one scalar is that scalar.
fn plain(value: &Value) -> Value {
    match value {
        Value::Encoded(text, _, true) | Value::Json(text) => {
            json::find(text, &[]).unwrap_or_else(|_| value.clone())
        }
        _ => value.clone(),
    }
}

fn pick(values: &[Value], path: &[Step]) -> Result<Value, Fault> {
    match path.split_first() {
        Some((Step::Place(place), rest)) => {
            let found = values.get(*place).ok_or("a place behind the end")?;
            match (rest.is_empty(), found) {
                (true, found) => Ok(plain(found)),
                (false, Value::List(inner)) => pick(inner, rest),
                (false, Value::Encoded(text, _, true) | Value::Json(text)) => {
                    json::find(text, rest)
                }
                (false, _) => Err("a field of a value that has none"),
            }
        }
        _ => Err("a name in a list"),
    }
}

/// Whether a value counts as true: a bool, and nothing else, so that `1` is not taken for a condition by mistake.
pub(crate) fn truth(value: &Value) -> Result<bool, Fault> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        _ => Err("a condition that is no bool"),
    }
}

fn short(args: &[Expr], item: &Item, ends: bool) -> Result<Value, Fault> {
    for arg in args {
        if arg.holds(item)? == ends {
            return Ok(Value::Bool(ends));
        }
    }
    Ok(Value::Bool(!ends))
}
