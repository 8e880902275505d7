//! Aggregates over numbers that come at one end and leave at the other, in a step each.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Column, Item, Lot, config};
use crate::expr::{Expr, Fault};
use crate::value::Value;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    Std,
    Quantile,
    Ema,
    First,
    Last,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    what: What,
    #[serde(default)]
    of: Option<Config>,
    #[serde(default)]
    q: Option<f64>,
    #[serde(default)]
    alpha: Option<f64>,
}

/// A compiled aggregate: what, of which number of an item.
#[derive(Clone, Debug)]
pub struct Aggregate {
    what: What,
    of: Expr,
    parameter: f64,
}

impl Aggregate {
    /// Read `{"what": "mean", "of": EXPRESSION, "q": 0.9, "alpha": 0.1}`.
    pub fn compile(form: &Config) -> Result<Self, BuildError> {
        let Settings { what, of, q, alpha } = config(form)?;
        let within = |given: Option<f64>, name: &str| match given {
            Some(share) if (0.0..=1.0).contains(&share) => Ok(share),
            _ => Err(BuildError(format!("{name} has to be between 0 and 1"))),
        };
        let parameter = match what {
            What::Quantile => within(q, "q")?,
            What::Ema => within(alpha, "alpha")?,
            _ => 0.0,
        };
        let of = of.map_or(Ok(Expr::Value), |of| Expr::compile(&of))?;
        Ok(Self {
            what,
            of,
            parameter,
        })
    }

    /// The number of an item; a count takes any value.
    pub fn number(&self, item: &Item) -> Result<f64, Fault> {
        if self.what == What::Count {
            return Ok(0.0);
        }
        match self.of.number(item) {
            Some(float) => Ok(float),
            None => self
                .of
                .eval(item)?
                .number()
                .ok_or("a value that is no number"),
        }
    }

    /// The numbers of a lot; None where they have to be asked of single items.
    pub(super) fn numbers(&self, lot: &Lot) -> Option<Vec<f64>> {
        if self.what == What::Count {
            return Some(vec![0.0; lot.len()]);
        }
        #[allow(clippy::cast_precision_loss, reason = "as Value::number")]
        match (&self.of, &lot.values) {
            (Expr::Value, Column::Ints(ints)) => Some(ints.iter().map(|int| *int as f64).collect()),
            _ => self.of.floats(lot).map(|floats| floats.each(lot.len())),
        }
    }

    /// Compute over numbers that lie in several places.
    pub(super) fn over_slices<'a>(&self, slices: impl Iterator<Item = &'a [f64]>) -> Value {
        let mut fold = Fold::default();
        for numbers in slices {
            fold.push_all(self, numbers);
        }
        fold.value(self)
    }

    /// Compute over numbers at rest.
    pub fn over(&self, numbers: impl Iterator<Item = f64>) -> Value {
        let mut fold = Fold::default();
        for number in numbers {
            fold.push(self, number);
        }
        fold.value(self)
    }
}

/// The running state of an aggregate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fold {
    /// The numbers, where something may leave again.
    numbers: VecDeque<f64>,
    count: u64,
    /// Infinite numbers and NaN among them: they are kept out of the sums, which they would spoil for good.
    wild: u64,
    sum: f64,
    squares: f64,
    /// What squares are taken about, so that they do not lose their digits.
    shift: f64,
    last: f64,
    ema: f64,
    /// Candidates for the least and the greatest number, with their places.
    least: VecDeque<(u64, f64)>,
    greatest: VecDeque<(u64, f64)>,
    sorted: Vec<f64>,
    /// Numbers taken, and how many had left when the sums were last added up anew.
    taken: u64,
    left: u64,
    fresh: u64,
}

impl Fold {
    /// Take a number in at the end.
    pub fn push(&mut self, by: &Aggregate, number: f64) {
        if self.count == 0 {
            self.shift = if number.is_finite() { number } else { 0.0 };
            self.ema = number;
            (self.sum, self.squares) = (0.0, 0.0);
        } else if by.what == What::Ema {
            self.ema += by.parameter * (number - self.ema);
        }
        self.count += 1;
        self.last = number;
        self.add(by, number, 1.0);
        match by.what {
            What::Min => slide(&mut self.least, self.taken, number, |a, b| a <= b),
            What::Max => slide(&mut self.greatest, self.taken, number, |a, b| a >= b),
            What::Quantile => {
                let at = self
                    .sorted
                    .partition_point(|other| other.total_cmp(&number).is_lt());
                self.sorted.insert(at, number);
            }
            _ => {}
        }
        self.taken += 1;
    }

    /// As `push`, keeping the number so that it can leave.
    pub fn enter(&mut self, by: &Aggregate, number: f64) {
        self.push(by, number);
        self.numbers.push_back(number);
    }

    /// Take a number in at the end; of more than `size` the oldest leaves.
    pub fn slide(&mut self, by: &Aggregate, number: f64, size: usize) {
        let oldest = self.numbers.front().copied().unwrap_or(f64::NAN);
        let sums = matches!(by.what, What::Sum | What::Mean);
        if !sums || self.numbers.len() < size || !number.is_finite() || !oldest.is_finite() {
            self.enter(by, number);
            if self.numbers.len() > size {
                self.leave(by);
            }
            return;
        }
        // What comes and what goes in one step, as `slide_sums` does it.
        self.sum += (number - self.shift) - (oldest - self.shift);
        self.numbers.pop_front();
        self.numbers.push_back(number);
        self.last = number;
        self.taken += 1;
        self.left += 1;
        self.freshen(by);
    }

    /// Let the oldest number leave.
    pub fn leave(&mut self, by: &Aggregate) {
        let Some(number) = self.numbers.pop_front() else {
            return;
        };
        self.count -= 1;
        self.add(by, number, -1.0);
        let place = self.left;
        self.left += 1;
        for ring in [&mut self.least, &mut self.greatest] {
            if ring.front().is_some_and(|(at, _)| *at == place) {
                ring.pop_front();
            }
        }
        if by.what == What::Quantile {
            let at = self
                .sorted
                .partition_point(|other| other.total_cmp(&number).is_lt());
            self.sorted.remove(at);
        }
        self.freshen(by);
    }

    /// What was added and taken away leaves rounding behind: once a length the sums are added up anew.
    fn freshen(&mut self, by: &Aggregate) {
        if self.left - self.fresh >= self.count.max(1) {
            self.anew(by);
        }
    }

    /// Take numbers in one after the other; the values after each.
    pub(super) fn over_all(&mut self, by: &Aggregate, numbers: &[f64]) -> Column {
        let value = |number: &f64| {
            self.push(by, *number);
            self.value(by)
        };
        Column::of(numbers.iter().map(value).collect())
    }

    /// As `push` for each, where no value is asked between.
    fn push_all(&mut self, by: &Aggregate, numbers: &[f64]) {
        let sums = matches!(by.what, What::Sum | What::Mean | What::Count);
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
            return;
        };
        if !sums || !numbers.iter().all(|number| number.is_finite()) {
            for number in numbers {
                self.push(by, *number);
            }
            return;
        }
        self.push(by, *first);
        for number in &numbers[1..] {
            self.sum += number - self.shift;
        }
        self.count += numbers.len() as u64 - 1;
        self.taken += numbers.len() as u64 - 1;
        self.last = *last;
    }

    /// As `over_all`, where all but the last `size` leave again.
    pub(super) fn slide_over(&mut self, by: &Aggregate, numbers: &[f64], size: usize) -> Column {
        let mut values = Vec::with_capacity(numbers.len());
        let growing = size.saturating_sub(self.numbers.len()).min(numbers.len());
        let (grow, slide) = numbers.split_at(growing);
        let sums = matches!(by.what, What::Sum | What::Mean) && self.wild == 0;
        if sums && numbers.iter().all(|number| number.is_finite()) {
            self.slide_one_by_one(by, grow, size, |value| values.push(value));
            if let Some(mut floats) = floats(&values) {
                floats.reserve(slide.len());
                self.slide_sums(by, slide, size, &mut floats);
                return Column::Floats(floats);
            }
        }
        self.slide_one_by_one(by, &numbers[values.len()..], size, |value| {
            values.push(value);
        });
        Column::of(values)
    }

    fn slide_one_by_one(
        &mut self,
        by: &Aggregate,
        numbers: &[f64],
        size: usize,
        mut with: impl FnMut(Value),
    ) {
        for number in numbers {
            self.slide(by, *number, size);
            with(self.value(by));
        }
    }

    /// Finite numbers through a full window, for a sum or a mean: what `slide` and `value` compute, in their order.
    fn slide_sums(&mut self, by: &Aggregate, numbers: &[f64], size: usize, values: &mut Vec<f64>) {
        let Some(last) = numbers.last() else { return };
        #[allow(clippy::cast_precision_loss, reason = "a count of items in memory")]
        let count = size as f64;
        let value = |sum: f64, shift: f64| match by.what {
            What::Sum => sum + shift * count,
            _ => sum / count + shift,
        };
        let all: Vec<f64> = self.numbers.iter().chain(numbers).copied().collect();
        let (mut at, total) = (0, numbers.len());
        while at < total {
            // Up to where the sums are added up anew.
            let until = size - (self.left - self.fresh) as usize;
            let step = until.min(total - at);
            let (old, new) = (&all[at..at + step], &all[at + size..at + size + step]);
            let (mut sum, shift, begin) = (self.sum, self.shift, values.len());
            values.extend(old.iter().zip(new).map(|(old, new)| {
                sum += (new - shift) - (old - shift);
                sum
            }));
            // Apart from the sums, which wait for each other, so that these need not.
            for one in &mut values[begin..] {
                *one = value(*one, shift);
            }
            at += step;
            self.sum = sum;
            self.left += step as u64;
            if step == until {
                let window = &all[at..at + size];
                self.shift = window[0];
                self.sum = sum_about(self.shift, window);
                self.fresh = self.left;
                values.pop();
                values.push(value(self.sum, self.shift));
            }
        }
        self.taken += total as u64;
        self.last = *last;
        self.numbers = all[total..].iter().copied().collect();
    }

    fn anew(&mut self, by: &Aggregate) {
        (self.sum, self.squares, self.wild, self.fresh) = (0.0, 0.0, 0, self.left);
        let finite = self
            .numbers
            .iter()
            .copied()
            .find(|number| number.is_finite());
        self.shift = finite.unwrap_or(0.0);
        for place in 0..self.numbers.len() {
            self.add(by, self.numbers[place], 1.0);
        }
        if self.wild == 0 {
            self.sum = sum_about(self.shift, self.numbers.make_contiguous());
        }
    }

    fn add(&mut self, by: &Aggregate, number: f64, sign: f64) {
        if number.is_finite() {
            let from = number - self.shift;
            self.sum += sign * from;
            if by.what == What::Std {
                self.squares += sign * from * from;
            }
        } else if sign > 0.0 {
            self.wild += 1;
        } else {
            self.wild -= 1;
        }
    }

    /// The value now; none of no numbers, but a count or a sum of none is 0.
    pub fn value(&self, by: &Aggregate) -> Value {
        #[allow(clippy::cast_precision_loss, reason = "a count of items in memory")]
        let count = self.count as f64;
        if by.what == What::Count {
            return Value::Int(self.count.cast_signed());
        }
        if self.count == 0 {
            return if by.what == What::Sum {
                Value::Float(0.0)
            } else {
                Value::None
            };
        }
        Value::Float(match by.what {
            What::Sum | What::Mean | What::Std if self.wild > 0 => self.wild_sum(by.what),
            What::Sum => self.sum + self.shift * count,
            What::Mean => self.sum / count + self.shift,
            What::Std => {
                let mean = self.sum / count;
                (self.squares / count - mean * mean).max(0.0).sqrt()
            }
            What::Min => self.least.front().map_or(f64::NAN, |least| least.1),
            What::Max => self
                .greatest
                .front()
                .map_or(f64::NAN, |greatest| greatest.1),
            What::Quantile => quantile(&self.sorted, by.parameter),
            What::Ema => self.ema,
            What::First => self.numbers.front().copied().unwrap_or(self.shift),
            What::Last | What::Count => self.last,
        })
    }

    /// Infinities and NaN make the sum what IEEE 754 says; a spread over them is none.
    fn wild_sum(&self, what: What) -> f64 {
        if what == What::Std || self.numbers.is_empty() {
            return f64::NAN;
        }
        self.numbers.iter().sum()
    }
}

/// The sum of differences to a number, in four parts, which do not wait for each other.
fn sum_about(shift: f64, numbers: &[f64]) -> f64 {
    let (fours, rest) = numbers.as_chunks::<4>();
    let mut parts = [0.0; 4];
    for four in fours {
        for (part, number) in parts.iter_mut().zip(four) {
            *part += number - shift;
        }
    }
    for (part, number) in parts.iter_mut().zip(rest) {
        *part += number - shift;
    }
    (parts[0] + parts[1]) + (parts[2] + parts[3])
}

/// Floats, if they all are.
fn floats(values: &[Value]) -> Option<Vec<f64>> {
    let float = |value: &Value| match value {
        Value::Float(float) => Some(*float),
        _ => None,
    };
    values.iter().map(float).collect()
}

/// Keep in `ring` only numbers that can still become the extreme one.
fn slide(ring: &mut VecDeque<(u64, f64)>, place: u64, number: f64, beats: fn(f64, f64) -> bool) {
    if number.is_nan() {
        return;
    }
    while ring.back().is_some_and(|(_, other)| beats(number, *other)) {
        ring.pop_back();
    }
    ring.push_back((place, number));
}

/// Between the two nearest numbers, by the share of the way.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "places in a list in memory"
    )]
    {
        let place = q * (sorted.len() - 1) as f64;
        let (below, part) = (place.floor() as usize, place.fract());
        match (sorted.get(below), sorted.get(below + 1)) {
            (Some(a), Some(b)) => a + (b - a) * part,
            (Some(a), None) => *a,
            _ => f64::NAN,
        }
    }
}
