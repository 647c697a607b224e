//! The part of the encoding of protocol buffers that messages of the CRI need: nested messages, texts and numbers.
//!
//! <https://protobuf.dev/programming-guides/encoding>

/// A message that is being encoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message(Vec<u8>);

/// The value of a decoded field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Message {
    /// Adds a number.
    pub(crate) fn number(mut self, field: u8, value: u64) -> Self {
        self.0.push(field << 3);
        self.add_varint(value);
        self
    }

    /// Adds a text.
    pub(crate) fn text(self, field: u8, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// Adds a nested message.
    pub(crate) fn message(self, field: u8, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    /// Returns the encoded message.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.0
    }

    fn bytes(mut self, field: u8, value: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        self.add_varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn add_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// Returns the values of a field of a message, in their order.
pub(crate) fn values(message: &[u8], field: u64) -> Vec<Value<'_>> {
    let (mut rest, mut found) = (message, Vec::new());
    while !rest.is_empty() {
        let key = take_varint(&mut rest);
        let value = match key & 7 {
            0 => Value::Number(take_varint(&mut rest)),
            1 => Value::Bytes(take(&mut rest, 8)),
            2 => {
                let length = take_varint(&mut rest) as usize;
                Value::Bytes(take(&mut rest, length))
            }
            5 => Value::Bytes(take(&mut rest, 4)),
            other => panic!("wire type {other}"),
        };
        if key >> 3 == field {
            found.push(value);
        }
    }
    found
}

/// Returns the nested messages, or texts, of a field.
pub(crate) fn nested(message: &[u8], field: u64) -> Vec<&[u8]> {
    let bytes = |value| match value {
        Value::Bytes(bytes) => bytes,
        Value::Number(number) => panic!("field {field} is the number {number}"),
    };
    values(message, field).into_iter().map(bytes).collect()
}

/// Returns the text of a field; empty if it is absent, as the encoding omits empty texts.
pub(crate) fn text(message: &[u8], field: u64) -> String {
    nested(message, field).last().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

/// Returns the number of a field; 0 if it is absent, as the encoding omits zeros.
pub(crate) fn number(message: &[u8], field: u64) -> u64 {
    match values(message, field).last() {
        Some(Value::Number(number)) => *number,
        Some(Value::Bytes(_)) => panic!("field {field} is no number"),
        None => 0,
    }
}

fn take_varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(length);
    *rest = after;
    taken
}
