//! One field of a JSON document, without building the document.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Fault, Step};
use crate::value::Value;

/// The value at a path; a missing field is a fault.
pub(super) fn find(text: &[u8], path: &[Step]) -> Result<Value, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    match Path(path).deserialize(&mut reader) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err("a field that is missing or no plain value"),
        Err(_) => Err("a value that is no JSON"),
    }
}

struct Path<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Path<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// At the end of the path: what to do with a scalar that lies there.
macro_rules! scalar {
    ($name:ident, $kind:ty, $make:expr) => {
        fn $name<E>(self, value: $kind) -> Result<Self::Value, E> {
            let make: fn($kind) -> Option<Value> = $make;
            Ok(if self.0.is_empty() { make(value) } else { None })
        }
    };
}

impl<'de> Visitor<'de> for Path<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    scalar!(visit_bool, bool, |truth| Some(Value::Bool(truth)));
    scalar!(visit_i64, i64, |int| Some(Value::Int(int)));
    scalar!(visit_u64, u64, |int| i64::try_from(int)
        .ok()
        .map(Value::Int));
    scalar!(visit_f64, f64, |float| Some(Value::Float(float)));
    scalar!(visit_str, &str, |text| Some(Value::Str(text.into())));

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then_some(Value::None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.0.split_first() {
                Some((Step::Name(wanted), rest)) if *wanted == *name => {
                    found = map.next_value_seed(Path(rest))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut at) = (None, 0);
        loop {
            let here = match self.0.split_first() {
                Some((Step::Place(wanted), rest)) if *wanted == at => Some(rest),
                _ => None,
            };
            match here {
                Some(rest) => match list.next_element_seed(Path(rest))? {
                    Some(value) => found = value,
                    None => return Ok(found),
                },
                None => {
                    if list.next_element::<IgnoredAny>()?.is_none() {
                        return Ok(found);
                    }
                }
            }
            at += 1;
        }
    }
}
