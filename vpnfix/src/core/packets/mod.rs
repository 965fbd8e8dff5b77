//! The headers of the packets that went the wrong way, and of the first that went right: for those who believe packets alone.

mod cut;

use super::live::Standing;
use super::model::HostFacts;
use super::observation::{HeadersSeen, Totals};
use super::report::VERSION;
use super::story::names;
use super::telling::Telling;

pub use cut::LinkType;

/// Packets of a device that are kept: so many that went wrong.
pub const WRONG_MAX: u64 = 200;
/// And so many that went right.
pub const RIGHT_MAX: u64 = 20;
/// Most devices that packets are kept of.
const DEVICES_MAX: usize = 256;

/// Packets of the judged namespace, and how many there were of each kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packets {
    /// The host.
    pub host: HostFacts,
    /// Version of vpnfix.
    pub vpnfix: String,
    /// The devices that packets were handed to.
    pub devices: Vec<Device>,
    /// What is kept, in the order of time.
    pub packets: Vec<Packet>,
    /// Headers that were lost on their way from the kernel; their packets are counted all the same.
    pub lost: u64,
}

/// A device that packets were handed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index in the namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// The kernel's name of its kind (`vti`, `veth` …).
    pub kind: String,
    /// What its packets begin with.
    pub link_type: LinkType,
    /// Packets that belonged into another device.
    pub wrong: Share,
    /// Packets that belonged into it.
    pub right: Share,
}

/// How many packets there were, and of how many the headers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// All, as the kernel side counted them.
    pub counted: u64,
    /// Kept.
    pub kept: u64,
}

impl Share {
    /// How many are not kept.
    #[must_use]
    pub fn left_out(self) -> u64 {
        self.counted.saturating_sub(self.kept)
    }
}

/// One packet's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Index in [`Packets::devices`].
    pub device: usize,
    /// Nanoseconds since 1970.
    pub unix_ns: u64,
    /// It belonged into another device.
    pub is_wrong: bool,
    /// Bytes of the whole packet, with the link's header where that is kept.
    pub length: u32,
    /// The headers, from the link's on where the device has one that is kept; no payload.
    pub bytes: Vec<u8>,
    /// What is wrong or right with it, and why.
    pub comment: String,
}

impl Packets {
    /// None yet.
    #[must_use]
    pub fn new(host: HostFacts) -> Self {
        Self { host, vpnfix: VERSION.into(), devices: Vec::new(), packets: Vec::new(), lost: 0 }
    }

    /// Takes the headers of a packet, if it is one of the first that went wrong or right on its device. Those of other
    /// namespaces, and of flows that are bound to a device, are neither.
    pub fn take(&mut self, seen: &HeadersSeen, telling: &mut Telling) {
        let view = telling.basis().view(telling.setup().knows_outcomes);
        let is_wrong = match view.packet(&seen.key) {
            Standing::Wrong => true,
            Standing::Right => false,
            _ => return,
        };
        let Some(index) = self.device(seen.key.ifindex, Some(LinkType::of(seen.link_length)), telling) else { return };
        let Some(device) = self.devices.get_mut(index) else { return };
        let (share, most) = if is_wrong { (&mut device.wrong, WRONG_MAX) } else { (&mut device.right, RIGHT_MAX) };
        if share.kept >= most {
            return;
        }
        share.kept += 1;
        let link_length = device.link_type.kept(seen.link_length);
        let unix_ns = telling.setup().clock.unix_ns(seen.time_ns);
        self.packets.push(Packet {
            device: index,
            unix_ns: u64::try_from(unix_ns).unwrap_or(0),
            is_wrong,
            length: seen.length.saturating_add(u32::try_from(link_length).unwrap_or(0)),
            bytes: cut::headers(device.link_type, seen),
            comment: comment(seen, is_wrong, &device.name.clone(), telling),
        });
    }

    /// Enters how many there were altogether, and brings the packets into the order of time.
    pub fn finish(&mut self, totals: &Totals, lost: u64, telling: &Telling) {
        self.lost = lost;
        let view = telling.basis().view(telling.setup().knows_outcomes);
        for (key, tally) in &totals.packets {
            let standing = view.packet(key);
            if !matches!(standing, Standing::Wrong | Standing::Right) {
                continue;
            }
            let Some(index) = self.device(key.ifindex, None, telling) else { continue };
            let Some(device) = self.devices.get_mut(index) else { continue };
            let share = if standing == Standing::Wrong { &mut device.wrong } else { &mut device.right };
            share.counted += tally.count;
        }
        self.packets.sort_by_key(|packet| packet.unix_ns);
    }

    /// The place of a device; a new one where its packets begin otherwise than those before.
    fn device(&mut self, ifindex: u32, link_type: Option<LinkType>, telling: &Telling) -> Option<usize> {
        let is_same = |device: &Device| {
            device.ifindex == ifindex && link_type.is_none_or(|link_type| device.link_type == link_type)
        };
        if let Some(index) = self.devices.iter().position(is_same) {
            return Some(index);
        }
        if self.devices.len() >= DEVICES_MAX {
            return None;
        }
        let snapshot = &telling.basis().snapshot;
        self.devices.push(Device {
            ifindex,
            name: snapshot.device_name(ifindex),
            kind: snapshot.link(ifindex).map_or_else(|| "gone".into(), |link| link.kind.name().to_owned()),
            link_type: link_type.unwrap_or(LinkType::Raw),
            wrong: Share::default(),
            right: Share::default(),
        });
        Some(self.devices.len() - 1)
    }
}

/// What a packet's comment says: where it belonged, where it went, and by which rule.
fn comment(seen: &HeadersSeen, is_wrong: bool, device: &str, telling: &mut Telling) -> String {
    let why = telling.why(seen.key.watch, seen.key.ifindex);
    let view = telling.basis().view(telling.setup().knows_outcomes);
    let Some(watch) = view.watches.get(seen.key.watch as usize) else { return String::new() };
    let tunnels = names(&view, &watch.tunnels).join(", ");
    let mut words = if is_wrong {
        format!("misrouted: {} belongs into {tunnels}, handed to {device}", watch.prefix)
    } else {
        format!("right: {} belongs into {tunnels}", watch.prefix)
    };
    if let Some(why) = why {
        words.push_str(&format!("; table {}", why.table));
        if let Some(rule) = why.rule {
            words.push_str(&format!(" by rule `{rule}`"));
        }
        if let Some(owner) = why.owner {
            words.push_str(&format!(" of {owner}"));
        }
    }
    if seen.key.marks.bgp {
        words.push_str("; BGP");
    }
    if seen.key.marks.probe {
        words.push_str("; vpnfix's own probe");
    }
    words
}

#[cfg(test)]
mod tests;
