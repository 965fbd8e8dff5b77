//! Settings of devices that bear on routing (`RTM_GETNETCONF`; `include/uapi/linux/netconf.h`, `net/ipv4/devinet.c`,
//! `net/ipv6/addrconf.c`).

use std::collections::HashMap;

use netlink_packet_core::NlasIterator;

use super::attribute::number;
use super::channel::{Decoded, Malformed};
use crate::core::model::{DeviceSettings, Family, Link};

pub(super) const RTM_NEWNETCONF: u16 = 80;
pub(super) const RTM_GETNETCONF: u16 = 82;

/// `struct netconfmsg` is the family alone; attributes begin at the next multiple of four.
pub(super) const HEADER_BYTES: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
const NETCONFA_IGNORE_ROUTES_WITH_LINKDOWN: u16 = 6;
/// Stands for all devices together (`NETCONFA_IFINDEX_ALL`, -1).
const ALL: u32 = u32::MAX;

/// What one family says of one device, or of all together, as it was set. What the family does not have is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    ifindex: u32,
    forwarding: u32,
    rp_filter: u32,
    ignore_linkdown: u32,
}

/// The settings of one device; none of a message that names no device.
pub(super) fn settings(payload: &[u8]) -> Decoded<Settings> {
    let Some(attributes) = payload.get(HEADER_BYTES..) else {
        return Err(Malformed(format!("settings of {} bytes", payload.len())));
    };
    let mut settings = Settings::default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            NETCONFA_IFINDEX => settings.ifindex = number(value, "NETCONFA_IFINDEX")?,
            NETCONFA_FORWARDING => settings.forwarding = number(value, "NETCONFA_FORWARDING")?,
            NETCONFA_RP_FILTER => settings.rp_filter = number(value, "NETCONFA_RP_FILTER")?,
            NETCONFA_IGNORE_ROUTES_WITH_LINKDOWN => {
                settings.ignore_linkdown = number(value, "NETCONFA_IGNORE_ROUTES_WITH_LINKDOWN")?;
            }
            _ => {}
        }
    }
    Ok(Some(settings).filter(|settings| settings.ifindex != 0))
}

/// Enters a family's settings into the links, as they take effect (`include/linux/inetdevice.h`: `IN_DEV_RPFILTER` is a
/// maximum, `IN_DEV_IGNORE_ROUTES_WITH_LINKDOWN` an or, `IN_DEV_FORWARD` the device's own; `include/net/addrconf.h`,
/// `ip6_ignore_linkdown`: the device's own).
pub(super) fn enter(links: &mut [Link], family: Family, settings: &[Settings]) {
    let by_index: HashMap<u32, &Settings> = settings.iter().map(|settings| (settings.ifindex, settings)).collect();
    let all = by_index.get(&ALL).copied().copied().unwrap_or_default();
    for link in links {
        let Some(own) = by_index.get(&link.index) else { continue };
        match family {
            Family::V4 => {
                link.settings = DeviceSettings {
                    // The kernel takes any number; what is more than 1 is loose (`__fib_validate_source`).
                    rp_filter: u8::try_from(own.rp_filter.max(all.rp_filter)).unwrap_or(u8::MAX),
                    forwarding: own.forwarding != 0,
                    ignores_linkdown: own.ignore_linkdown != 0 || all.ignore_linkdown != 0,
                    ..link.settings
                };
            }
            Family::V6 => link.settings.ignores_linkdown_v6 = own.ignore_linkdown != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::link;
    use crate::core::model::LinkKind;

    fn message(values: &[(u16, i32)]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        for (number, value) in values {
            bytes.extend_from_slice(&[8, 0]);
            bytes.extend_from_slice(&number.to_ne_bytes());
            bytes.extend_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    fn decoded(values: &[(u16, i32)]) -> Settings {
        settings(&message(values)).unwrap().unwrap()
    }

    #[test]
    fn what_takes_effect_is_of_the_device_and_of_all() {
        let all = decoded(&[(1, -1), (2, 1), (3, 2), (6, 0)]);
        let one = decoded(&[(1, 7), (2, 0), (3, 1), (6, 1), (9, 5)]);
        let default = decoded(&[(1, -2), (2, 1), (3, 9), (6, 1)]);
        let mut links = [link(7, "ens5", LinkKind::Plain), link(8, "ens6", LinkKind::Plain)];
        enter(&mut links, Family::V4, &[all, default, one]);
        let expected =
            DeviceSettings { rp_filter: 2, forwarding: false, ignores_linkdown: true, ignores_linkdown_v6: false };
        assert_eq!(links[0].settings, expected);
        assert_eq!(links[1].settings, DeviceSettings::default());
    }

    #[test]
    fn all_devices_together_ignore_dead_carriers_in_ipv4_alone() {
        let (all, one) = (decoded(&[(1, -1), (6, 1)]), decoded(&[(1, 7), (6, 0)]));
        let mut links = [link(7, "ens5", LinkKind::Plain)];
        enter(&mut links, Family::V6, &[all, one]);
        assert_eq!(links[0].settings, DeviceSettings::default());
        enter(&mut links, Family::V4, &[all, one]);
        assert!(links[0].settings.ignores_linkdown && !links[0].settings.ignores_linkdown_v6);
    }

    #[test]
    fn cut_messages_are_errors_or_less_but_no_panic() {
        let bytes = message(&[(1, 7), (3, 1)]);
        for length in 0..bytes.len() {
            let _either = settings(&bytes[..length]);
        }
        assert!(settings(&[2]).is_err());
        assert_eq!(settings(&message(&[])).unwrap(), None);
        assert!(settings(&[2, 0, 0, 0, 6, 0, 1, 0, 7, 0, 0, 0]).is_err());
    }
}
