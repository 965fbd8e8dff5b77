//! Which security association encrypts what a tunnel device takes.

use std::net::IpAddr;

use super::super::model::{LinkKind, SaDirection, SecurityAssociation, Snapshot};
use super::super::report::flow::Encryption;

/// ESP's IP protocol number.
const ESP: u8 = 50;

/// The host's security associations now and when the trace began.
#[derive(Clone, Copy, Debug)]
pub struct Associations<'a> {
    /// Now; none where they cannot be read.
    pub now: Option<&'a [SecurityAssociation]>,
    /// When the trace began.
    pub before: &'a [SecurityAssociation],
}

/// What encrypts what this device takes: a VTI's association has its addresses and a mark that its key fits, an XFRM
/// interface's has its id. None for devices without IPsec, and where the associations are not known.
pub(super) fn of_device(snapshot: &Snapshot, associations: &Associations<'_>, ifindex: u32) -> Option<Encryption> {
    let now = associations.now?;
    let kind = &snapshot.link(ifindex)?.kind;
    let is_own = |address: IpAddr| snapshot.addresses.iter().any(|own| own.local == address);
    let fits = |association: &&SecurityAssociation| match kind {
        LinkKind::Vti { remote, output_key, .. } => {
            let marked = association.mark.is_none_or(|mark| output_key & mark.mask == mark.value);
            marked && Some(association.destination) == *remote
        }
        LinkKind::Xfrm { if_id } => association.if_id == *if_id && is_own(association.source),
        _ => false,
    };
    if !matches!(kind, LinkKind::Vti { .. } | LinkKind::Xfrm { .. }) {
        return None;
    }
    let usable = now.iter().filter(|association| {
        association.protocol == ESP && association.direction != Some(SaDirection::In) && fits(association)
    });
    // While keys are renewed there are two; the latest is the one used.
    let Some(found) = usable.max_by_key(|association| (association.usage.added, association.usage.packets)) else {
        return Some(Encryption::None);
    };
    let same = |other: &&SecurityAssociation| other.spi == found.spi && other.destination == found.destination;
    let before = associations.before.iter().find(same).map(|before| before.usage).unwrap_or_default();
    Some(Encryption::By {
        spi: found.spi,
        source: found.source,
        destination: found.destination,
        packets: found.usage.packets.saturating_sub(before.packets),
        bytes: found.usage.bytes.saturating_sub(before.bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::{ENS5, VTI1, association, gateway};
    use crate::core::model::Mark;

    fn of_vti(associations: &[SecurityAssociation]) -> Option<Encryption> {
        of_device(&gateway(), &Associations { now: Some(associations), before: &[] }, VTI1)
    }

    #[test]
    fn a_vti_uses_the_association_that_its_key_fits() {
        let plain = association(0, "192.168.12.49", "203.0.113.10");
        let marked =
            |value, spi| SecurityAssociation { mark: Some(Mark { value, mask: u32::MAX }), spi, ..plain.clone() };
        let Some(Encryption::By { spi, .. }) = of_vti(&[marked(2, 7), marked(1, 8)]) else { panic!("none") };
        assert_eq!(spi, 8);
        assert_eq!(of_vti(&[marked(2, 7)]), Some(Encryption::None));
        assert_eq!(of_vti(&[association(0, "203.0.113.10", "192.168.12.49")]), Some(Encryption::None));
    }

    #[test]
    fn counts_are_those_since_the_trace_began() {
        let before = association(0, "192.168.12.49", "203.0.113.10");
        let mut now = before.clone();
        (now.usage.packets, now.usage.bytes) = (5, 420);
        let associations = Associations { now: Some(&[now]), before: &[before] };
        let Some(Encryption::By { packets, bytes, .. }) = of_device(&gateway(), &associations, VTI1) else {
            panic!("none")
        };
        assert_eq!((packets, bytes), (5, 420));
    }

    #[test]
    fn other_devices_and_unknown_associations_tell_nothing() {
        assert_eq!(of_device(&gateway(), &Associations { now: Some(&[]), before: &[] }, ENS5), None);
        assert_eq!(of_device(&gateway(), &Associations { now: None, before: &[] }, VTI1), None);
    }
}
