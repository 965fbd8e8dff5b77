//! How sure an owner is follows from the kinds of evidence for it, and from nothing else.

use super::Program;
use crate::core::finding::{Confidence, Owner};

/// What a piece of evidence is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A number that the program uses by default: a priority, a table, a mark, a protocol shared with others.
    Number,
    /// The whole is made as the program makes it: selectors and action of a rule, attributes of a route.
    Shape,
    /// A sign on this host, in this namespace: a process, a unit, a socket, a device, a name of a table.
    Host,
    /// It says so itself: a protocol number of its own, or a configuration file that names it.
    Own,
    /// Speaks against it.
    Against,
    /// Worth telling, without weight.
    Told,
}

/// A sentence that a report can quote, and its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// A program that may be the owner, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) program: Program,
    pub(super) evidence: Vec<Evidence>,
}

impl Candidate {
    pub(super) fn of(program: Program) -> Self {
        Self { program, evidence: Vec::new() }
    }

    pub(super) fn with(mut self, kind: Kind, text: impl Into<String>) -> Self {
        self.evidence.push(Evidence { kind, text: text.into() });
        self
    }

    pub(super) fn with_if(self, holds: bool, kind: Kind, text: &str) -> Self {
        if holds { self.with(kind, text) } else { self }
    }

    fn has(&self, kind: Kind) -> bool {
        self.evidence.iter().any(|evidence| evidence.kind == kind)
    }

    /// Kinds of evidence for it that differ.
    fn kinds(&self) -> usize {
        [Kind::Number, Kind::Shape, Kind::Host, Kind::Own].into_iter().filter(|kind| self.has(*kind)).count()
    }

    /// The rule: what speaks against it leaves it possible; what says so itself is certain; two kinds of evidence make
    /// it likely; one alone leaves it possible. A program that is merely there says nothing about a rule or a route.
    pub(super) fn confidence(&self) -> Confidence {
        let fits = self.has(Kind::Number) || self.has(Kind::Shape) || self.has(Kind::Own);
        match (fits, self.has(Kind::Against), self.has(Kind::Own), self.kinds()) {
            (false, ..) => Confidence::Unknown,
            (true, true, ..) => Confidence::Possible,
            (true, false, true, _) => Confidence::Certain,
            (true, false, false, kinds) if kinds > 1 => Confidence::Likely,
            (true, false, false, _) => Confidence::Possible,
        }
    }

    /// The candidates' order: confidence, kinds of evidence, pieces of evidence.
    fn weight(&self) -> (Confidence, usize, usize) {
        let pieces = self.evidence.iter().filter(|evidence| evidence.kind < Kind::Against).count();
        (self.confidence(), self.kinds(), pieces)
    }

    fn into_owner(self) -> Owner {
        let confidence = self.confidence();
        let mut evidence: Vec<String> = Vec::new();
        for piece in self.evidence {
            if !evidence.contains(&piece.text) {
                evidence.push(piece.text);
            }
        }
        Owner { name: self.program.name().into(), confidence, evidence }
    }
}

/// The owner with the best evidence; the first of equals, in the order of [`Program`].
pub(super) fn best(mut candidates: Vec<Candidate>) -> Option<Owner> {
    candidates.retain(|candidate| candidate.confidence() > Confidence::Unknown);
    candidates.sort_by(|one, other| other.weight().cmp(&one.weight()).then(one.program.cmp(&other.program)));
    candidates.into_iter().next().map(Candidate::into_owner)
}
