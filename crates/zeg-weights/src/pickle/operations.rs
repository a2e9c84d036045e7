//! What the opcodes do: single values, collections, and what is made of names.

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
        let value = value.ok_or_else(|| self.damaged("a number that does not parse"))?;
        self.push(value)
    }

    pub(super) fn long_int(&mut self, length: u64) -> Result<(), PickleError> {
        let bytes = self.slice(length)?;
        let value = if bytes.len() <= 8 {
            // Two's complement, little-endian: the missing upper bytes repeat the sign.
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
            // Escapes are left as they are: names of tensors have none.
            b'S' => {
                let line = self.line()?;
                match line {
                    [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
                    _ => return Err(self.damaged("a text without quotes")),
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
            // Kinds of lists and sets: what they hold means nothing here.
            Some(Value::Set | Value::Object(_)) => {}
            _ => return Err(self.damaged("appends to what is no list")),
        }
        Ok(())
    }

    pub(super) fn set_items(&mut self, new: &[(Id, Id)]) -> Result<(), PickleError> {
        let target = self.top()?;
        match self.values.get_mut(target.0 as usize) {
            Some(Value::Dict(pairs)) => pairs.extend_from_slice(new),
            Some(Value::Object(object)) => object.items.extend_from_slice(new),
            _ => return Err(self.damaged("sets an item of what is no dict")),
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
            _ => Err(self.damaged("a class whose name is not UTF-8")),
        }
    }

    pub(super) fn global_from_stack(&mut self) -> Result<(), PickleError> {
        let (name, module) = (self.pop()?, self.pop()?);
        let text = |id: Id| match self.value(id) {
            Some(Value::Text(text)) => Ok(*text),
            _ => Err(self.damaged("a class whose name is no text")),
        };
        let global = self.global(text(module)?, text(name)?)?;
        self.push(Value::Global(global))
    }

    /// `REDUCE`, `INST` and `OBJ`: a class or function, called.
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
                    return Err(self.damaged("constructs nothing"));
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
                    return Err(self.damaged("calls with arguments that are no tuple"));
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
                    // Pairs that were copied from a list: the same list can be copied once for every byte of the file.
                    self.copied = self.copied.saturating_add(pairs.len());
                    if self.copied > MOST_VALUES {
                        return Err(PickleError::Limit {
                            of: "pairs in lists",
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
            _ => Err(PickleError::Call("a value that is no class".into())),
        }
    }

    /// `NEWOBJ` and `NEWOBJ_EX`: an object is made without running its class's own code; here it has no meaning.
    pub(super) fn construct(&mut self, opcode: u8) -> Result<(), PickleError> {
        if opcode == 0x92 {
            self.pop()?; // named arguments
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
            // Attributes of a dict, such as the versions of a state dict's modules, or of a tensor.
            Some(Value::Dict(_) | Value::Tensor(_) | Value::List(_) | Value::Set) => {}
            _ => return Err(self.damaged("sets the state of what is no object")),
        }
        Ok(())
    }

    /// A persistent id: how PyTorch refers to storages, which stand outside the pickle.
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
                    self.damaged("a storage that is not described as PyTorch does")
                })?;
                self.push(Value::Storage(Box::new(storage)))
            }
            // A module with its source text, as old whole-model files have them: the module itself.
            Some(b"module") => {
                let module = parts
                    .get(1)
                    .copied()
                    .ok_or_else(|| self.damaged("a module that is not described"))?;
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

    /// `("storage", class, key, device, elements)`, in the legacy form followed by `None` or `(key, offset, elements)`.
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
