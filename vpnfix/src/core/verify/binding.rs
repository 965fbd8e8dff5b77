//! How a tunnel interface finds its policies and SAs: a VTI by the marks that its keys put on packets (`vti_xmit`,
//! `vti_rcv_cb` in `net/ipv4/ip_vti.c`), an XFRM interface by its id (`xfrmi_xmit2` in `net/xfrm/xfrm_interface_core.c`).

use std::net::IpAddr;

use crate::core::model::{Direction, Link, LinkKind, Mark, Policy, SecurityAssociation, Template};

/// What an interface finds its policies and SAs by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// A VTI.
    Keys {
        /// Marks what comes in.
        input: u32,
        /// Marks what leaves.
        output: u32,
        /// Outer source address; `None` for any.
        local: Option<IpAddr>,
        /// Outer destination address; `None` for any.
        remote: Option<IpAddr>,
    },
    /// An XFRM interface.
    IfId(u32),
}

impl Binding {
    /// Of a link; none for one that has nothing to do with IPsec by itself.
    pub(super) fn of(link: &Link) -> Option<Self> {
        let given = |address: Option<IpAddr>| address.filter(|address| !address.is_unspecified());
        match link.kind {
            LinkKind::Vti { local, remote, input_key, output_key, .. } => {
                Some(Self::Keys { input: input_key, output: output_key, local: given(local), remote: given(remote) })
            }
            LinkKind::Xfrm { if_id } => Some(Self::IfId(if_id)),
            _ => None,
        }
    }

    /// The mark that a packet of this direction bears.
    fn mark(self, direction: Direction) -> u32 {
        match (self, direction) {
            (Self::Keys { output, .. }, Direction::Out) => output,
            (Self::Keys { input, .. }, Direction::In | Direction::Forward) => input,
            (Self::IfId(_), _) => 0,
        }
    }

    fn if_id(self) -> u32 {
        match self {
            Self::Keys { .. } => 0,
            Self::IfId(if_id) => if_id,
        }
    }

    /// Does a packet of this tunnel find this policy, as far as mark and id decide (`xfrm_policy_match`)?
    pub(super) fn finds(self, policy: &Policy) -> bool {
        // A packet in an XFRM interface keeps whatever mark it has, which is none as a rule.
        bears(self.mark(policy.direction), policy.mark) && policy.if_id == self.if_id()
    }

    /// Does a packet of this tunnel find this SA (`xfrm_state_find`, `xfrm_state_lookup`)? An inbound SA is looked up with the
    /// mark of the VTI that the packet's addresses belong to.
    pub(super) fn finds_association(self, association: &SecurityAssociation, direction: Direction) -> bool {
        bears(self.mark(direction), association.mark) && association.if_id == self.if_id()
    }

    /// What the interface has, in words.
    pub(super) fn words(self, direction: Direction) -> String {
        match self {
            Self::Keys { .. } => format!("key {}", self.mark(direction)),
            Self::IfId(if_id) => format!("if_id {if_id}"),
        }
    }

    /// Do a template's outer addresses fit those of the interface (`vti_state_check`)? An XFRM interface has none.
    pub(super) fn fits(self, template: &Template, direction: Direction) -> bool {
        let Self::Keys { local, remote, .. } = self else { return true };
        let (near, far) = ends(template, direction);
        let fits = |own: Option<IpAddr>, other: IpAddr| own.is_none_or(|own| own == other);
        // A wildcard in the template is filled in from the packet's SA; then only that one tells.
        (near.is_unspecified() || fits(local, near)) && (far.is_unspecified() || fits(remote, far))
    }
}

/// `(mark & mask) == value`; no mark is a mask of 0, and matches everything.
fn bears(mark: u32, wanted: Option<Mark>) -> bool {
    wanted.is_none_or(|wanted| mark & wanted.mask == wanted.value)
}

/// The outer address here, and that of the peer.
pub(super) fn ends(template: &Template, direction: Direction) -> (IpAddr, IpAddr) {
    match direction {
        Direction::Out => (template.source, template.destination),
        Direction::In | Direction::Forward => (template.destination, template.source),
    }
}

/// Is this an SA that the template asks for (`xfrm_state_ok`, `__xfrm_policy_lookup` with `xfrm_tmpl_resolve`)?
pub(super) fn serves(association: &SecurityAssociation, template: &Template) -> bool {
    let same = |wanted: IpAddr, is: IpAddr| wanted.is_unspecified() || wanted == is;
    same(template.source, association.source)
        && same(template.destination, association.destination)
        && template.protocol == association.protocol
        && (template.reqid == 0 || template.reqid == association.reqid)
}

/// A mark as `ip xfrm` shows it.
pub(super) fn mark_words(mark: Option<Mark>) -> String {
    match mark {
        Some(mark) => format!("mark {:#x}/{:#x}", mark.value, mark.mask),
        None => "no mark".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_compared_under_its_mask() {
        let mark = |value, mask| Some(Mark { value, mask });
        assert!(bears(100, mark(100, u32::MAX)) && !bears(101, mark(100, u32::MAX)));
        assert!(bears(0x1234, mark(0x34, 0xff)) && !bears(0x1235, mark(0x34, 0xff)));
        assert!(bears(7, None) && bears(0, None));
        // A value outside of its mask can never be met.
        assert!(!bears(0x134, mark(0x134, 0xff)));
    }
}
