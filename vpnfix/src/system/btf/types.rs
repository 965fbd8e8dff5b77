//! A reader of BTF bytes. It copies nothing but numbers, allocates one index, and takes every offset, length and type
//! number in the file for hostile: a bad one is an error or an absent type, never a panic or an endless walk.

use thiserror::Error;

/// `BTF_MAGIC` (`include/uapi/linux/btf.h`).
const MAGIC: u16 = 0xeb9f;
/// Bytes of a header up to the lengths of the two sections.
const HEADER: usize = 24;
/// Bytes of `struct btf_type`.
const TYPE: usize = 12;
/// Bytes of `struct btf_member`.
const MEMBER: usize = 12;
/// Most typedefs and qualifiers around a type. The kernel resolves no deeper than 32 itself (`MAX_RESOLVE_DEPTH`).
const QUALIFIERS_MAX: usize = 32;
/// Deepest nesting of anonymous structs and unions.
const NESTING_MAX: usize = 16;
/// Size of a pointer. (vpnfix runs on 64-bit kernels only.)
const POINTER: u32 = 8;

/// Why bytes are not BTF.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Too short for a header, or no BTF in this machine's byte order.
    #[error("not BTF")]
    Header,
    /// A section lies outside the file.
    #[error("the {0} section lies outside the file")]
    Section(&'static str),
    /// A type's record is cut off.
    #[error("type {0} is cut off")]
    Truncated(u32),
    /// A kind that this reader does not know, whose length it therefore cannot tell.
    #[error("type {id} is of unknown kind {kind}")]
    UnknownKind {
        /// Number of the type.
        id: u32,
        /// Number of the kind.
        kind: u8,
    },
}

/// The kinds of types that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of C")]
pub enum Kind {
    Struct,
    Typedef,
    Function,
    Enum,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A number, a character or an enum.
    Number,
    /// A pointer.
    Pointer,
    /// A struct or union.
    Composite,
    /// An array.
    Array,
    /// Bits of a number.
    Bits,
}

/// A field of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the outermost struct.
    pub offset: u32,
    /// Size in bytes; of bits, of the number that they lie in.
    pub size: u32,
    /// What it holds.
    pub kind: FieldKind,
}

/// The types in a file.
#[derive(Debug)]
pub struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type's record starts in `types`. Type numbers start at 1, type 0 is `void`.
    starts: Vec<u32>,
}

/// `struct btf_type`.
#[derive(Clone, Copy)]
struct Record {
    name: u32,
    kind: u8,
    /// `kind_flag`: members may be bit fields, with their size in the upper 8 bits of their offset.
    flag: bool,
    length: u16,
    /// Size or number of another type, by kind.
    size_or_type: u32,
    /// Where what follows the record starts.
    rest: usize,
}

mod kind {
    pub const INT: u8 = 1;
    pub const POINTER: u8 = 2;
    pub const ARRAY: u8 = 3;
    pub const STRUCT: u8 = 4;
    pub const UNION: u8 = 5;
    pub const ENUM: u8 = 6;
    pub const FORWARD: u8 = 7;
    pub const TYPEDEF: u8 = 8;
    pub const VOLATILE: u8 = 9;
    pub const CONST: u8 = 10;
    pub const RESTRICT: u8 = 11;
    pub const FUNCTION: u8 = 12;
    pub const PROTOTYPE: u8 = 13;
    pub const VARIABLE: u8 = 14;
    pub const SECTION: u8 = 15;
    pub const FLOAT: u8 = 16;
    pub const DECLARATION_TAG: u8 = 17;
    pub const TYPE_TAG: u8 = 18;
    pub const ENUM64: u8 = 19;
}

impl<'a> Types<'a> {
    /// Indexes the types in `bytes`, which must be in this machine's byte order.
    ///
    /// # Errors
    ///
    /// See [`FormatError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        if u16_at(bytes, 0) != Some(MAGIC) || bytes.len() < HEADER {
            return Err(FormatError::Header);
        }
        let word = |at| u32_at(bytes, at).map(|word| word as usize).ok_or(FormatError::Header);
        let header = word(4)?;
        let section = |name, offset: usize, length: usize| {
            let start = header.checked_add(offset);
            let end = start.and_then(|start| start.checked_add(length));
            start.zip(end).and_then(|(start, end)| bytes.get(start..end)).ok_or(FormatError::Section(name))
        };
        let types = section("type", word(8)?, word(12)?)?;
        let strings = section("string", word(16)?, word(20)?)?;
        // The kernel's types take about 20 bytes each.
        let mut starts = Vec::with_capacity(types.len() / 20);
        let mut at = 0;
        while at < types.len() {
            let id = u32::try_from(starts.len()).unwrap_or(u32::MAX).saturating_add(1);
            let record = record_at(types, at).ok_or(FormatError::Truncated(id))?;
            let rest = rest_length(&record).ok_or(FormatError::UnknownKind { id, kind: record.kind })?;
            let end = record.rest.checked_add(rest).filter(|end| *end <= types.len());
            starts.push(u32::try_from(at).map_err(|_| FormatError::Section("type"))?);
            at = end.ok_or(FormatError::Truncated(id))?;
        }
        Ok(Self { types, strings, starts })
    }

    /// How many types there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Finds types by kind and name, all in one pass. The first of several of a name counts. Each answer is the type's
    /// number.
    #[must_use]
    pub fn find(&self, wanted: &[(Kind, &str)]) -> Vec<Option<u32>> {
        let mut found = vec![None; wanted.len()];
        // Most types are sorted out by the first byte of their name.
        let mut first_bytes = [false; 256];
        for byte in wanted.iter().filter_map(|(_, name)| name.bytes().next()) {
            first_bytes[usize::from(byte)] = true;
        }
        for (id, start) in (1u32..).zip(&self.starts) {
            let Some(record) = record_at(self.types, *start as usize) else { continue };
            let Some(kind) = kind_of(record.kind) else { continue };
            let name = self.strings.get(record.name as usize..).unwrap_or_default();
            if !name.first().is_some_and(|byte| first_bytes[usize::from(*byte)]) {
                continue;
            }
            for ((wanted_kind, wanted_name), answer) in wanted.iter().zip(&mut found) {
                if answer.is_none() && *wanted_kind == kind && is_string(name, wanted_name) {
                    *answer = Some(id);
                }
            }
        }
        found
    }

    /// A field of a struct by its path (`ns.inum`). Anonymous structs and unions on the way are gone through as in C;
    /// a pointer is not followed.
    #[must_use]
    pub fn field(&self, id: u32, path: &str) -> Option<Field> {
        let mut bits = 0u32;
        let mut current = id;
        let mut field_bits = None;
        for name in path.split('.') {
            let (offset, width, member) = self.member(current, name, 0)?;
            bits = bits.checked_add(offset)?;
            field_bits = (width != 0).then_some(width);
            current = member;
        }
        let record = self.unqualified(current)?;
        let kind = match record.kind {
            _ if field_bits.is_some() || !bits.is_multiple_of(8) => FieldKind::Bits,
            kind::INT | kind::ENUM | kind::ENUM64 | kind::FLOAT => FieldKind::Number,
            kind::POINTER => FieldKind::Pointer,
            kind::STRUCT | kind::UNION => FieldKind::Composite,
            kind::ARRAY => FieldKind::Array,
            _ => return None,
        };
        Some(Field { offset: bits / 8, size: self.size(&record, 0)?, kind })
    }

    /// The value of an enumerator (32-bit enums only).
    #[must_use]
    pub fn enumerator(&self, id: u32, name: &str) -> Option<i32> {
        let record = self.record(id).filter(|record| record.kind == kind::ENUM)?;
        (0..usize::from(record.length)).find_map(|index| {
            let at = record.rest + index * 8;
            let found = self.is_named(u32_at(self.types, at)?, name);
            if found { u32_at(self.types, at + 4).map(u32::cast_signed) } else { None }
        })
    }

    /// All enumerators of an enum with their values (32-bit enums only).
    #[must_use]
    pub fn enumerators(&self, id: u32) -> Vec<(String, i32)> {
        let Some(record) = self.record(id).filter(|record| record.kind == kind::ENUM) else { return Vec::new() };
        let enumerator = |index: usize| {
            let at = record.rest + index * 8;
            let name = self.string(u32_at(self.types, at)?)?;
            Some((name, u32_at(self.types, at + 4)?.cast_signed()))
        };
        (0..usize::from(record.length)).filter_map(enumerator).collect()
    }

    /// How many parameters the function has that a typedef of a pointer to it stands for, as `btf_trace_…` are.
    #[must_use]
    pub fn parameters(&self, typedef: u32) -> Option<usize> {
        let pointer = self.unqualified(typedef).filter(|record| record.kind == kind::POINTER)?;
        let prototype = self.unqualified(pointer.size_or_type).filter(|record| record.kind == kind::PROTOTYPE)?;
        Some(usize::from(prototype.length))
    }

    /// Offset and width in bits (width 0: no bit field) and type of a member.
    fn member(&self, id: u32, name: &str, depth: usize) -> Option<(u32, u32, u32)> {
        let record = self.unqualified(id)?;
        if name.is_empty() || !matches!(record.kind, kind::STRUCT | kind::UNION) || depth > NESTING_MAX {
            return None;
        }
        for index in 0..usize::from(record.length) {
            let at = record.rest + index * MEMBER;
            let member_name = u32_at(self.types, at)?;
            let member_type = u32_at(self.types, at + 4)?;
            let offset = u32_at(self.types, at + 8)?;
            let (offset, width) = if record.flag { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            if self.is_named(member_name, name) {
                return Some((offset, width, member_type));
            }
            if self.is_named(member_name, "")
                && let Some((inner, width, found)) = self.member(member_type, name, depth + 1)
            {
                return Some((offset.checked_add(inner)?, width, found));
            }
        }
        None
    }

    /// A type without its typedefs and qualifiers.
    fn unqualified(&self, id: u32) -> Option<Record> {
        let mut record = self.record(id)?;
        for _ in 0..QUALIFIERS_MAX {
            match record.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    record = self.record(record.size_or_type)?;
                }
                _ => return Some(record),
            }
        }
        None
    }

    fn size(&self, record: &Record, depth: usize) -> Option<u32> {
        match record.kind {
            kind::INT | kind::ENUM | kind::ENUM64 | kind::FLOAT | kind::STRUCT | kind::UNION => {
                Some(record.size_or_type)
            }
            kind::POINTER => Some(POINTER),
            kind::ARRAY if depth <= NESTING_MAX => {
                let element = self.unqualified(u32_at(self.types, record.rest)?)?;
                let count = u32_at(self.types, record.rest + 8)?;
                self.size(&element, depth + 1)?.checked_mul(count)
            }
            _ => None,
        }
    }

    fn record(&self, id: u32) -> Option<Record> {
        let start = *self.starts.get((id as usize).checked_sub(1)?)?;
        record_at(self.types, start as usize)
    }

    fn string(&self, offset: u32) -> Option<String> {
        let string = self.strings.get(offset as usize..)?;
        let end = string.iter().position(|byte| *byte == 0)?;
        string.get(..end).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        self.strings.get(offset as usize..).is_some_and(|string| is_string(string, name))
    }
}

fn is_string(string: &[u8], name: &str) -> bool {
    string.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}

fn kind_of(number: u8) -> Option<Kind> {
    match number {
        kind::STRUCT => Some(Kind::Struct),
        kind::TYPEDEF => Some(Kind::Typedef),
        kind::FUNCTION => Some(Kind::Function),
        kind::ENUM => Some(Kind::Enum),
        _ => None,
    }
}

fn record_at(types: &[u8], at: usize) -> Option<Record> {
    let record = types.get(at..at.checked_add(TYPE)?)?;
    let info = u32_at(record, 4)?;
    Some(Record {
        name: u32_at(record, 0)?,
        kind: (info >> 24 & 0x1f) as u8,
        flag: info >> 31 == 1,
        length: (info & 0xffff) as u16,
        size_or_type: u32_at(record, 8)?,
        rest: at + TYPE,
    })
}

/// Bytes that follow a record.
fn rest_length(record: &Record) -> Option<usize> {
    let length = usize::from(record.length);
    match record.kind {
        kind::INT | kind::VARIABLE | kind::DECLARATION_TAG => Some(4),
        kind::ARRAY => Some(12),
        kind::STRUCT | kind::UNION | kind::SECTION | kind::ENUM64 => Some(length * 12),
        kind::ENUM | kind::PROTOTYPE => Some(length * 8),
        kind::POINTER
        | kind::FORWARD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNCTION
        | kind::FLOAT
        | kind::TYPE_TAG => Some(0),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
