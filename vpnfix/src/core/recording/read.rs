//! From bytes to steps. Nothing is taken on trust: sizes, checksums, the order of frames, counts.

use std::mem::discriminant;

use serde::de::DeserializeOwned;

use super::frame::{self, ITEMS_MAX, Kind, PREAMBLE};
use super::{ByteOrder, Closing, Head, LeftOut, RecordingError, check};
use crate::core::decode;
use crate::core::telling::{End, Part, Step};

/// Most bytes of JSON of one basis.
const BASIS_MAX: usize = 512 << 20;
/// Most names in one frame, and the longest.
const NAME_MAX: usize = 512;

/// What a recording holds, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A step of the trace.
    Step(Step),
    /// A record that could not be decoded by the trace either, which has counted it.
    Undecodable,
    /// The end.
    End(Box<End>, LeftOut),
}

/// Reads a recording.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    head: Head,
    pending: Vec<Part>,
    pending_bytes: usize,
}

impl<'a> Reader<'a> {
    /// Reads the head.
    ///
    /// # Errors
    /// No recording, one of a newer format, or of records that this version does not read.
    pub fn new(bytes: &'a [u8]) -> Result<Self, RecordingError> {
        frame::check_preamble(bytes)?;
        let at = PREAMBLE;
        let first = frame::take(bytes.get(at..).unwrap_or_default(), at as u64)?;
        let damaged = |what: String| RecordingError::Damaged { at: at as u64, what };
        if first.kind != Kind::Head {
            return Err(damaged("it does not begin with its head".into()));
        }
        let head: Head = serde_json::from_slice(&first.payload).map_err(|error| damaged(error.to_string()))?;
        if head.byte_order != ByteOrder::NATIVE {
            return Err(RecordingError::ByteOrder);
        }
        if head.abi != vpnfix_common::ABI_VERSION {
            let (got, want) = (head.abi, vpnfix_common::ABI_VERSION);
            return Err(RecordingError::Abi { got, want, vpnfix: head.setup.vpnfix });
        }
        Ok(Self { bytes, at: at + first.size, head, pending: Vec::new(), pending_bytes: 0 })
    }

    /// The head.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next entry. After the end, or an error, there is none to ask for.
    ///
    /// # Errors
    /// The file is cut short or damaged here.
    pub fn next_entry(&mut self) -> Result<Entry, RecordingError> {
        loop {
            let at = self.at as u64;
            let frame = frame::take(self.bytes.get(self.at..).unwrap_or_default(), at)?;
            self.at += frame.size;
            let entry = self.entry(frame.kind, &frame.payload);
            if let Some(entry) = entry.map_err(|what| RecordingError::Damaged { at, what })? {
                return Ok(entry);
            }
        }
    }

    fn entry(&mut self, kind: Kind, payload: &[u8]) -> Result<Option<Entry>, String> {
        let is_of_basis = matches!(kind, Kind::Part | Kind::MoreOfPart | Kind::Basis);
        if !is_of_basis && !self.pending.is_empty() {
            return Err("a basis that does not come to its end".into());
        }
        let step = match kind {
            Kind::Head => return Err("a second head".into()),
            Kind::Part => {
                self.has_room(payload)?;
                let part: Part = parse(payload)?;
                if self.pending.iter().any(|other| discriminant(other) == discriminant(&part)) {
                    return Err("a part that comes twice".into());
                }
                self.pending.push(part);
                return Ok(None);
            }
            Kind::MoreOfPart => {
                self.has_room(payload)?;
                let last = self.pending.last_mut().ok_or("more of a part that did not begin")?;
                extend(last, parse(payload)?)?;
                return Ok(None);
            }
            Kind::Basis => {
                self.pending_bytes = 0;
                Step::Basis(std::mem::take(&mut self.pending))
            }
            Kind::Names => {
                let names: Vec<(u64, String)> = parse(payload)?;
                if names.iter().any(|(_, name)| name.len() > NAME_MAX) {
                    return Err("a function with a name that is none".into());
                }
                Step::Names(names)
            }
            Kind::Seen => match decode::observation(payload) {
                Ok(observation) => Step::Seen(observation),
                Err(_) => return Ok(Some(Entry::Undecodable)),
            },
            Kind::Counted => {
                let flows: Vec<_> = parse(payload)?;
                check::flows(&flows)?;
                Step::Counted(flows)
            }
            Kind::Stories => {
                let [settled_ns, now_ns] = parse(payload)?;
                Step::Stories { settled_ns, now_ns }
            }
            Kind::End => {
                let Closing { end, left_out } = parse(payload)?;
                check::totals(&end.totals)?;
                return Ok(Some(Entry::End(Box::new(end), left_out)));
            }
        };
        Ok(Some(Entry::Step(step)))
    }

    fn has_room(&mut self, payload: &[u8]) -> Result<(), String> {
        self.pending_bytes += payload.len();
        if self.pending_bytes <= BASIS_MAX { Ok(()) } else { Err("a basis of more than 512 MiB".into()) }
    }
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

/// Adds to a part what came in a frame of its own.
fn extend(part: &mut Part, more: Part) -> Result<(), String> {
    fn append<T>(list: &mut Vec<T>, mut more: Vec<T>) -> Result<(), String> {
        list.append(&mut more);
        if list.len() <= ITEMS_MAX { Ok(()) } else { Err(format!("a list of more than {ITEMS_MAX}")) }
    }
    match (part, more) {
        (Part::Links(list), Part::Links(more)) => append(list, more),
        (Part::Addresses(list), Part::Addresses(more)) => append(list, more),
        (Part::Rules(list), Part::Rules(more)) => append(list, more),
        (Part::Routes(list), Part::Routes(more)) => append(list, more),
        (Part::Associations(list), Part::Associations(more)) => append(list, more),
        (Part::Watches(list), Part::Watches(more)) => append(list, more),
        (Part::OtherNames(list), Part::OtherNames(more)) => append(list, more),
        (Part::OtherDevices(list), Part::OtherDevices(more)) => append(list, more),
        _ => Err("more of another part than the one before".into()),
    }
}
