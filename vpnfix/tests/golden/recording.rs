//! What a real kernel showed and answered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vpnfix::core::model::{Answer, Question, Reply, Snapshot};

/// `recorded.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Recording {
    pub(crate) snapshot: Snapshot,
    pub(crate) answers: Vec<Answer>,
}

impl Recording {
    pub(crate) fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}; record again: cargo xtask golden", file.display()))
    }

    /// Writes it with one link, rule, route or answer a line, so that a change can be read as a diff.
    pub(crate) fn write(&self, file: &Path) {
        let mut text = String::new();
        lines(&mut text, &serde_json::to_value(self).unwrap(), 2);
        text.push('\n');
        fs::write(file, text).unwrap();
    }

    /// The recorded answers to these questions.
    pub(crate) fn answer(&self, questions: Vec<Question>) -> Result<Vec<Answer>, String> {
        let recorded = |question: Question| {
            self.answers
                .iter()
                .find(|answer| answer.question == question)
                .cloned()
                .ok_or_else(|| format!("not recorded: {question:?}; record again: cargo xtask golden"))
        };
        questions.into_iter().map(recorded).collect()
    }

    /// Where another recording of the same host decides otherwise. Source addresses, and which of several nexthops is
    /// taken, are no decisions of the policy.
    pub(crate) fn differences(&self, fresh: &Self) -> Vec<String> {
        let (recorded, fresh) = (self.decisions(), fresh.decisions());
        let asked_anew = fresh.keys().filter(|question| !recorded.contains_key(*question));
        let mut lines: Vec<String> = asked_anew.map(|question| format!("{question}: not recorded")).collect();
        for (question, decision) in &recorded {
            match fresh.get(question) {
                Some(now) if now == decision => {}
                Some(now) => lines.push(format!("{question}: recorded {decision}, now {now}")),
                None => lines.push(format!("{question}: recorded, but not asked now")),
            }
        }
        lines
    }

    /// What was decided, by the question in words.
    fn decisions(&self) -> BTreeMap<String, String> {
        self.answers.iter().map(|answer| (words(&self.snapshot, &answer.question), self.decision(answer))).collect()
    }

    fn decision(&self, answer: &Answer) -> String {
        match &answer.reply {
            Reply::Arrives(arrival) => {
                let nexthops = answer.entry.iter().flat_map(|entry| &entry.nexthops);
                let mut devices: Vec<u32> = nexthops.filter_map(|nexthop| nexthop.ifindex).collect();
                if !devices.contains(&arrival.ifindex) {
                    devices = vec![arrival.ifindex];
                }
                devices.sort_unstable();
                let names: Vec<String> = devices.iter().map(|index| self.snapshot.device_name(*index)).collect();
                let local = if arrival.local { " local" } else { "" };
                format!("dev {} table {}{local}", names.join("+"), arrival.table)
            }
            Reply::Refused(_) => "refused".into(),
        }
    }
}

/// A question as the arguments of `ip route get`.
pub(crate) fn words(snapshot: &Snapshot, question: &Question) -> String {
    let mut words = question.destination.to_string();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(words, " {name} {value}");
        }
    };
    add("from", question.source.map(|source| source.to_string()));
    add("iif", question.input_interface.map(|index| snapshot.device_name(index)));
    add("oif", question.output_interface.map(|index| snapshot.device_name(index)));
    add("mark", Some(question.mark).filter(|mark| *mark != 0).map(|mark| format!("{mark:#x}")));
    add("uid", question.uid.map(|uid| uid.to_string()));
    add("tos", Some(question.tos).filter(|tos| *tos != 0).map(|tos| format!("{tos:#x}")));
    add("ipproto", question.ip_protocol.map(|protocol| protocol.to_string()));
    add("sport", question.source_port.map(|port| port.to_string()));
    add("dport", question.destination_port.map(|port| port.to_string()));
    words
}

/// JSON with the outer levels indented and one line for what lies deeper.
fn lines(text: &mut String, value: &Value, levels: usize) {
    let indent = " ".repeat(3 - levels);
    match value {
        Value::Object(fields) if levels > 0 && !fields.is_empty() => {
            let mut separator = "{\n";
            for (name, field) in fields {
                let _ = write!(text, "{separator}{indent}\"{name}\": ");
                lines(text, field, levels - 1);
                separator = ",\n";
            }
            text.push_str("\n}");
        }
        Value::Array(items) if !items.is_empty() => {
            let mut separator = "[\n";
            for item in items {
                let _ = write!(text, "{separator}{indent}{item}");
                separator = ",\n";
            }
            text.push(']');
        }
        other => {
            let _ = write!(text, "{other}");
        }
    }
}
