//! The tree of sections, and how the daemons look settings up in it (`settings.c`: `find_value_buffered` and
//! `find_sections_buffered`).

use std::collections::BTreeMap;
use std::ptr;

use super::{Key, Place};

/// Steps that one look-up may take. References of real configurations take a handful; some circles of references make
/// the daemon itself run on until it crashes.
const MAX_STEPS: u32 = 10_000;

/// One section with what is kept of it.
#[derive(Debug, Default)]
pub(super) struct Section {
    sections: BTreeMap<String, Section>,
    values: BTreeMap<Key, Assigned>,
    /// Absolute names of the sections that it inherits from, in order.
    references: Vec<String>,
}

/// What was last assigned to a key.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    /// The text; none where it was cleared, which hides what would be inherited.
    pub(super) text: Option<String>,
    /// Where.
    pub(super) place: Place,
}

/// A look-up that does not come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tangled;

impl Section {
    /// The section of this path below, made if there is none.
    pub(super) fn enter(&mut self, path: &[String]) -> &mut Self {
        path.iter().fold(self, |section, name| section.sections.entry(name.clone()).or_default())
    }

    pub(super) fn assign(&mut self, key: Key, assigned: Assigned) {
        self.values.insert(key, assigned);
    }

    pub(super) fn refer_to(&mut self, names: Vec<String>) {
        for name in names {
            if !self.references.contains(&name) {
                self.references.push(name);
            }
        }
    }

    /// What a daemon finds for a key in its section, of the whole tree.
    pub(super) fn find(&self, section: &str, key: Key) -> Result<Option<&Assigned>, Tangled> {
        let path: Vec<&str> = [section].into_iter().chain(key.sections().iter().copied()).collect();
        let mut search = Search { top: self, steps: 0, visited: Vec::new() };
        search.value(self, &path, key, true)
    }
}

struct Search<'a> {
    top: &'a Section,
    steps: u32,
    /// The sections that the key was looked for in.
    visited: Vec<&'a Section>,
}

impl<'a> Search<'a> {
    fn step(&mut self) -> Result<(), Tangled> {
        self.steps += 1;
        if self.steps > MAX_STEPS { Err(Tangled) } else { Ok(()) }
    }

    /// First in the section itself and what lies below, then in the sections that it refers to, left to right.
    fn value(
        &mut self,
        section: &'a Section,
        path: &[&str],
        key: Key,
        inherit: bool,
    ) -> Result<Option<&'a Assigned>, Tangled> {
        self.step()?;
        let found = match path.split_first() {
            Some((name, rest)) => match section.sections.get(*name) {
                Some(below) => self.value(below, rest, key, true)?,
                None => None,
            },
            None => {
                self.visited.push(section);
                section.values.get(&key)
            }
        };
        if found.is_some() || !inherit {
            return Ok(found);
        }
        for reference in &section.references {
            for other in self.resolve(reference)? {
                if contains(&self.visited, other) {
                    continue;
                }
                // What the other one refers to was resolved with it.
                let found = self.value(other, path, key, false)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// The sections that a reference stands for: the one of that name, and those that it refers to in turn.
    fn resolve(&mut self, reference: &str) -> Result<Vec<&'a Section>, Tangled> {
        let mut found = Vec::new();
        self.resolve_into(reference, &mut found, 0)?;
        Ok(found)
    }

    fn resolve_into(&mut self, reference: &str, found: &mut Vec<&'a Section>, depth: u32) -> Result<(), Tangled> {
        let path: Vec<&str> = reference.split('.').collect();
        self.sections(self.top, &path, true, found, depth)
    }

    fn sections(
        &mut self,
        section: &'a Section,
        path: &[&str],
        inherit: bool,
        found: &mut Vec<&'a Section>,
        depth: u32,
    ) -> Result<(), Tangled> {
        /// References that are resolved inside of each other; each costs stack.
        const MAX_DEPTH: u32 = 100;
        self.step()?;
        if depth > MAX_DEPTH {
            return Err(Tangled);
        }
        let Some((name, rest)) = path.split_first() else { return Ok(()) };
        if let Some(below) = section.sections.get(*name) {
            if !rest.is_empty() {
                self.sections(below, rest, true, found, depth + 1)?;
            } else if !contains(found, below) {
                found.push(below);
                for reference in &below.references {
                    self.resolve_into(reference, found, depth + 1)?;
                }
            }
        }
        if inherit {
            for reference in &section.references {
                let mut others = Vec::new();
                self.resolve_into(reference, &mut others, depth + 1)?;
                for other in others {
                    self.sections(other, path, false, found, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

/// Sections are told apart by where they stand in the tree, not by what they hold.
fn contains(sections: &[&Section], section: &Section) -> bool {
    sections.iter().any(|other| ptr::eq(*other, section))
}
