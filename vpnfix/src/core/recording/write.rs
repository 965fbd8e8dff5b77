//! From steps to bytes, within a limit.

use serde::Serialize;
use thiserror::Error;

use super::frame::{ITEMS_MAX, Kind, frame, preamble};
use super::{Closing, Head, LeftOut};
use crate::core::telling::{End, Part, Step};

/// Elements of a list in one frame, unless they are large: a route is some 300 bytes of JSON.
const CHUNK: usize = 8192;

/// Why there can be no recording.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unrecorded {
    /// The limit does not even hold what the first record is judged by.
    #[error("a recording of {limit} bytes does not hold this host's rules and routes")]
    LimitTooSmall {
        /// The limit.
        limit: u64,
    },
    /// A single value is larger than any reader would take.
    #[error("a recording cannot hold {0} of that size")]
    TooLarge(&'static str),
}

/// Makes the bytes of a recording. What finds no room within the limit is counted, and so is all that comes after it: records
/// without what they are judged by would be worth nothing.
#[derive(Debug)]
pub struct Encoder {
    limit: u64,
    taken: u64,
    out: Vec<u8>,
    has_basis: bool,
    is_full: bool,
    left_out: LeftOut,
}

impl Encoder {
    /// Begins a recording of at most so many bytes.
    #[must_use]
    pub fn new(head: &Head, limit: u64) -> Self {
        let mut out = preamble();
        out.extend(json(Kind::Head, head).unwrap_or_default());
        let taken = out.len() as u64;
        Self { limit, taken, out, has_basis: false, is_full: false, left_out: LeftOut::default() }
    }

    /// Adds a record of the kernel side.
    pub fn record(&mut self, record: &[u8]) {
        if !self.add(frame(Kind::Seen, record)) {
            self.left_out.records += 1;
        }
    }

    /// Adds a step. What was seen is added by [`Encoder::record`], as it came.
    ///
    /// # Errors
    /// The first basis does not fit.
    pub fn step(&mut self, step: &Step) -> Result<(), Unrecorded> {
        match step {
            Step::Basis(parts) => return self.basis(parts),
            Step::Names(names) => self.add_json(Kind::Names, names),
            Step::Counted(flows) => self.add_json(Kind::Counted, flows),
            Step::Stories { settled_ns, now_ns } => self.add_json(Kind::Stories, &[settled_ns, now_ns]),
            Step::Seen(_) => {}
        }
        Ok(())
    }

    /// Ends the recording. This finds room whatever the limit is.
    ///
    /// # Errors
    /// The counts, and the words of the command, are too large.
    pub fn end(&mut self, end: &End) -> Result<(), Unrecorded> {
        let closing = Closing { end: end.clone(), left_out: self.left_out };
        self.out.extend(json(Kind::End, &closing).ok_or(Unrecorded::TooLarge("counts and a command"))?);
        Ok(())
    }

    /// The bytes that were made since this was asked last.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// What found no room so far.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    fn basis(&mut self, parts: &[Part]) -> Result<(), Unrecorded> {
        if self.is_full {
            self.left_out.bases += 1;
            return Ok(());
        }
        let frames: Option<Vec<Vec<u8>>> = parts.iter().map(part).collect();
        let mut frames = frames.ok_or(Unrecorded::TooLarge("a host"))?.concat();
        frames.extend(frame(Kind::Basis, &[]));
        match (self.add(frames), self.has_basis) {
            (true, _) => self.has_basis = true,
            (false, true) => self.left_out.bases += 1,
            (false, false) => return Err(Unrecorded::LimitTooSmall { limit: self.limit }),
        }
        Ok(())
    }

    /// What does not fit, or is too large, ends what is recorded: later steps would be told otherwise without it.
    fn add_json(&mut self, kind: Kind, value: &impl Serialize) {
        match json(kind, value) {
            Some(frame) => drop(self.add(frame)),
            None => self.is_full = true,
        }
    }

    fn add(&mut self, bytes: Vec<u8>) -> bool {
        self.is_full |= self.taken + bytes.len() as u64 > self.limit;
        if !self.is_full {
            self.taken += bytes.len() as u64;
            self.out.extend(bytes);
        }
        !self.is_full
    }
}

/// One part, in several frames where its list is long.
fn part(part: &Part) -> Option<Vec<u8>> {
    match part {
        Part::Links(links) => chunks(links, Part::Links),
        Part::Addresses(addresses) => chunks(addresses, Part::Addresses),
        Part::Rules(rules) => chunks(rules, Part::Rules),
        Part::Routes(routes) => chunks(routes, Part::Routes),
        Part::Associations(associations) => chunks(associations, Part::Associations),
        Part::Watches(watches) => chunks(watches, Part::Watches),
        Part::OtherNames(names) => chunks(names, Part::OtherNames),
        Part::OtherDevices(devices) => chunks(devices, Part::OtherDevices),
        Part::PartialTables(_) | Part::Host(_) | Part::Netns(_) | Part::Clues(_) | Part::AssociationsNotKnown(_) => {
            json(Kind::Part, part)
        }
    }
}

fn chunks<T: Clone>(list: &[T], of: fn(Vec<T>) -> Part) -> Option<Vec<u8>> {
    if list.len() > ITEMS_MAX {
        return None;
    }
    let (first, more) = list.split_at(list.len().min(CHUNK));
    let mut frames = halved(Kind::Part, first, of)?;
    for chunk in more.chunks(CHUNK) {
        frames.extend(halved(Kind::MoreOfPart, chunk, of)?);
    }
    Some(frames)
}

/// A list as a frame; as two or more where its elements are large.
fn halved<T: Clone>(kind: Kind, list: &[T], of: fn(Vec<T>) -> Part) -> Option<Vec<u8>> {
    if let Some(frame) = json(kind, &of(list.to_vec())) {
        return Some(frame);
    }
    let (first, second) = list.split_at(list.len() / 2);
    // One element alone is too large.
    if first.is_empty() {
        return None;
    }
    Some([halved(kind, first, of)?, halved(Kind::MoreOfPart, second, of)?].concat())
}

/// A value as a frame; none if no reader would take it.
fn json(kind: Kind, value: &impl Serialize) -> Option<Vec<u8>> {
    // All of these values are made for JSON, so that only the size is a question.
    let payload = serde_json::to_vec(value).ok().filter(|payload| payload.len() <= kind.payload_max())?;
    Some(frame(kind, &payload))
}
