//! Which lines of a trace are told: what the kernel side cannot leave out without losing a walk, or before it knows what
//! is right.

use serde::{Deserialize, Serialize};

use super::live::{Standing, Verdict};
use super::report::flow::{Fate, StoryReport};
use super::report::trace::{Summary, TraceLine};

/// What is asked for. Empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Lookups in this table, and stories with one.
    pub table: Option<u32>,
    /// What leads to this device.
    pub device: Option<String>,
    /// What goes wrong.
    pub wrong_only: bool,
}

impl Filter {
    /// Is this line told? Start and summary always are; verdicts are about prefixes and have a table only where a lookup
    /// tells it, so a table leaves them in.
    #[must_use]
    pub fn passes(&self, line: &TraceLine) -> bool {
        match line {
            TraceLine::Start(_) | TraceLine::Summary(_) => true,
            TraceLine::Lookup(lookup) => {
                self.table.is_none_or(|table| lookup.table == table)
                    && self.is_device(lookup.device.as_deref())
                    && self.is_standing(lookup.standing)
            }
            TraceLine::Egress(egress) => {
                self.table.is_none() && self.is_device(Some(&egress.device)) && self.is_standing(egress.standing)
            }
            TraceLine::Tcp(_) => *self == Self::default(),
            TraceLine::Verdict(verdict) => {
                self.is_device(verdict.device.as_deref()) && (!self.wrong_only || verdict.verdict != Verdict::Right)
            }
            TraceLine::Story(line) => self.passes_story(&line.story),
        }
    }

    /// Is this flow told?
    #[must_use]
    pub fn passes_story(&self, story: &StoryReport) -> bool {
        let in_table = |table| story.lookups.iter().any(|lookup| lookup.table == table);
        let by_device = |device: &str| {
            let egress = story.egress.iter().any(|egress| egress.device == device);
            egress || story.lookups.iter().any(|lookup| lookup.device.as_deref() == Some(device))
        };
        let is_wrong = matches!(story.fate, Fate::Misrouted | Fate::Dropped | Fate::Refused);
        self.table.is_none_or(in_table)
            && self.device.as_deref().is_none_or(by_device)
            && (!self.wrong_only || is_wrong)
    }

    /// The summary of what is told. What was lost, and the outcome, stay those of all that was watched.
    #[must_use]
    pub fn of_summary(&self, mut summary: Summary) -> Summary {
        summary.lookups.retain(|count| {
            self.table.is_none_or(|table| count.table == table)
                && self.is_device(count.device.as_deref())
                && self.is_standing(count.standing)
        });
        summary.packets.retain(|count| {
            self.table.is_none() && self.is_device(Some(&count.device)) && self.is_standing(count.standing)
        });
        summary.destinations.retain(|count| self.is_device(count.device.as_deref()));
        summary.verdicts.retain(|verdict| !self.wrong_only || verdict.verdict != Verdict::Right);
        summary.stories.retain(|story| self.passes_story(story));
        summary
    }

    fn is_device(&self, device: Option<&str>) -> bool {
        self.device.as_deref().is_none_or(|wanted| device == Some(wanted))
    }

    fn is_standing(&self, standing: Standing) -> bool {
        !self.wrong_only || standing == Standing::Wrong
    }
}
