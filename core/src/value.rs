//! Values between operators: decoded where an operator looks at them, encoded where they rest.

use std::any::Any;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::payload::Payload;

/// How the values of a route become bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// Opaque to the engine: the host's own schema.
    #[default]
    Foreign,
    /// As they are.
    Bytes,
    /// IEEE 754 binary64, little-endian.
    Float,
    /// Two's complement 64 bit, little-endian.
    Int,
    /// One byte, 0 or 1.
    Bool,
    /// UTF-8.
    Str,
    /// A JSON document, whose fields the engine reads; the host checks its shape.
    Json,
}

impl Codec {
    /// The codec of a schema kind.
    pub fn named(kind: &str) -> Self {
        match kind {
            "bytes" => Self::Bytes,
            "float" => Self::Float,
            "int" => Self::Int,
            "bool" => Self::Bool,
            "str" => Self::Str,
            "json" => Self::Json,
            _ => Self::Foreign,
        }
    }
}

/// One value on its way through operators.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Value {
    /// Nothing: the side of a join that is not known.
    #[default]
    None,
    /// A float.
    Float(f64),
    /// An integer.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Str(Arc<str>),
    /// Bytes of the `bytes` schema.
    Bytes(Payload),
    /// A JSON document that some operator made.
    Json(Payload),
    /// As it lay on the route of this index, whose schema decodes it.
    Encoded(Payload, u32, bool),
    /// Several: the contents of a window, the sides of a join.
    List(Arc<[Value]>),
    /// An object of the host's; cannot be kept in a checkpoint.
    #[serde(skip)]
    Object(Object),
    /// The payload is not here: it is fetched by whoever opens it, or only metadata came (S15). Who needs the value fails.
    Gone,
}

/// Something only the host understands.
#[derive(Clone)]
pub struct Object(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("object")
    }
}

impl Value {
    /// The value that lies on a route.
    pub fn decode(codec: Codec, payload: Option<&Payload>, route: usize) -> Self {
        let Some(payload) = payload else {
            return Self::Gone;
        };
        let eight = || <[u8; 8]>::try_from(&payload[..]);
        let encoded = || Self::Encoded(payload.clone(), route as u32, codec == Codec::Json);
        match codec {
            Codec::Float => eight().map_or_else(
                |_| encoded(),
                |eight| Self::Float(f64::from_le_bytes(eight)),
            ),
            Codec::Int => {
                eight().map_or_else(|_| encoded(), |eight| Self::Int(i64::from_le_bytes(eight)))
            }
            Codec::Bool => match payload[..] {
                [byte @ (0 | 1)] => Self::Bool(byte == 1),
                _ => encoded(),
            },
            Codec::Str => std::str::from_utf8(payload)
                .map_or_else(|_| encoded(), |text| Self::Str(text.into())),
            Codec::Bytes => Self::Bytes(payload.clone()),
            Codec::Json | Codec::Foreign => encoded(),
        }
    }

    /// The bytes of the value on a route with that codec; None where only the host could tell.
    pub fn encode(&self, codec: Codec, route: usize) -> Option<Payload> {
        #[allow(clippy::cast_precision_loss, reason = "checked to be exact")]
        match (codec, self) {
            (_, Self::Encoded(payload, of, _)) if *of as usize == route => Some(payload.clone()),
            (Codec::Float, Self::Float(float)) => Some(Payload::eight(float.to_le_bytes())),
            (Codec::Float, Self::Int(int)) if int.unsigned_abs() <= 1 << 53 => {
                Some(Payload::eight((*int as f64).to_le_bytes()))
            }
            (Codec::Int, Self::Int(int)) => Some(Payload::eight(int.to_le_bytes())),
            (Codec::Bool, Self::Bool(truth)) => Some(Payload::copy(&[u8::from(*truth)])),
            (Codec::Str, Self::Str(text)) => Some(Payload::copy(text.as_bytes())),
            (Codec::Bytes, Self::Bytes(bytes)) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// As a number: floats, and integers that are exact as one.
    pub fn number(&self) -> Option<f64> {
        #[allow(
            clippy::cast_precision_loss,
            reason = "expressions compute in binary64"
        )]
        match self {
            Self::Float(float) => Some(*float),
            Self::Int(int) => Some(*int as f64),
            _ => None,
        }
    }

    /// Whether both are the same value; NaN is itself here, so that `distinct` sees one.
    pub fn same(&self, other: &Self) -> bool {
        #[allow(clippy::float_cmp, reason = "the same value, not a near one")]
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(&a.0, &b.0),
            (Self::None, Self::None) => true,
            (Self::Encoded(a, ..) | Self::Json(a), Self::Encoded(b, ..) | Self::Json(b)) => a == b,
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.same(b))
            }
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }

    /// How both compare; None where they do not.
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Str(a), Self::Str(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a[..].cmp(&b[..])),
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }

    /// Text by which records are put into partitions.
    pub fn key(&self) -> Option<Arc<str>> {
        match self {
            Self::Str(text) => Some(text.clone()),
            Self::Int(int) => Some(int.to_string().into()),
            Self::Bool(truth) => Some(if *truth { "true" } else { "false" }.into()),
            Self::Float(float) => Some(float.to_string().into()),
            _ => None,
        }
    }
}
