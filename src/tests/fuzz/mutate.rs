//! Inputs out of inputs: one generator, so that a seed gives the same run again.

use serde_json::Value;

/// What a target reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A binary format.
    Bytes,
    /// Text in a small language.
    Text,
    /// JSON.
    Json,
}

/// Words that mean something to one of the small languages.
const WORDS: [&str; 54] = [
    "{{",
    "}}",
    "{{-",
    "-}}",
    "(",
    ")",
    "|",
    ".",
    "..",
    "/",
    "//",
    "\\",
    "\"",
    "`",
    "'",
    "=",
    "==",
    "!=",
    ",",
    ":",
    ";",
    " ",
    "\n",
    "\t",
    "\0",
    "\u{1b}[",
    "\u{202e}",
    "é",
    "𝄞",
    "-",
    "+",
    "0",
    "-1",
    "65536",
    "18446744073709551615",
    "1e400",
    "NaN",
    "if",
    "end",
    "range",
    "else",
    "with",
    "index",
    "true",
    "nil",
    "tcp",
    "host",
    "node.labels.a",
    "SWMTKN-1-",
    "-----BEGIN CERTIFICATE-----",
    "ns",
    "GiB",
    "%",
    "*",
];

/// Values that programs get wrong.
const NUMBERS: [i64; 10] = [0, 1, -1, 255, 256, 65_535, 65_536, i64::MAX, i64::MIN, 1 << 53];

/// The generator and what it starts from.
pub(super) struct Mutator {
    state: u64,
    kind: Kind,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    pub(super) fn new(seed: u64, kind: Kind, corpus: Vec<Vec<u8>>) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, kind, corpus }
    }

    pub(super) fn seeds(&self) -> usize {
        self.corpus.len()
    }

    /// A number below a bound.
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let high = (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize;
        high % bound.max(1)
    }

    /// The next input.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let at = self.below(self.corpus.len());
        let mut input = self.corpus[at].clone();
        if self.kind == Kind::Json
            && self.below(4) != 0
            && let Ok(mut value) = serde_json::from_slice::<Value>(&input)
        {
            for _ in 0..=self.below(4) {
                self.tree(&mut value);
            }
            return value.to_string().into_bytes();
        }
        for _ in 0..=self.below(5) {
            self.once(&mut input);
        }
        input
    }

    fn once(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let length = self.below(16) + 1;
        let end = (at + length).min(input.len());
        match self.below(if self.kind == Kind::Bytes { 9 } else { 11 }) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << (self.state % 8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = [0, 1, 0x7f, 0x80, 0xff][(self.state % 5) as usize];
                }
            }
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => {
                let piece = input[at..end].to_vec();
                let place = self.below(input.len() + 1);
                input.splice(place..place, piece);
            }
            5 => {
                // The same piece very often: depth and length.
                let piece = input[at..end].to_vec();
                let times = 1 << self.below(13);
                input.splice(at..at, piece.repeat(times));
            }
            6 => {
                let other = self.below(self.corpus.len());
                let from = self.below(self.corpus[other].len() + 1);
                input.truncate(at);
                input.extend_from_slice(&self.corpus[other][from..]);
            }
            7 => {
                let number = NUMBERS[self.below(NUMBERS.len())];
                let bytes = number.to_le_bytes();
                let width = [1, 2, 4, 8][self.below(4)];
                input.splice(at..(at + width).min(input.len()), bytes[..width].iter().copied());
            }
            8 => {
                let [byte, ..] = self.state.to_be_bytes();
                input.insert(at, byte);
            }
            _ => {
                let word = WORDS[self.below(WORDS.len())];
                input.splice(at..at, word.bytes());
            }
        }
    }

    /// Changes a place of a tree.
    fn tree(&mut self, value: &mut Value) {
        let deeper = self.below(5) != 0;
        match value {
            Value::Object(members) if deeper && !members.is_empty() => {
                let at = self.below(members.len());
                if self.below(8) == 0 {
                    let name = members.keys().nth(at).cloned().unwrap_or_default();
                    let member = members.remove(&name).unwrap_or_default();
                    let word = WORDS[self.below(WORDS.len())];
                    members.insert(
                        if self.below(2) == 0 { name.to_lowercase() } else { word.to_owned() },
                        member,
                    );
                } else if let Some(member) = members.values_mut().nth(at) {
                    self.tree(member);
                }
            }
            Value::Array(list) if deeper && !list.is_empty() => {
                let at = self.below(list.len());
                if self.below(6) == 0 {
                    let again = list[at].clone();
                    list.push(again);
                } else {
                    self.tree(&mut list[at]);
                }
            }
            Value::String(text) if self.below(3) != 0 => {
                let word = WORDS[self.below(WORDS.len())];
                let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
                let at = places.get(self.below(places.len() + 1)).copied().unwrap_or(text.len());
                text.insert_str(at, word);
            }
            other => *other = self.leaf(),
        }
    }

    fn leaf(&mut self) -> Value {
        let number = NUMBERS[self.below(NUMBERS.len())];
        match self.below(8) {
            0 => Value::Null,
            1 => Value::Bool(true),
            2 => number.into(),
            3 => u64::MAX.into(),
            4 => serde_json::json!(1.5e300),
            5 => Value::Array(vec![Value::Null; self.below(4)]),
            6 => Value::Object(serde_json::Map::new()),
            _ => WORDS[self.below(WORDS.len())].into(),
        }
    }
}
