//! A value that stands in an operator's configuration.

use serde::Deserialize;

use crate::payload::Payload;
use crate::value::Value;

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Literal {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes { bytes: Vec<u8> },
}

impl Literal {
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Str(text) => Value::Str(text.as_str().into()),
            Self::Bytes { bytes } => Value::Bytes(Payload::copy(bytes)),
        }
    }
}
