//! The stack machine that interprets the opcodes of a pickle and fills the table of values.
//!
//! Memory is bounded by the size of the file: text and bytes are borrowed from it, and every other value takes at least
//! one byte of it. The numbers of values and opcodes have limits far above those of real weight files.

use std::collections::HashMap;

use super::{
    PickleError,
    value::{Document, Id, Value},
};

/// The largest number of values in a pickle. A checkpoint of ZegCLIP with its optimiser has about 20,000.
pub(super) const MOST_VALUES: usize = 1 << 19;
/// The largest number of opcodes in a pickle.
const MOST_OPCODES: usize = 1 << 21;
/// The highest supported protocol, which is the newest one that Python writes.
const NEWEST_PROTOCOL: u8 = 5;

/// Parses the pickle at the start of `bytes`; other data may follow it.
pub(crate) fn read(bytes: &[u8]) -> Result<Document<'_>, PickleError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        opcode_at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    for _ in 0..MOST_OPCODES {
        if let Some(root) = machine.step()? {
            return Ok(Document {
                values: machine.values,
                root,
                length: machine.at,
            });
        }
    }
    Err(PickleError::Limit {
        of: "opcodes",
        limit: MOST_OPCODES,
    })
}

/// The state of the stack machine.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// Position of the next byte.
    at: usize,
    /// Position of the current opcode.
    pub(super) opcode_at: usize,
    pub(super) values: Vec<Value<'a>>,
    pub(super) stack: Vec<Id>,
    /// Heights of the stack at which there are marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Number of pairs that were copied from lists into dicts.
    pub(super) copied: usize,
}

impl<'a> Machine<'a> {
    /// Executes one opcode; returns the outermost value if it was the last one.
    #[allow(clippy::too_many_lines)] // a table of opcodes, with a line or two for each
    fn step(&mut self) -> Result<Option<Id>, PickleError> {
        self.opcode_at = self.at;
        let opcode = self.byte()?;
        match opcode {
            b'.' => return self.finish().map(Some),
            // Framing and versions.
            0x80 => {
                let version = self.byte()?;
                if version > NEWEST_PROTOCOL {
                    return Err(self.damaged(format!(
                        "protocol {version} is not supported; the newest one is {NEWEST_PROTOCOL}"
                    )));
                }
            }
            0x95 => drop(self.take::<8>()?),
            // The stack and the memo.
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop_or_mark()?,
            b'1' => drop(self.since_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'p' => self.store_under_line()?,
            b'q' => {
                let key = self.byte()?;
                self.store(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.take()?);
                self.store(key)?;
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                self.store(key)?;
            }
            b'g' => {
                let key = self.key_line()?;
                self.recall(key)?;
            }
            b'h' => {
                let key = self.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.take()?);
                self.recall(key)?;
            }
            // Single values.
            b'N' => self.push(Value::None)?,
            0x88 | 0x89 => self.push(Value::Bool(opcode == 0x88))?,
            b'J' => {
                let value = i32::from_le_bytes(self.take()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.take()?);
                self.push(Value::Int(value.into()))?;
            }
            b'I' | b'L' => self.int_line()?,
            0x8a => {
                let length = self.byte()?;
                self.long_int(length.into())?;
            }
            0x8b => {
                let length = u32::from_le_bytes(self.take()?);
                self.long_int(length.into())?;
            }
            b'F' => {
                self.line()?;
                self.push(Value::Float)?;
            }
            b'G' => {
                self.take::<8>()?;
                self.push(Value::Float)?;
            }
            b'T' | b'U' | b'X' | b'S' | b'V' | 0x8c | 0x8d => self.text(opcode)?,
            b'B' | b'C' | 0x8e | 0x96 => self.byte_string(opcode)?,
            // Collections.
            b')' => self.push(Value::Tuple(Vec::new()))?,
            0x85..=0x87 => self.short_tuple(usize::from(opcode - 0x84))?,
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))?;
            }
            b']' => self.push(Value::List(Vec::new()))?,
            b'l' => {
                let items = self.since_mark()?;
                self.push(Value::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(&items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b'd' => {
                let pairs = self.pairs_since_mark()?;
                self.push(Value::Dict(pairs))?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[(key, value)])?;
            }
            b'u' => {
                let pairs = self.pairs_since_mark()?;
                self.set_items(&pairs)?;
            }
            0x8f => self.push(Value::Set)?,
            0x91 => {
                self.since_mark()?;
                self.push(Value::Set)?;
            }
            // Names, objects, calls.
            b'c' => {
                let global = self.global_lines()?;
                self.push(Value::Global(global))?;
            }
            0x93 => self.global_from_stack()?,
            b'R' | b'i' | b'o' => self.call(opcode)?,
            0x81 | 0x92 => self.construct(opcode)?,
            b'b' => self.build()?,
            b'P' | b'Q' => self.persistent(opcode)?,
            other => {
                return Err(self.damaged(format!(
                    "opcode {other:#04x} does not occur in weight files"
                )));
            }
        }
        Ok(None)
    }

    /// Returns the outermost value; it must be the only one on the stack, as in every pickle that Python writes.
    fn finish(&mut self) -> Result<Id, PickleError> {
        let root = self.pop()?;
        if self.stack.is_empty() && self.marks.is_empty() {
            Ok(root)
        } else {
            Err(self.damaged("values are left on the stack at the end"))
        }
    }

    // Bytes.

    pub(super) fn slice(&mut self, length: u64) -> Result<&'a [u8], PickleError> {
        let bytes = usize::try_from(length)
            .ok()
            .and_then(|length| self.bytes.get(self.at..self.at.checked_add(length)?))
            .ok_or(PickleError::CutOff)?;
        self.at += bytes.len();
        Ok(bytes)
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let bytes = self.slice(N as u64)?;
        bytes.try_into().map_err(|_| PickleError::CutOff)
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleError> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// Returns the bytes up to the next line feed, and skips the line feed.
    pub(super) fn line(&mut self) -> Result<&'a [u8], PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or(PickleError::CutOff)?;
        let line = self.slice(length as u64)?;
        self.at += 1;
        Ok(line)
    }

    pub(super) fn damaged(&self, reason: impl Into<String>) -> PickleError {
        PickleError::Damaged {
            at: self.opcode_at,
            reason: reason.into(),
        }
    }

    // The stack.

    pub(super) fn add(&mut self, value: Value<'a>) -> Result<Id, PickleError> {
        if self.values.len() >= MOST_VALUES {
            return Err(PickleError::Limit {
                of: "values",
                limit: MOST_VALUES,
            });
        }
        let id = Id(self.values.len() as u32);
        self.values.push(value);
        Ok(id)
    }

    pub(super) fn push(&mut self, value: Value<'a>) -> Result<(), PickleError> {
        let id = self.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    /// Returns the height of the last mark; as in Python, values below it cannot be accessed.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn top(&self) -> Result<Id, PickleError> {
        if self.stack.len() <= self.floor() {
            return Err(self.damaged("the stack is empty"));
        }
        self.stack
            .last()
            .copied()
            .ok_or_else(|| self.damaged("the stack is empty"))
    }

    pub(super) fn pop(&mut self) -> Result<Id, PickleError> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_or_mark(&mut self) -> Result<(), PickleError> {
        if self.stack.len() > self.floor() {
            self.stack.pop();
        } else if self.marks.pop().is_none() {
            return Err(self.damaged("the stack is empty"));
        }
        Ok(())
    }

    pub(super) fn since_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self
            .marks
            .pop()
            .filter(|&mark| mark <= self.stack.len())
            .ok_or_else(|| self.damaged("there is no mark on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    pub(super) fn pairs_since_mark(&mut self) -> Result<Vec<(Id, Id)>, PickleError> {
        let items = self.since_mark()?;
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.damaged("a key has no value"));
        }
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    // The memo.

    fn store(&mut self, key: u32) -> Result<(), PickleError> {
        let id = self.top()?;
        if self.memo.len() >= MOST_VALUES {
            return Err(PickleError::Limit {
                of: "values in the memo",
                limit: MOST_VALUES,
            });
        }
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), PickleError> {
        let id = self
            .memo
            .get(&key)
            .copied()
            .ok_or_else(|| self.damaged(format!("the memo has no entry {key}")))?;
        self.stack.push(id);
        Ok(())
    }

    fn store_under_line(&mut self) -> Result<(), PickleError> {
        let key = self.key_line()?;
        self.store(key)
    }

    fn key_line(&mut self) -> Result<u32, PickleError> {
        let line = self.line()?;
        std::str::from_utf8(line)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| self.damaged("a key of the memo is not a number"))
    }
}
