//! Selectors that come as a value and a mask, in attributes of their own: DSCP, flow label, and the masks of ports.

use netlink_packet_core::{DefaultNla, NlaBuffer};
use netlink_packet_route::rule::RuleAttribute;

use crate::core::model::{Dscp, FlowLabel, Ports, Rule};

/// Since Linux 6.13.
const FRA_DSCP: u16 = 25;
/// Both since Linux 6.14, in network byte order, and always together.
const FRA_FLOWLABEL: u16 = 26;
const FRA_FLOWLABEL_MASK: u16 = 27;
/// Both since Linux 6.15. An exact port then has a full mask, a range has none.
const FRA_SPORT_MASK: u16 = 28;
const FRA_DPORT_MASK: u16 = 29;
/// Since Linux 6.15; before, all bits count.
const FRA_DSCP_MASK: u16 = 30;

const ALL_OF_DSCP: u8 = 0x3f;

/// What of these attributes a message had.
#[derive(Default)]
pub(super) struct Masked {
    dscp: Option<u8>,
    dscp_mask: Option<u8>,
    flow_label: Option<u32>,
    flow_label_mask: Option<u32>,
    source_port_mask: Option<u16>,
    destination_port_mask: Option<u16>,
}

impl Masked {
    /// Takes in an attribute. Says whether it could be read.
    pub(super) fn take(&mut self, attribute: &NlaBuffer<&[u8]>) -> bool {
        let value = attribute.value();
        match (attribute.kind(), value) {
            (FRA_DSCP, &[dscp]) => self.dscp = Some(dscp),
            (FRA_DSCP_MASK, &[mask]) => self.dscp_mask = Some(mask),
            (FRA_FLOWLABEL, &[a, b, c, d]) => self.flow_label = Some(u32::from_be_bytes([a, b, c, d])),
            (FRA_FLOWLABEL_MASK, &[a, b, c, d]) => self.flow_label_mask = Some(u32::from_be_bytes([a, b, c, d])),
            (FRA_SPORT_MASK, &[a, b]) => self.source_port_mask = Some(u16::from_ne_bytes([a, b])),
            (FRA_DPORT_MASK, &[a, b]) => self.destination_port_mask = Some(u16::from_ne_bytes([a, b])),
            _ => return false,
        }
        true
    }

    /// Enters them into the rule. A mask without its value makes the rule one that cannot be judged.
    pub(super) fn enter(self, rule: &mut Rule) {
        match (self.dscp, self.dscp_mask) {
            (Some(value), mask) => rule.dscp = Some(Dscp { value, mask: mask.unwrap_or(ALL_OF_DSCP) }),
            (None, Some(_)) => rule.unknown_attributes.push(FRA_DSCP_MASK),
            (None, None) => {}
        }
        match (self.flow_label, self.flow_label_mask) {
            (Some(value), Some(mask)) => rule.flow_label = Some(FlowLabel { value, mask }),
            (Some(_), None) => rule.unknown_attributes.push(FRA_FLOWLABEL),
            (None, Some(_)) => rule.unknown_attributes.push(FRA_FLOWLABEL_MASK),
            (None, None) => {}
        }
        let masks = [
            (self.source_port_mask, &mut rule.source_ports, FRA_SPORT_MASK),
            (self.destination_port_mask, &mut rule.destination_ports, FRA_DPORT_MASK),
        ];
        for (mask, ports, number) in masks {
            match (mask, *ports) {
                (None | Some(u16::MAX), _) => {}
                (Some(mask), Some(Ports::Range { start, end })) if start == end => {
                    *ports = Some(Ports::Masked { value: start, mask });
                }
                (Some(_), _) => rule.unknown_attributes.push(number),
            }
        }
    }
}

/// The rule's selectors of this kind as attributes. Masks that are full go unsaid: older kernels do not know them.
pub(super) fn attributes(rule: &Rule) -> Vec<RuleAttribute> {
    let mut list = Vec::new();
    let mut put = |number: u16, value: Vec<u8>| list.push(RuleAttribute::Other(DefaultNla::new(number, value)));
    if let Some(dscp) = rule.dscp {
        put(FRA_DSCP, vec![dscp.value]);
        if dscp.mask != ALL_OF_DSCP {
            put(FRA_DSCP_MASK, vec![dscp.mask]);
        }
    }
    if let Some(label) = rule.flow_label {
        put(FRA_FLOWLABEL, label.value.to_be_bytes().to_vec());
        put(FRA_FLOWLABEL_MASK, label.mask.to_be_bytes().to_vec());
    }
    for (ports, number) in [(rule.source_ports, FRA_SPORT_MASK), (rule.destination_ports, FRA_DPORT_MASK)] {
        if let Some(Ports::Masked { mask, .. }) = ports {
            put(number, mask.to_ne_bytes().to_vec());
        }
    }
    list
}

/// Does a rule's DSCP fit what a delete request asks for? A full mask is not sent, so any mask fits.
pub(super) fn dscp_fits(request: Option<Dscp>, candidate: Option<Dscp>) -> bool {
    match (request, candidate) {
        (None, _) => true,
        (Some(asked), Some(has)) => asked.value == has.value && (asked.mask == ALL_OF_DSCP || asked.mask == has.mask),
        (Some(_), None) => false,
    }
}
