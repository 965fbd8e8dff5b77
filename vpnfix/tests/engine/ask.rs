//! A flow to ask about, in the words of `ip route get`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use vpnfix::core::model::{Question, Snapshot};

/// A flow, with devices by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) to: IpAddr,
    pub(crate) from: Option<IpAddr>,
    pub(crate) iif: Option<String>,
    pub(crate) oif: Option<String>,
    pub(crate) mark: u32,
    pub(crate) uid: Option<u32>,
    pub(crate) protocol: Option<u8>,
    pub(crate) sport: Option<u16>,
    pub(crate) dport: Option<u16>,
    pub(crate) tos: u8,
    pub(crate) flow_label: u32,
}

impl Ask {
    pub(crate) fn to(to: IpAddr) -> Self {
        Self {
            to,
            from: None,
            iif: None,
            oif: None,
            mark: 0,
            uid: None,
            protocol: None,
            sport: None,
            dport: None,
            tos: 0,
            flow_label: 0,
        }
    }

    /// The question with the indices that the devices have here.
    pub(crate) fn question(&self, snapshot: &Snapshot) -> Question {
        let index = |name: &Option<String>| {
            name.as_ref().map(|name| snapshot.link_named(name).unwrap_or_else(|| panic!("no device {name}")).index)
        };
        Question {
            destination: self.to,
            source: self.from,
            input_interface: index(&self.iif),
            output_interface: index(&self.oif),
            mark: self.mark,
            uid: self.uid,
            ip_protocol: self.protocol,
            source_port: self.sport,
            destination_port: self.dport,
            tos: self.tos,
            flow_label: self.flow_label,
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn word<T: fmt::Display>(f: &mut fmt::Formatter<'_>, key: &str, value: Option<T>) -> fmt::Result {
            value.map_or(Ok(()), |value| write!(f, " {key} {value}"))
        }
        write!(f, "ask {}", self.to)?;
        word(f, "from", self.from)?;
        word(f, "iif", self.iif.as_ref())?;
        word(f, "oif", self.oif.as_ref())?;
        word(f, "mark", Some(self.mark).filter(|mark| *mark != 0))?;
        word(f, "uid", self.uid)?;
        word(f, "ipproto", self.protocol)?;
        word(f, "sport", self.sport)?;
        word(f, "dport", self.dport)?;
        word(f, "tos", Some(self.tos).filter(|tos| *tos != 0))?;
        word(f, "flowlabel", Some(self.flow_label).filter(|label| *label != 0))
    }
}

impl FromStr for Ask {
    type Err = String;

    /// Reads what stands behind `ask`.
    fn from_str(text: &str) -> Result<Self, String> {
        fn value<T: FromStr>(text: &str) -> Result<T, String> {
            text.parse().map_err(|_| format!("`{text}` in a question"))
        }
        let mut words = text.split_whitespace();
        let mut ask = Self::to(value(words.next().unwrap_or_default())?);
        while let (Some(key), Some(word)) = (words.next(), words.next()) {
            match key {
                "from" => ask.from = Some(value(word)?),
                "iif" => ask.iif = Some(word.into()),
                "oif" => ask.oif = Some(word.into()),
                "mark" => ask.mark = value(word)?,
                "uid" => ask.uid = Some(value(word)?),
                "ipproto" => ask.protocol = Some(value(word)?),
                "sport" => ask.sport = Some(value(word)?),
                "dport" => ask.dport = Some(value(word)?),
                "tos" => ask.tos = value(word)?,
                "flowlabel" => ask.flow_label = value(word)?,
                other => return Err(format!("`{other}` in a question")),
            }
        }
        Ok(ask)
    }
}
