//! `mark`: what passes carries these taints from here on (S28).

use serde::Deserialize;
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config};
use crate::taint;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    taints: Vec<String>,
}

struct Mark(u64);

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings { taints } = config(with)?;
    let mut bits = 0;
    for name in &taints {
        let bit = taint::bit(name);
        bits |= bit.ok_or_else(|| BuildError(format!("unknown taint {name}")))?;
    }
    Ok(Box::new(Mark(bits)))
}

impl Operator for Mark {
    fn on_item(&mut self, _port: usize, mut item: Item, out: &mut Out) {
        item.mark(self.0);
        out.emit(item);
    }
}
