//! The table at the end: each destination, before, hijacked, repaired, and after undo.

use super::reading::{DESTINATIONS, Reading};

/// A phase of the play: its name and what the readers said, in the order of [`DESTINATIONS`].
pub type Phase = (&'static str, Vec<Reading>);

/// The table as lines.
pub fn lines(phases: &[Phase]) -> Vec<String> {
    let mut rows = vec![["destination", "when", "leaves by", "table", "ping", "TCP 179"].map(str::to_owned)];
    for (number, destination) in DESTINATIONS.iter().enumerate() {
        for (nth, (phase, readings)) in phases.iter().enumerate() {
            let Some(reading) = readings.get(number) else { continue };
            let what = match nth {
                0 => destination.address.to_string(),
                1 => format!("  {}", destination.what),
                _ => String::new(),
            };
            rows.push([
                what,
                (*phase).to_owned(),
                reading.device.clone(),
                reading.table.clone(),
                answered(reading.ping),
                answered(reading.tcp),
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            format!("  {}", cells.join("  ").trim_end())
        })
        .collect()
}

fn answered(yes: bool) -> String {
    if yes { "answered" } else { "silence" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Reading, lines};

    #[test]
    fn each_destination_has_a_row_a_phase() {
        let right = Reading { device: "vti1".into(), table: "main".into(), ping: true, tcp: true };
        let wrong = Reading { device: "ens5".into(), table: "220".into(), ping: false, tcp: false };
        let table = lines(&[("before", vec![right; 3]), ("hijacked", vec![wrong; 3])]);
        assert_eq!(table.len(), 7);
        assert_eq!(table[1], "  169.254.55.53      before    vti1       main   answered  answered");
        assert_eq!(table[2], "    BGP neighbour 1  hijacked  ens5       220    silence   silence");
    }
}
