//! Rules with selectors that iproute2 6.1 does not know: DSCP, flow label, masked ports.

use std::fmt;
use std::str::FromStr;

use vpnfix::core::model::{Dscp, Family, FlowLabel, Ports, Rule};

/// Such a rule. Each selector is a value and a mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Masked {
    pub(crate) priority: u32,
    pub(crate) table: u32,
    pub(crate) invert: bool,
    pub(crate) dscp: Option<(u32, u32)>,
    pub(crate) flow_label: Option<(u32, u32)>,
    pub(crate) sport: Option<(u32, u32)>,
    pub(crate) dport: Option<(u32, u32)>,
}

impl Masked {
    pub(crate) fn rule(&self, family: Family) -> Rule {
        let dscp = |(value, mask): (u32, u32)| Dscp { value: value as u8, mask: mask as u8 };
        let port = |(value, mask): (u32, u32)| Ports::Masked { value: value as u16, mask: mask as u16 };
        let label = |(value, mask): (u32, u32)| FlowLabel { value, mask };
        Rule {
            invert: self.invert,
            dscp: self.dscp.map(dscp),
            flow_label: self.flow_label.filter(|_| family == Family::V6).map(label),
            source_ports: self.sport.map(port),
            destination_ports: self.dport.map(port),
            ..Rule::lookup(family, self.priority, self.table)
        }
    }

    fn selectors(&mut self) -> [(&'static str, &mut Option<(u32, u32)>); 4] {
        [
            ("dscp", &mut self.dscp),
            ("flowlabel", &mut self.flow_label),
            ("sport", &mut self.sport),
            ("dport", &mut self.dport),
        ]
    }
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.priority, self.table, if self.invert { " not" } else { "" })?;
        for (name, selector) in self.clone().selectors() {
            if let Some((value, mask)) = selector {
                write!(f, " {name} {value}/{mask}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Masked {
    type Err = String;

    /// Reads `PRIORITY TABLE [not] [SELECTOR VALUE/MASK]…`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("`{text}` in a rule"));
        let mut words = text.split_whitespace();
        let mut next = || words.next().unwrap_or_default();
        let mut rule = Self { priority: number(next())?, table: number(next())?, ..Self::default() };
        loop {
            match next() {
                "" => return Ok(rule),
                "not" => rule.invert = true,
                name => {
                    let (value, mask) = next().split_once('/').ok_or_else(|| format!("no mask for `{name}`"))?;
                    let pair = (number(value)?, number(mask)?);
                    let mut selectors = rule.selectors();
                    let found = selectors.iter_mut().find(|(known, _)| *known == name);
                    *found.ok_or_else(|| format!("`{name}` in a rule"))?.1 = Some(pair);
                }
            }
        }
    }
}
