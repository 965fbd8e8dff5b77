//! Telling a recording again.

use std::error::Error;
use std::fmt;
use std::ops::ControlFlow;

use super::{Entry, LeftOut, Reader, RecordingError};
use crate::core::report::trace::{Summary, TraceLine};
use crate::core::telling::{Basis, Setup, Step, Telling};

/// A recording that was told to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// The last line, which was told too.
    pub summary: Summary,
    /// What found no room in the recording: of that nothing could be told but what the counts say.
    pub left_out: LeftOut,
}

/// A recording that could not be told, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplayed {
    /// What is wrong with it.
    pub error: RecordingError,
    /// Records that were judged before that.
    pub records: u64,
    /// When the last of them was made, RFC 3339, UTC; none if there was none.
    pub until: Option<String>,
}

impl fmt::Display for Unplayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        match (&self.until, &self.error) {
            (Some(until), _) => {
                write!(f, "; {} records until {until} were judged, the counts are missing", self.records)
            }
            (None, RecordingError::CutShort { .. } | RecordingError::Damaged { .. }) => {
                write!(f, "; nothing of it could be judged")
            }
            (None, _) => Ok(()),
        }
    }
}

impl Error for Unplayed {}

impl From<RecordingError> for Unplayed {
    fn from(error: RecordingError) -> Self {
        Self { error, records: 0, until: None }
    }
}

/// Tells a recording, line by line, as the trace told it; `None` if nobody wanted to hear more. Of one that is cut short, or
/// damaged, everything before that is told, unsettled stories too.
///
/// # Errors
/// See [`RecordingError`].
pub fn replay(bytes: &[u8], tell: &mut dyn FnMut(&TraceLine) -> ControlFlow<()>) -> Result<Option<Replayed>, Unplayed> {
    let mut reader = Reader::new(bytes)?;
    let mut played = Played::begin(&mut reader)?;
    if tell(&TraceLine::Start(played.telling.start())).is_break() {
        return Ok(None);
    }
    loop {
        let (lines, end) = match reader.next_entry() {
            Ok(Entry::Step(step)) => (played.take(step), None),
            Ok(Entry::Undecodable) => (Vec::new(), None),
            Ok(Entry::End(end, left_out)) => {
                let summary = played.telling.summary(&end);
                (vec![TraceLine::Summary(summary.clone())], Some(Ok(Replayed { summary, left_out })))
            }
            Err(error) => (played.rest(), Some(Err(error))),
        };
        if lines.iter().any(|line| tell(line).is_break()) {
            return Ok(None);
        }
        if let Some(end) = end {
            return end.map(Some).map_err(|error| played.unplayed(error));
        }
    }
}

struct Played {
    telling: Telling,
    records: u64,
    last_ns: Option<u64>,
}

impl Played {
    /// The first step is what the others are judged by.
    fn begin(reader: &mut Reader<'_>) -> Result<Self, Unplayed> {
        let setup: Setup = reader.head().setup.clone();
        let mut basis = Basis::default();
        match reader.next_entry()? {
            Entry::Step(Step::Basis(parts)) => basis.apply(parts),
            _ => {
                let what = "it does not begin with what is judged by".into();
                return Err(RecordingError::Damaged { at: 0, what }.into());
            }
        }
        Ok(Self { telling: Telling::new(setup, basis), records: 0, last_ns: None })
    }

    fn take(&mut self, step: Step) -> Vec<TraceLine> {
        if let Step::Seen(observation) = &step {
            self.records += 1;
            self.last_ns = Some(observation.time_ns());
        }
        self.telling.take(step)
    }

    /// The stories that had not settled.
    fn rest(&mut self) -> Vec<TraceLine> {
        let Some(now_ns) = self.last_ns else { return Vec::new() };
        self.telling.take(Step::Stories { settled_ns: u64::MAX, now_ns })
    }

    fn unplayed(&self, error: RecordingError) -> Unplayed {
        let until = self.last_ns.map(|time| self.telling.setup().clock.tell(time));
        Unplayed { error, records: self.records, until }
    }
}
