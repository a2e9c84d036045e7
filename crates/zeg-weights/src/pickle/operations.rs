//! The operations of the opcodes: single values, collections, names, objects and calls.

use super::{
    PickleError,
    calls::{self, Outcome},
    machine::{MOST_VALUES, Machine},
    value::{Global, Id, StorageRef, Value},
};

impl<'a> Machine<'a> {
    // Single values.

    pub(super) fn int_line(&mut self) -> Result<(), PickleError> {
        let line = self.line()?;
        let digits = line.strip_suffix(b"L").unwrap_or(line);
        let value = match line {
            b"00" | b"01" => Some(Value::Bool(line == b"01")),
            _ => std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .map(Value::Int),
        };
        let value = value.ok_or_else(|| self.damaged("a number cannot be parsed"))?;
        self.push(value)
    }

    pub(super) fn long_int(&mut self, length: u64) -> Result<(), PickleError> {
        let bytes = self.slice(length)?;
        let value = if bytes.len() <= 8 {
            // The number is in two's complement, little-endian, so the missing upper bytes repeat the sign bit.
            let fill = match bytes.last() {
                Some(byte) if byte & 0x80 != 0 => 0xff,
                _ => 0,
            };
            let mut full = [fill; 8];
            for (to, from) in full.iter_mut().zip(bytes) {
                *to = *from;
            }
            Value::Int(i64::from_le_bytes(full))
        } else {
            Value::LongInt(bytes)
        };
        self.push(value)
    }

    pub(super) fn text(&mut self, opcode: u8) -> Result<(), PickleError> {
        let bytes = match opcode {
            // Escapes are not decoded, since names of tensors have none.
            b'S' => {
                let line = self.line()?;
                match line {
                    [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
                    _ => return Err(self.damaged("a text has no quotes")),
                }
            }
            b'V' => self.line()?,
            b'U' | 0x8c => {
                let length = self.byte()?;
                self.slice(length.into())?
            }
            0x8d => {
                let length = u64::from_le_bytes(self.take()?);
                self.slice(length)?
            }
            _ => {
                let length = u32::from_le_bytes(self.take()?);
                self.slice(length.into())?
            }
        };
        self.push(Value::Text(bytes))
    }

    pub(super) fn byte_string(&mut self, opcode: u8) -> Result<(), PickleError> {
        let length = match opcode {
            b'C' => self.byte()?.into(),
            b'B' => u32::from_le_bytes(self.take()?).into(),
            _ => u64::from_le_bytes(self.take()?),
        };
        let bytes = self.slice(length)?;
        self.push(Value::Bytes(bytes))
    }

    // Collections.

    pub(super) fn short_tuple(&mut self, length: usize) -> Result<(), PickleError> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items))
    }

    pub(super) fn append(&mut self, new: &[Id]) -> Result<(), PickleError> {
        let target = self.top()?;
        match self.values.get_mut(target.0 as usize) {
            Some(Value::List(items)) => items.extend_from_slice(new),
            // The elements of sets and of list-like objects are ignored.
            Some(Value::Set | Value::Object(_)) => {}
            _ => return Err(self.damaged("an element is appended to a value that is not a list")),
        }
        Ok(())
    }

    pub(super) fn set_items(&mut self, new: &[(Id, Id)]) -> Result<(), PickleError> {
        let target = self.top()?;
        match self.values.get_mut(target.0 as usize) {
            Some(Value::Dict(pairs)) => pairs.extend_from_slice(new),
            Some(Value::Object(object)) => object.items.extend_from_slice(new),
            _ => return Err(self.damaged("an item is set in a value that is not a dict")),
        }
        Ok(())
    }

    // Names, objects, calls.

    pub(super) fn global_lines(&mut self) -> Result<Global<'a>, PickleError> {
        let (module, name) = (self.line()?, self.line()?);
        self.global(module, name)
    }

    fn global(&self, module: &'a [u8], name: &'a [u8]) -> Result<Global<'a>, PickleError> {
        match (std::str::from_utf8(module), std::str::from_utf8(name)) {
            (Ok(module), Ok(name)) => Ok(Global { module, name }),
            _ => Err(self.damaged("the name of a class is not UTF-8")),
        }
    }

    pub(super) fn global_from_stack(&mut self) -> Result<(), PickleError> {
        let (name, module) = (self.pop()?, self.pop()?);
        let text = |id: Id| match self.value(id) {
            Some(Value::Text(text)) => Ok(*text),
            _ => Err(self.damaged("the name of a class is not text")),
        };
        let global = self.global(text(module)?, text(name)?)?;
        self.push(Value::Global(global))
    }

    /// Executes `REDUCE`, `INST` and `OBJ`, which call a class or function.
    pub(super) fn call(&mut self, opcode: u8) -> Result<(), PickleError> {
        let outcome = match opcode {
            b'i' => {
                let global = self.global_lines()?;
                let arguments = self.since_mark()?;
                calls::call(&self.values, global, &arguments, self.opcode_at)?
            }
            b'o' => {
                let items = self.since_mark()?;
                let Some((class, arguments)) = items.split_first() else {
                    return Err(self.damaged("a constructor has no class"));
                };
                calls::call(
                    &self.values,
                    self.callee(*class)?,
                    arguments,
                    self.opcode_at,
                )?
            }
            _ => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let Some(Value::Tuple(arguments)) = self.value(arguments) else {
                    return Err(self.damaged("the arguments of a call are not a tuple"));
                };
                calls::call(
                    &self.values,
                    self.callee(callee)?,
                    arguments,
                    self.opcode_at,
                )?
            }
        };
        match outcome {
            Outcome::Value(value) => {
                if let Value::Dict(pairs) = &value {
                    // These pairs were copied from a list. The copies are limited, because a few bytes of the pickle
                    // are enough to copy the same list again.
                    self.copied = self.copied.saturating_add(pairs.len());
                    if self.copied > MOST_VALUES {
                        return Err(PickleError::Limit {
                            of: "pairs copied from lists",
                            limit: MOST_VALUES,
                        });
                    }
                }
                self.push(value)
            }
            Outcome::Same(id) => {
                self.stack.push(id);
                Ok(())
            }
        }
    }

    fn value(&self, id: Id) -> Option<&Value<'a>> {
        self.values.get(id.0 as usize)
    }

    fn callee(&self, id: Id) -> Result<Global<'a>, PickleError> {
        match self.value(id) {
            Some(Value::Global(global)) => Ok(*global),
            _ => Err(PickleError::Call("a value that is not a class".into())),
        }
    }

    /// Executes `NEWOBJ` and `NEWOBJ_EX`, which construct an object without a call; it becomes an opaque object.
    pub(super) fn construct(&mut self, opcode: u8) -> Result<(), PickleError> {
        if opcode == 0x92 {
            self.pop()?; // keyword arguments
        }
        self.pop()?; // arguments
        let class = self.pop()?;
        calls::construct(self.callee(class)?)?;
        self.push(Value::Object(Box::default()))
    }

    pub(super) fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop()?;
        let target = self.top()?;
        match self.values.get_mut(target.0 as usize) {
            Some(Value::Object(object)) => object.state = Some(state),
            // The attributes of a dict (such as the module versions of a state dict) or of a tensor are ignored.
            Some(Value::Dict(_) | Value::Tensor(_) | Value::List(_) | Value::Set) => {}
            _ => return Err(self.damaged("a state is set in a value that is not an object")),
        }
        Ok(())
    }

    /// Reads a persistent id, with which PyTorch refers to storages outside of the pickle.
    pub(super) fn persistent(&mut self, opcode: u8) -> Result<(), PickleError> {
        if opcode == b'P' {
            self.line()?;
            return self.push(Value::Reference);
        }
        let id = self.pop()?;
        let Some(Value::Tuple(parts)) = self.value(id) else {
            return self.push(Value::Reference);
        };
        match self.text_of(parts.first()) {
            Some(b"storage") => {
                let storage = self.storage(parts).ok_or_else(|| {
                    self.damaged("a reference to a storage does not have PyTorch's form")
                })?;
                self.push(Value::Storage(Box::new(storage)))
            }
            // In old files of whole models, this is a module with its source text, of which the module is used.
            Some(b"module") => {
                let module = parts
                    .get(1)
                    .copied()
                    .ok_or_else(|| self.damaged("a reference to a module has no module"))?;
                self.stack.push(module);
                Ok(())
            }
            _ => self.push(Value::Reference),
        }
    }

    fn text_of(&self, id: Option<&Id>) -> Option<&'a [u8]> {
        match self.value(*id?)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn count_of(&self, id: Id) -> Option<u64> {
        match self.value(id)? {
            Value::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// Reads a reference to a storage: `("storage", class, key, device, elements)`, followed in the legacy format by
    /// `None` or `(key, offset, elements)`.
    fn storage(&self, parts: &[Id]) -> Option<StorageRef<'a>> {
        let Some(Value::Global(class)) = self.value(*parts.get(1)?) else {
            return None;
        };
        let view = match parts.get(5).and_then(|id| self.value(*id)) {
            Some(Value::Tuple(view)) => {
                Some((self.count_of(*view.get(1)?)?, self.count_of(*view.get(2)?)?))
            }
            _ => None,
        };
        Some(StorageRef {
            holds: calls::storage_elements(*class)?,
            key: self.text_of(parts.get(2))?,
            elements: self.count_of(*parts.get(4)?)?,
            view,
        })
    }
}
