//! A strict reading of JSON from elsewhere (HS2, HS3): nothing is built, so nothing large can be asked for.
//!
//! Refused: bytes that are not UTF-8, an object with one key twice, more than `DEPTH_MAX` levels, an integer beyond 64
//! bits, a number that is not finite as binary64, a lone surrogate, control characters in strings, anything after the value.

use std::borrow::Cow;
use std::collections::HashSet;

/// Levels of arrays and objects; what parses deeper elsewhere would exhaust a stack here.
pub const DEPTH_MAX: usize = 128;
/// Keys compared one by one; an object with more of them gets a set.
const FEW_KEYS: usize = 16;

/// What is wrong, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One phrase for people.
    pub what: &'static str,
    /// Offset of the byte.
    pub at: usize,
}

/// Check that `data` is one JSON value by the rules above.
pub fn check(data: &[u8]) -> Result<(), Fault> {
    let text = std::str::from_utf8(data).map_err(|error| Fault {
        what: "not UTF-8",
        at: error.valid_up_to(),
    })?;
    let mut scan = Scan { text, at: 0 };
    scan.space();
    scan.value(0)?;
    scan.space();
    if scan.at < data.len() {
        return Err(scan.fault("more after the value"));
    }
    Ok(())
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn fault(&self, what: &'static str) -> Fault {
        Fault { what, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(self.fault(what));
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(_) => Err(self.fault("no JSON value")),
            None => Err(self.fault("it ends too soon")),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("no JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn enter(&mut self, depth: usize) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(self.fault("nested too deep"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), Fault> {
        self.enter(depth)?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.space();
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(());
            }
            self.eat(b',', "no comma between items")?;
            self.space();
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Fault> {
        self.enter(depth)?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut keys = Keys::default();
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.fault("no key"));
            }
            let begin = self.at;
            let key = self.string()?;
            if !keys.add(key) {
                self.at = begin;
                return Err(self.fault("one key twice"));
            }
            self.space();
            self.eat(b':', "no colon after a key")?;
            self.space();
            self.value(depth)?;
            self.space();
            if self.peek() == Some(b'}') {
                self.at += 1;
                return Ok(());
            }
            self.eat(b',', "no comma between members")?;
            self.space();
        }
    }

    /// A string; its text with escapes resolved, so that two spellings of one key are one key.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.at += 1;
        let begin = self.at;
        let mut resolved: Option<String> = None;
        let mut from = begin;
        loop {
            match self.peek() {
                None => return Err(self.fault("a string without end")),
                Some(b'"') => {
                    let rest = &self.text[from..self.at];
                    self.at += 1;
                    return Ok(match resolved {
                        None => Cow::Borrowed(rest),
                        Some(text) => Cow::Owned(text + rest),
                    });
                }
                Some(b'\\') => {
                    let text = resolved.get_or_insert_with(String::new);
                    text.push_str(&self.text[from..self.at]);
                    let character = self.escape()?;
                    text.push(character);
                    from = self.at;
                }
                Some(0..=0x1f) => return Err(self.fault("a control character in a string")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        self.at += 1;
        let byte = self.peek();
        self.at += 1;
        Ok(match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.hex()?;
                if !(0xd800..0xe000).contains(&first) {
                    return char::from_u32(first).ok_or_else(|| self.fault("no character"));
                }
                if first >= 0xdc00 || !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
                    return Err(self.fault("a lone surrogate"));
                }
                self.at += 2;
                let second = self.hex()?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(self.fault("a lone surrogate"));
                }
                let point = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return char::from_u32(point).ok_or_else(|| self.fault("no character"));
            }
            _ => return Err(self.fault("no such escape")),
        })
    }

    fn hex(&mut self) -> Result<u32, Fault> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let mut value = 0;
        for digit in digits.ok_or_else(|| self.fault("four hex digits are missing"))? {
            let digit = char::from(*digit).to_digit(16);
            value = value << 4 | digit.ok_or_else(|| self.fault("four hex digits are missing"))?;
        }
        self.at += 4;
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let begin = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == begin {
            return Err(self.fault("a digit is missing"));
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let begin = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = &self.text[begin..self.at];
        let fits = if integer {
            text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()
        } else {
            text.parse::<f64>().is_ok_and(f64::is_finite)
        };
        if !fits {
            self.at = begin;
            return Err(self.fault(if integer {
                "an integer beyond 64 bits"
            } else {
                "a number that is not finite"
            }));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Keys<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    fn add(&mut self, key: Cow<'a, str>) -> bool {
        if self.many.is_empty() {
            if self.few.contains(&key) {
                return false;
            }
            if self.few.len() < FEW_KEYS {
                self.few.push(key);
                return true;
            }
            self.many.extend(self.few.drain(..));
        }
        self.many.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, check};

    fn fault(text: &str) -> &'static str {
        check(text.as_bytes()).err().map_or("fine", |f| f.what)
    }

    #[test]
    fn plain_values_pass() {
        for text in [
            "null",
            " [1, -2.5e-3, \"a\\n\\ud83d\\ude00\", {\"k\": {}}, []] ",
            "18446744073709551615",
            "-9223372036854775808",
            "1e308",
            "0",
            "-0",
        ] {
            assert_eq!(fault(text), "fine", "{text}");
        }
    }

    #[test]
    fn each_kind_of_bad_text_has_its_own_fault() {
        for (text, what) in [
            ("18446744073709551616", "an integer beyond 64 bits"),
            ("-9223372036854775809", "an integer beyond 64 bits"),
            ("1e400", "a number that is not finite"),
            ("NaN", "no JSON value"),
            ("{\"a\":1,\"\\u0061\":2}", "one key twice"),
            ("\"\\ud800\"", "a lone surrogate"),
            ("\"\\udc00\\ud800\"", "a lone surrogate"),
            ("\"\u{1}\"", "a control character in a string"),
            ("[1,]", "no JSON value"),
            ("01", "more after the value"),
            ("{} {}", "more after the value"),
            ("", "it ends too soon"),
            ("[1 2]", "no comma between items"),
            ("\"\\x\"", "no such escape"),
            ("\"\\u12", "four hex digits are missing"),
        ] {
            assert_eq!(fault(text), what, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_where_it_says() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(fault(&nested(DEPTH_MAX)), "fine");
        assert_eq!(fault(&nested(DEPTH_MAX + 1)), "nested too deep");
        assert_eq!(fault(&"[".repeat(1_000_000)), "nested too deep");
    }

    #[test]
    fn a_key_twice_is_found_among_many() {
        let members: Vec<String> = (0..1000).map(|key| format!("\"{key}\":0,")).collect();
        let text = format!("{{{}", members.concat());
        assert_eq!(fault(&(text.clone() + "\"x\":0}")), "fine");
        assert_eq!(fault(&(text + "\"0\":0}")), "one key twice");
    }
}
