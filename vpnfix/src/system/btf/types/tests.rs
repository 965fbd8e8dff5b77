use super::*;

/// Writes BTF as pahole would.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, kind: u8, flag: bool, length: u16, size_or_type: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        let info = u32::from(kind) << 24 | u32::from(flag) << 31 | u32::from(length);
        for word in [name, info, size_or_type].iter().chain(rest) {
            self.types.extend(word.to_ne_bytes());
        }
        self.count += 1;
        self.count
    }

    fn int(&mut self, name: &str, size: u32) -> u32 {
        self.add(name, kind::INT, false, 0, size, &[size * 8])
    }

    /// A struct or union; members by name, type and offset in bits.
    fn composite(&mut self, kind: u8, name: &str, size: u32, flag: bool, members: &[(&str, u32, u32)]) -> u32 {
        let rest: Vec<u32> = members.iter().flat_map(|(name, id, bits)| [self.name(name), *id, *bits]).collect();
        self.add(name, kind, flag, members.len() as u16, size, &rest)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [HEADER as u32, 0, types, types, strings] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}

/// `struct outer { u64 first; union { struct { u32 in; u32 deep:3; }; void *pointer; }; const alias inner; u8 array[16]; }`
fn sample() -> Builder {
    let mut btf = Builder::new();
    let u32_type = btf.int("unsigned int", 4);
    let u64_type = btf.int("long", 8);
    let u8_type = btf.int("char", 1);
    let pointer = btf.add("", kind::POINTER, false, 0, 0, &[]);
    let inner = btf.composite(kind::STRUCT, "inner", 8, false, &[("pad", u32_type, 0), ("inum", u32_type, 32)]);
    let alias = btf.add("alias", kind::TYPEDEF, false, 0, inner, &[]);
    let constant = btf.add("", kind::CONST, false, 0, alias, &[]);
    let array = btf.add("", kind::ARRAY, false, 0, 0, &[u8_type, u32_type, 16]);
    let members = [("in", u32_type, 0), ("deep", u32_type, 32 | 3 << 24)];
    let anonymous = btf.composite(kind::STRUCT, "", 8, true, &members);
    let union = btf.composite(kind::UNION, "", 8, false, &[("", anonymous, 0), ("pointer", pointer, 0)]);
    let members =
        [("first", u64_type, 0), ("", union, 64), ("inner", constant, 128), ("array", array, 192), ("", 999, 320)];
    btf.composite(kind::STRUCT, "outer", 40, false, &members);
    btf.add("outer", kind::FUNCTION, false, 0, 1, &[]);
    btf.add("btf_trace_event", kind::TYPEDEF, false, 0, pointer, &[]);
    let rest = [btf.name("ONE"), 1, btf.name("MINUS"), u32::MAX];
    btf.add("numbers", kind::ENUM, false, 2, 4, &rest);
    btf
}

fn field(offset: u32, size: u32, kind: FieldKind) -> Option<Field> {
    Some(Field { offset, size, kind })
}

#[test]
fn fields_are_found_through_anonymous_and_qualified_types() {
    let bytes = sample().bytes();
    let types = Types::parse(&bytes).unwrap();
    let [Some(outer)] = types.find(&[(Kind::Struct, "outer")])[..] else { panic!("no struct") };
    assert_eq!(types.field(outer, "first"), field(0, 8, FieldKind::Number));
    assert_eq!(types.field(outer, "in"), field(8, 4, FieldKind::Number));
    assert_eq!(types.field(outer, "deep"), field(12, 4, FieldKind::Bits));
    assert_eq!(types.field(outer, "pointer"), field(8, 8, FieldKind::Pointer));
    assert_eq!(types.field(outer, "inner"), field(16, 8, FieldKind::Composite));
    assert_eq!(types.field(outer, "inner.inum"), field(20, 4, FieldKind::Number));
    assert_eq!(types.field(outer, "array"), field(24, 16, FieldKind::Array));
    for absent in ["", "none", "first.none", "pointer.none", "inner.", "inn", "in.", ".in", "array.0"] {
        assert_eq!(types.field(outer, absent), None, "{absent}");
    }
    assert_eq!(types.field(0, "first"), None);
    assert_eq!(types.field(u32::MAX, "first"), None);
}

#[test]
fn names_are_told_apart_by_kind() {
    let bytes = sample().bytes();
    let types = Types::parse(&bytes).unwrap();
    let found = types.find(&[
        (Kind::Function, "outer"),
        (Kind::Typedef, "btf_trace_event"),
        (Kind::Typedef, "btf_trace_even"),
        (Kind::Struct, "alias"),
        (Kind::Enum, "numbers"),
        (Kind::Struct, ""),
    ]);
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, false, true, false]);
    let numbers = found[4].unwrap();
    assert_eq!((types.enumerator(numbers, "ONE"), types.enumerator(numbers, "MINUS")), (Some(1), Some(-1)));
    assert_eq!((types.enumerator(numbers, "TWO"), types.enumerator(1, "ONE")), (None, None));
}

#[test]
fn every_truncation_is_an_error_or_harmless() {
    let bytes = sample().bytes();
    for length in 0..bytes.len() {
        assert!(Types::parse(&bytes[..length]).is_err(), "{length}");
    }
    // The same with sections that end where the file does.
    let whole = sample();
    for length in 0..whole.types.len() {
        let cut = Builder { types: whole.types[..length].to_vec(), strings: whole.strings.clone(), count: 0 };
        if let Ok(types) = Types::parse(&cut.bytes()) {
            let _ = types.find(&[(Kind::Struct, "outer")]);
        }
    }
}

#[test]
fn cyclic_types_end() {
    let mut btf = Builder::new();
    let alias = btf.add("alias", kind::TYPEDEF, false, 0, 1, &[]);
    let nested = btf.composite(kind::STRUCT, "nested", 8, false, &[("", 2, 0), ("", 3, 0), ("x", alias, 0)]);
    let array = btf.add("", kind::ARRAY, false, 0, 0, &[4, 4, u32::MAX]);
    let array_of_itself = btf.add("", kind::ARRAY, false, 0, 0, &[array, 1, u32::MAX]);
    let holder = btf.composite(kind::STRUCT, "holder", 8, false, &[("array", array_of_itself, 0)]);
    let bytes = btf.bytes();
    let types = Types::parse(&bytes).unwrap();
    assert_eq!(types.field(nested, "absent"), None);
    assert_eq!(types.field(nested, "x"), None);
    assert_eq!(types.field(holder, "array"), None);
}

#[test]
fn wild_offsets_are_absent_fields() {
    let mut btf = Builder::new();
    let number = btf.int("int", 4);
    let far = btf.composite(kind::STRUCT, "far", 8, false, &[("a", number, u32::MAX - 3), ("b", number, 4)]);
    let outer = btf.composite(kind::STRUCT, "outer", 8, false, &[("far", far, u32::MAX - 7)]);
    btf.add("lost", kind::STRUCT, false, 0, 0, &[]);
    let at = btf.types.len() - 12;
    btf.types[at..at + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
    let bytes = btf.bytes();
    let types = Types::parse(&bytes).unwrap();
    assert_eq!(types.field(outer, "far.a"), None);
    assert_eq!(types.field(far, "b").unwrap().kind, FieldKind::Bits);
    assert_eq!(types.find(&[(Kind::Struct, "lost")]), [None]);
}

#[test]
fn hostile_headers_are_errors() {
    for bytes in [&b""[..], &[0; 24], &[0x9f, 0xeb], b"not BTF at all, but long enough to be"] {
        assert_eq!(Types::parse(bytes).unwrap_err(), FormatError::Header);
    }
    for at in [4, 8, 12, 16, 20] {
        let mut bytes = sample().bytes();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(matches!(Types::parse(&bytes), Err(FormatError::Section(_))), "{at}");
    }
    let mut unknown = Builder::new();
    unknown.add("x", 31, false, 0, 0, &[]);
    assert_eq!(Types::parse(&unknown.bytes()).unwrap_err(), FormatError::UnknownKind { id: 1, kind: 31 });
}

#[test]
fn no_single_byte_makes_it_panic() {
    let bytes = sample().bytes();
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let Ok(types) = Types::parse(&changed) else { continue };
            for id in 0..=types.len() as u32 + 1 {
                let _ = types.field(id, "inner.inum");
                let _ = types.field(id, "array");
                let _ = types.enumerator(id, "ONE");
            }
        }
    }
}

#[test]
fn parameters_are_counted_through_pointer_and_typedef() {
    let mut btf = Builder::new();
    let int = btf.int("int", 4);
    let prototype = btf.add("", kind::PROTOTYPE, false, 3, 0, &[0, int, 0, int, 0, int]);
    let pointer = btf.add("", kind::POINTER, false, 0, prototype, &[]);
    let typedef = btf.add("btf_trace_event", kind::TYPEDEF, false, 0, pointer, &[]);
    let bytes = btf.bytes();
    let types = Types::parse(&bytes).unwrap();
    assert_eq!(types.parameters(typedef), Some(3));
    assert_eq!([types.parameters(int), types.parameters(prototype), types.parameters(999)], [None; 3]);
}

#[test]
fn enumerators_are_listed_in_their_order() {
    let bytes = sample().bytes();
    let types = Types::parse(&bytes).unwrap();
    let id = types.find(&[(Kind::Enum, "numbers")])[0].unwrap();
    assert_eq!(types.enumerators(id), [("ONE".to_string(), 1), ("MINUS".to_string(), -1)]);
    assert!(types.enumerators(1).is_empty());
}
