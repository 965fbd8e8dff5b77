//! Policy-routing rules.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Family, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN, route::protocol_name};

/// One policy rule (`include/uapi/linux/fib_rules.h`). The order in which rules of a family stand in a snapshot is the
/// kernel's: ascending priority, and among equals the order in which they were added.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// Family.
    pub family: Family,
    /// Priority; the smallest is asked first.
    pub priority: u32,
    /// `not`: matches what the selectors do not (`FIB_RULE_INVERT`).
    pub invert: bool,
    /// Source prefix.
    pub from: Option<IpNet>,
    /// Destination prefix.
    pub to: Option<IpNet>,
    /// Name of the input interface.
    pub iif: Option<String>,
    /// The named input interface does not exist now (`FIB_RULE_IIF_DETACHED`): the rule matches nothing.
    pub iif_detached: bool,
    /// Name of the output interface that the socket must be bound to.
    pub oif: Option<String>,
    /// The named output interface does not exist now (`FIB_RULE_OIF_DETACHED`).
    pub oif_detached: bool,
    /// Firewall mark.
    pub mark: Option<Mark>,
    /// Type of service, 0 for any. IPv4 compares it with bits 2 to 4 of the flow's (`IPTOS_RT_MASK`), IPv6 with all six of
    /// its DSCP.
    pub tos: u8,
    /// Differentiated services code point (`FRA_DSCP`, since Linux 6.13), all six bits compared.
    pub dscp: Option<Dscp>,
    /// IPv6 flow label (`FRA_FLOWLABEL`, since Linux 6.14).
    pub flow_label: Option<FlowLabel>,
    /// Users.
    pub uid_range: Option<UidRange>,
    /// IP protocol number.
    pub ip_protocol: Option<u8>,
    /// Source ports.
    pub source_ports: Option<Ports>,
    /// Destination ports.
    pub destination_ports: Option<Ports>,
    /// Matches flows of a layer-3 master device (VRF) and uses its table.
    pub l3mdev: bool,
    /// Tunnel id.
    pub tunnel_id: Option<u64>,
    /// The source selector is compared with the address that the route would choose, while none is chosen yet
    /// (`FIB_RULE_FIND_SADDR`, IPv6 only).
    pub find_source: bool,
    /// What it does.
    pub action: RuleAction,
    /// Discards a route with this prefix length or a shorter one.
    pub suppress_prefix_length: Option<u32>,
    /// Discards a route that leaves by an interface of this group.
    pub suppress_ifgroup: Option<u32>,
    /// Who added it (`FRA_PROTOCOL`).
    pub protocol: u8,
    /// Numbers of attributes that this version of vpnfix does not know. Such a rule cannot be judged.
    pub unknown_attributes: Vec<u16>,
}

/// What a rule does (`FR_ACT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RuleAction {
    /// Looks up this table.
    Lookup(u32),
    /// Jumps to the first rule of this priority. Unresolved while there is none.
    Goto(u32),
    /// Does nothing.
    Nop,
    /// Drops in silence.
    Blackhole,
    /// Refuses: network unreachable.
    Unreachable,
    /// Refuses: administratively prohibited.
    Prohibit,
    /// Another action, by its number.
    Other(u8),
}

/// A firewall mark and the bits of it that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// Value.
    pub value: u32,
    /// Mask.
    pub mask: u32,
}

/// A range of user ids, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UidRange {
    /// First.
    pub start: u32,
    /// Last.
    pub end: u32,
}

/// Ports that a rule is for, host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ports {
    /// A range, both ends included.
    Range {
        /// First.
        start: u16,
        /// Last.
        end: u16,
    },
    /// The ports that equal `value` in the bits of `mask` (since Linux 6.15).
    Masked {
        /// Value.
        value: u16,
        /// Mask.
        mask: u16,
    },
}

impl Ports {
    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self::Range { start: port, end: port }
    }

    /// Is this port among them?
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        match self {
            Self::Range { start, end } => (start..=end).contains(&port),
            Self::Masked { value, mask } => (port ^ value) & mask == 0,
        }
    }

    /// The smallest of them.
    #[must_use]
    pub fn first(self) -> u16 {
        match self {
            Self::Range { start, .. } => start,
            Self::Masked { value, mask } => value & mask,
        }
    }
}

/// A DSCP and the bits of it that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dscp {
    /// Value, 0 to 63.
    pub value: u8,
    /// Mask, 63 where all bits count (others since Linux 6.15).
    pub mask: u8,
}

/// An IPv6 flow label and the bits of it that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowLabel {
    /// Value, 20 bits, host byte order.
    pub value: u32,
    /// Mask, `0xfffff` where all bits count.
    pub mask: u32,
}

impl Rule {
    /// A rule that looks up `table` for everything; fields are then set as needed.
    #[must_use]
    pub fn lookup(family: Family, priority: u32, table: u32) -> Self {
        Self {
            family,
            priority,
            invert: false,
            from: None,
            to: None,
            iif: None,
            iif_detached: false,
            oif: None,
            oif_detached: false,
            mark: None,
            tos: 0,
            dscp: None,
            flow_label: None,
            uid_range: None,
            ip_protocol: None,
            source_ports: None,
            destination_ports: None,
            l3mdev: false,
            tunnel_id: None,
            find_source: false,
            action: RuleAction::Lookup(table),
            suppress_prefix_length: None,
            suppress_ifgroup: None,
            protocol: 0,
            unknown_attributes: Vec::new(),
        }
    }

    /// The table that it looks up.
    #[must_use]
    pub fn table(&self) -> Option<u32> {
        match self.action {
            RuleAction::Lookup(table) if !self.l3mdev => Some(table),
            _ => None,
        }
    }

    /// Has the same effect as `other`, whoever made either: all but the protocol is equal.
    #[must_use]
    pub fn same_effect(&self, other: &Self) -> bool {
        self.same_effect_anywhere(other) && self.priority == other.priority
    }

    /// Has the same effect as `other`, but for where it stands: all but protocol and priority is equal.
    #[must_use]
    pub fn same_effect_anywhere(&self, other: &Self) -> bool {
        self.effect() == other.effect()
    }

    /// The rule without what says who made it and where it stands: equal for rules of the same effect.
    #[must_use]
    pub fn effect(&self) -> Self {
        Self { protocol: 0, priority: 0, ..self.clone() }
    }

    /// Is it one of the three that every namespace starts with?
    #[must_use]
    pub fn is_kernel_default(&self) -> bool {
        let default = |priority, table| {
            self.priority == priority && self.same_effect_anywhere(&Self::lookup(self.family, priority, table))
        };
        default(0, TABLE_LOCAL) || default(32766, TABLE_MAIN) || default(32767, TABLE_DEFAULT)
    }

    /// The selectors and the action in the words of `ip rule`, without the priority: `from all to 10.0.0.0/8 lookup main`.
    /// They are also what `ip rule add` takes.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = Vec::new();
        if self.invert {
            words.push("not".to_string());
        }
        words.push(format!("from {}", self.from.map_or("all".to_string(), |from| prefix_words(&from))));
        if let Some(to) = &self.to {
            words.push(format!("to {}", prefix_words(to)));
        }
        if self.tos != 0 {
            words.push(format!("tos {:#04x}", self.tos));
        }
        if let Some(dscp) = self.dscp {
            words.push(match dscp.mask {
                0x3f => format!("dscp {}", dscp.value),
                mask => format!("dscp {:#x}/{mask:#x}", dscp.value),
            });
        }
        if let Some(label) = self.flow_label {
            words.push(match label.mask {
                0xf_ffff => format!("flowlabel {:#x}", label.value),
                mask => format!("flowlabel {:#x}/{mask:#x}", label.value),
            });
        }
        if let Some(mark) = self.mark {
            words.push(match mark.mask {
                u32::MAX => format!("fwmark {:#x}", mark.value),
                mask => format!("fwmark {:#x}/{mask:#x}", mark.value),
            });
        }
        if let Some(iif) = &self.iif {
            words.push(format!("iif {iif}"));
        }
        if let Some(oif) = &self.oif {
            words.push(format!("oif {oif}"));
        }
        if let Some(uids) = self.uid_range {
            words.push(format!("uidrange {}-{}", uids.start, uids.end));
        }
        if let Some(protocol) = self.ip_protocol {
            words.push(format!("ipproto {}", ip_protocol_word(protocol)));
        }
        if let Some(ports) = self.source_ports {
            words.push(format!("sport {ports}"));
        }
        if let Some(ports) = self.destination_ports {
            words.push(format!("dport {ports}"));
        }
        if let Some(id) = self.tunnel_id {
            words.push(format!("tun_id {id}"));
        }
        words.push(self.action_words());
        if let Some(length) = self.suppress_prefix_length {
            words.push(format!("suppress_prefixlength {length}"));
        }
        if let Some(group) = self.suppress_ifgroup {
            words.push(format!("suppress_ifgroup {group}"));
        }
        words.join(" ")
    }

    fn action_words(&self) -> String {
        match self.action {
            RuleAction::Lookup(_) if self.l3mdev => "l3mdev".into(),
            RuleAction::Lookup(table) => format!("lookup {}", table_word(table)),
            RuleAction::Goto(priority) => format!("goto {priority}"),
            RuleAction::Nop => "nop".into(),
            RuleAction::Blackhole => "blackhole".into(),
            RuleAction::Unreachable => "unreachable".into(),
            RuleAction::Prohibit => "prohibit".into(),
            RuleAction::Other(number) => format!("action {number}"),
        }
    }

    /// The command that adds this rule.
    #[must_use]
    pub fn add_command(&self) -> String {
        self.command("add")
    }

    /// The command that deletes exactly this rule.
    #[must_use]
    pub fn delete_command(&self) -> String {
        self.command("del")
    }

    fn command(&self, verb: &str) -> String {
        let ip = match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip -6",
        };
        let protocol = if self.protocol == 0 { String::new() } else { format!(" protocol {}", self.protocol) };
        format!("{ip} rule {verb} priority {} {}{protocol}", self.priority, self.words())
    }
}

/// As `ip rule` shows it: `220: from all lookup 220`, with the protocol where one is recorded.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.priority, self.words())?;
        if self.protocol != 0 && self.protocol != 2 {
            write!(f, " proto {}", protocol_name(self.protocol))?;
        }
        Ok(())
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { start, end } if start == end => write!(f, "{start}"),
            Self::Range { start, end } => write!(f, "{start}-{end}"),
            Self::Masked { value, mask } => write!(f, "{value:#x}/{mask:#x}"),
        }
    }
}

/// The kernel's own tables by name, others by number: `main`, `220`.
#[must_use]
pub fn table_word(table: u32) -> String {
    match table {
        TABLE_DEFAULT => "default".into(),
        TABLE_MAIN => "main".into(),
        TABLE_LOCAL => "local".into(),
        number => number.to_string(),
    }
}

/// A prefix as `ip` prints it: a host's address without a length.
#[must_use]
pub fn prefix_words(prefix: &IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() { prefix.addr().to_string() } else { prefix.to_string() }
}

fn ip_protocol_word(protocol: u8) -> String {
    match protocol {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "ipv6-icmp".into(),
        number => number.to_string(),
    }
}
