//! The form of vici's packets: a kind, a name where the kind has one, and sections of keys and values.

use crate::core::verify::IkeAssociation;

const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;
const REGISTER: u8 = 3;
const CONFIRM: u8 = 5;
const EVENT: u8 = 7;

const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;

/// Sections do not lie deeper in one another than this in `list-sas`: association, `child-sas`, child.
const DEEPEST: usize = 8;

/// What the daemon sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// The registration is done.
    EventConfirmed,
    /// An event, with its message.
    Event(Vec<u8>),
    /// The end of a command.
    Response,
    /// It does not know the command or the event.
    Other,
}

/// The packet that registers for an event.
pub(super) fn register(event: &str) -> Vec<u8> {
    named(REGISTER, event)
}

/// The packet of a command without arguments.
pub(super) fn request(command: &str) -> Vec<u8> {
    named(REQUEST, command)
}

fn named(kind: u8, name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let mut packet = vec![kind, length];
    packet.extend(name.bytes().take(length.into()));
    packet
}

/// Reads a packet without its length.
pub(super) fn packet(bytes: &[u8]) -> Result<Packet, &'static str> {
    let (kind, rest) = bytes.split_first().ok_or("an empty message")?;
    match *kind {
        CONFIRM => Ok(Packet::EventConfirmed),
        RESPONSE => Ok(Packet::Response),
        EVENT => {
            let mut reader = Reader { rest };
            reader.short()?;
            Ok(Packet::Event(reader.rest.to_vec()))
        }
        _ => Ok(Packet::Other),
    }
}

/// The associations of a message of `list-sa`: one section each, by the connection's name.
pub(super) fn associations(message: &[u8]) -> Result<Vec<IkeAssociation>, &'static str> {
    let mut reader = Reader { rest: message };
    let mut path: Vec<String> = Vec::new();
    let mut found: Vec<IkeAssociation> = Vec::new();
    while let Some(kind) = reader.byte() {
        match kind {
            SECTION_START => {
                path.push(reader.short()?);
                if path.len() > DEEPEST {
                    return Err("sections too deep in one another");
                }
                begin(&mut found, &path);
            }
            SECTION_END => {
                path.pop().ok_or("an end without a section")?;
            }
            KEY_VALUE => {
                let key = reader.short()?;
                let value = reader.long()?;
                enter(&mut found, &path, &key, value);
            }
            LIST_START => {
                reader.short()?;
            }
            LIST_ITEM => {
                reader.long()?;
            }
            LIST_END => {}
            _ => return Err("an element of no kind"),
        }
    }
    if path.is_empty() { Ok(found) } else { Err("a section without an end") }
}

fn begin(found: &mut Vec<IkeAssociation>, path: &[String]) {
    match path {
        [name] => found.push(IkeAssociation { name: name.clone(), ..IkeAssociation::default() }),
        [_, children, name] if children == "child-sas" => {
            if let Some(association) = found.last_mut() {
                association.children.push((name.clone(), String::new()));
            }
        }
        _ => {}
    }
}

/// Takes in what is wanted; everything else goes by.
fn enter(found: &mut [IkeAssociation], path: &[String], key: &str, value: &[u8]) {
    let Some(association) = found.last_mut() else { return };
    let text = || text(value);
    match (path, key) {
        ([_], "state") => association.state = text(),
        ([_], "version") => association.version = text().parse().ok(),
        ([_], "local-host") => association.local = text().parse().ok(),
        ([_], "remote-host") => association.remote = text().parse().ok(),
        ([_], "established") => association.established = text().parse().ok(),
        ([_], "nat-local" | "nat-remote" | "nat-any") => association.behind_nat |= text() == "yes",
        ([_, children, _], "state") if children == "child-sas" => {
            if let Some((_, state)) = association.children.last_mut() {
                *state = text();
            }
        }
        ([_, children, _], "name") if children == "child-sas" => {
            if let Some((name, _)) = association.children.last_mut() {
                *name = text();
            }
        }
        _ => {}
    }
}

/// A value as a text for people: it goes to a terminal.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().filter(|character| !character.is_control()).take(256).collect()
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("a message that was cut")?;
        self.rest = rest;
        Ok(taken)
    }

    /// A name behind a length of one byte.
    fn short(&mut self) -> Result<String, &'static str> {
        let length = self.byte().ok_or("a message that was cut")?;
        self.take(length.into()).map(text)
    }

    /// A value behind a length of two bytes, network byte order.
    fn long(&mut self) -> Result<&'a [u8], &'static str> {
        let length = self.take(2)?.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
        self.take(length.into())
    }
}
