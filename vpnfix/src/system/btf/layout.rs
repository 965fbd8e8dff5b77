//! The fields of the kernel's structs that the eBPF programs read, and the offsets that this kernel gives them.

use super::{Field, FieldKind, Kind, Types};
use crate::system::bpf::Program;

/// What the eBPF side takes for "this kernel has no such field".
pub const ABSENT: u32 = u32::MAX;

/// One field that programs read.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The eBPF side's global that holds the offset.
    pub global: &'static str,
    /// Struct that it is a field of.
    pub structure: &'static str,
    /// Its path, and those that it has on other kernels.
    pub paths: &'static [&'static str],
    /// What it must hold.
    pub holds: Holds,
    /// The programs that cannot do without it. None: a detail is left out where it is absent.
    pub needed_by: &'static [Program],
}

/// What a field must hold to be the one meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A number of so many bytes.
    Number(u32),
    /// A pointer.
    Pointer,
    /// A struct, union or array of so many bytes at least.
    Bytes(u32),
}

/// A wanted field and what this kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The eBPF side's global.
    pub global: &'static str,
    /// `struct.path`, as first wanted.
    pub name: String,
    /// Its offset, or why it cannot be used.
    pub offset: Result<u32, Unusable>,
    /// The programs that cannot do without it.
    pub needed_by: &'static [Program],
}

/// Why a field cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// This kernel does not have it.
    Absent,
    /// It is there and holds something else than expected.
    OtherType(Field),
}

/// All offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    fields: Vec<Resolved>,
    /// The kernel functions and tracepoints that the programs attach to, by program: is it there?
    targets: Vec<(Program, bool)>,
    /// The kernel's reasons for dropping packets, by number; empty where it gives none (before 5.17).
    drop_reasons: Vec<(i32, String)>,
}

use Holds::{Bytes, Number, Pointer};
use Program::{Drop, Fib6Table, FibRules, FibTable, Receive, Retransmit, TcpState, Transmit};

const LOOKUPS: &[Program] = &[FibTable, FibRules, Fib6Table];
const LOOKUPS4: &[Program] = &[FibTable, FibRules];
const PACKETS: &[Program] = &[Transmit, Drop, Receive];
const SOCKETS: &[Program] = &[TcpState, Retransmit, Drop];
const ALL: &[Program] = &[FibTable, FibRules, Fib6Table, Transmit, TcpState, Retransmit, Drop, Receive];

/// What `kfree_skb` has in front of its reason: the tracepoint's own data, the packet and the place.
const BEFORE_REASON: usize = 3;
/// What the names of all reasons begin with.
const REASON_PREFIX: &str = "SKB_DROP_REASON_";

const fn wanted(
    global: &'static str,
    structure: &'static str,
    paths: &'static [&'static str],
    holds: Holds,
    needed_by: &'static [Program],
) -> Wanted {
    Wanted { global, structure, paths, holds, needed_by }
}

/// Every field, in the order of the eBPF side's `offsets.rs`. The variants were seen in the BTF of Debian's 5.10 to 7.3.
pub const WANTED: &[Wanted] = &[
    wanted("FLOWIC_OIF", "flowi_common", &["flowic_oif"], Number(4), LOOKUPS),
    wanted("FLOWIC_IIF", "flowi_common", &["flowic_iif"], Number(4), LOOKUPS),
    wanted("FLOWIC_MARK", "flowi_common", &["flowic_mark"], Number(4), &[]),
    // Renamed between 6.16 and 6.18.
    wanted("FLOWIC_TOS", "flowi_common", &["flowic_tos", "flowic_dscp"], Number(1), &[]),
    wanted("FLOWIC_PROTO", "flowi_common", &["flowic_proto"], Number(1), LOOKUPS),
    wanted("FLOWIC_UID", "flowi_common", &["flowic_uid"], Bytes(4), &[]),
    wanted("FLOWI4_SADDR", "flowi4", &["saddr"], Number(4), LOOKUPS4),
    wanted("FLOWI4_DADDR", "flowi4", &["daddr"], Number(4), LOOKUPS4),
    wanted("FLOWI4_SPORT", "flowi4", &["uli.ports.sport"], Number(2), LOOKUPS4),
    wanted("FLOWI4_DPORT", "flowi4", &["uli.ports.dport"], Number(2), LOOKUPS4),
    wanted("FLOWI6_SADDR", "flowi6", &["saddr"], Bytes(16), &[Fib6Table]),
    wanted("FLOWI6_DADDR", "flowi6", &["daddr"], Bytes(16), &[Fib6Table]),
    wanted("FLOWI6_SPORT", "flowi6", &["uli.ports.sport"], Number(2), &[Fib6Table]),
    wanted("FLOWI6_DPORT", "flowi6", &["uli.ports.dport"], Number(2), &[Fib6Table]),
    wanted("NHC_DEV", "fib_nh_common", &["nhc_dev"], Pointer, LOOKUPS),
    wanted("NHC_GW_FAMILY", "fib_nh_common", &["nhc_gw_family"], Number(1), LOOKUPS),
    wanted("NHC_GW", "fib_nh_common", &["nhc_gw"], Bytes(16), LOOKUPS),
    wanted(
        "NET_DEVICE_IFINDEX",
        "net_device",
        &["ifindex"],
        Number(4),
        &[FibTable, FibRules, Fib6Table, Transmit, Drop, Receive],
    ),
    wanted("NET_DEVICE_NET", "net_device", &["nd_net.net"], Pointer, &[FibTable, Transmit, Drop, Receive]),
    wanted("NET_INUM", "net", &["ns.inum"], Number(4), ALL),
    wanted("NET_IPV4_CUSTOM_RULES", "net", &["ipv4.fib_has_custom_rules"], Number(1), &[]),
    wanted("NET_IPV6_CUSTOM_RULES", "net", &["ipv6.fib6_has_custom_rules"], Number(1), &[]),
    wanted("NET_IPV6_NULL_ENTRY", "net", &["ipv6.fib6_null_entry"], Pointer, &[Fib6Table]),
    wanted("FIB6_RESULT_NH", "fib6_result", &["nh"], Pointer, &[Fib6Table]),
    wanted("FIB6_RESULT_F6I", "fib6_result", &["f6i"], Pointer, &[Fib6Table]),
    wanted("FIB6_RESULT_TYPE", "fib6_result", &["fib6_type"], Number(1), &[Fib6Table]),
    wanted("FIB6_TABLE_ID", "fib6_table", &["tb6_id"], Number(4), &[Fib6Table]),
    wanted("FIB_RESULT_PREFIXLEN", "fib_result", &["prefixlen"], Number(1), &[FibRules]),
    wanted("FIB_RESULT_NHC", "fib_result", &["nhc"], Pointer, &[FibRules]),
    wanted("FIB_RESULT_TABLE", "fib_result", &["table"], Pointer, &[FibRules]),
    wanted("FIB_TABLE_ID", "fib_table", &["tb_id"], Number(4), &[FibRules]),
    wanted("SKB_HEAD", "sk_buff", &["head"], Pointer, PACKETS),
    wanted("SKB_DATA", "sk_buff", &["data"], Pointer, &[Transmit]),
    wanted("SKB_NETWORK_HEADER", "sk_buff", &["network_header"], Number(2), PACKETS),
    wanted("SKB_PROTOCOL", "sk_buff", &["protocol"], Number(2), PACKETS),
    wanted("SKB_LEN", "sk_buff", &["len"], Number(4), PACKETS),
    wanted("SKB_DATA_LEN", "sk_buff", &["data_len"], Number(4), &[]),
    wanted("SKB_SK", "sk_buff", &["sk"], Pointer, &[Transmit, Drop]),
    wanted("SKB_DEV", "sk_buff", &["dev"], Pointer, &[Drop, Receive]),
    wanted("SKC_FAMILY", "sock_common", &["skc_family"], Number(2), SOCKETS),
    wanted("SKC_BOUND_DEV_IF", "sock_common", &["skc_bound_dev_if"], Number(4), &[Transmit]),
    wanted("SKC_NUM", "sock_common", &["skc_num"], Number(2), SOCKETS),
    wanted("SKC_DPORT", "sock_common", &["skc_dport"], Number(2), SOCKETS),
    wanted("SKC_DADDR", "sock_common", &["skc_daddr"], Number(4), SOCKETS),
    wanted("SKC_RCV_SADDR", "sock_common", &["skc_rcv_saddr"], Number(4), SOCKETS),
    wanted("SKC_V6_DADDR", "sock_common", &["skc_v6_daddr"], Bytes(16), SOCKETS),
    wanted("SKC_V6_RCV_SADDR", "sock_common", &["skc_v6_rcv_saddr"], Bytes(16), SOCKETS),
    wanted("SKC_NET", "sock_common", &["skc_net.net"], Pointer, SOCKETS),
    wanted("SK_PROTOCOL", "sock", &["sk_protocol"], Number(2), SOCKETS),
];

/// Fields that must lie at the very start: the programs take the one struct's pointer for the other's.
const AT_START: &[(&str, &str, &[Program])] = &[
    ("flowi4", "__fl_common", LOOKUPS4),
    ("flowi6", "__fl_common", &[Fib6Table]),
    ("fib6_nh", "nh_common", &[Fib6Table]),
    ("sock", "__sk_common", &[Transmit, TcpState, Retransmit, Drop]),
];

impl Layout {
    /// Looks up every wanted field.
    #[must_use]
    pub fn resolve(types: &Types<'_>) -> Self {
        let structures = WANTED.iter().map(|wanted| wanted.structure).chain(AT_START.iter().map(|(name, ..)| *name));
        let targets: Vec<(Kind, String)> = ALL.iter().map(|program| program.target()).collect();
        let names: Vec<(Kind, &str)> = structures
            .map(|name| (Kind::Struct, name))
            .chain(targets.iter().map(|(kind, name)| (*kind, name.as_str())))
            .chain([(Kind::Enum, "skb_drop_reason")])
            .collect();
        let found = types.find(&names);
        let (fields, rest) = found.split_at(WANTED.len());
        let (at_start, rest) = rest.split_at(AT_START.len());
        let (targets, reasons) = rest.split_at(ALL.len());
        let mut resolved: Vec<Resolved> =
            WANTED.iter().zip(fields).map(|(wanted, id)| resolve_one(types, wanted, *id)).collect();
        resolved.extend(AT_START.iter().zip(at_start).map(|((structure, path, needed_by), id)| {
            let field = id.and_then(|id| types.field(id, path));
            let offset = match field {
                Some(field) if field.offset == 0 => Ok(0),
                Some(field) => Err(Unusable::OtherType(field)),
                None => Err(Unusable::Absent),
            };
            Resolved { global: "", name: format!("{structure}.{path}"), offset, needed_by }
        }));
        let drops = ALL.iter().zip(targets).find(|(program, _)| **program == Drop).and_then(|(_, id)| *id);
        let gives_reason =
            drops.and_then(|id| types.parameters(id)).is_some_and(|parameters| parameters > BEFORE_REASON);
        let enumeration = reasons.first().copied().flatten().filter(|_| gives_reason);
        let drop_reasons = enumeration.map_or_else(Vec::new, |id| drop_reasons(types, id));
        let targets = ALL.iter().zip(targets).map(|(program, id)| (*program, id.is_some())).collect();
        Self { fields: resolved, targets, drop_reasons }
    }

    /// Every field, with what this kernel has.
    #[must_use]
    pub fn fields(&self) -> &[Resolved] {
        &self.fields
    }

    /// The globals to set and their values.
    pub fn globals(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let named = self.fields.iter().filter(|field| !field.global.is_empty());
        named.map(|field| (field.global, *field.offset.as_ref().unwrap_or(&ABSENT)))
    }

    /// Names of the fields that a program needs and this kernel does not have.
    #[must_use]
    pub fn lacking(&self, program: Program) -> Vec<&str> {
        let needed = self.fields.iter().filter(|field| field.needed_by.contains(&program));
        needed.filter(|field| field.offset.is_err()).map(|field| field.name.as_str()).collect()
    }

    /// The kernel's names of its reasons for dropping packets, without the prefix that all have; empty where it gives none.
    #[must_use]
    pub fn drop_reasons(&self) -> &[(i32, String)] {
        &self.drop_reasons
    }

    /// Does this kernel have what a program attaches to?
    #[must_use]
    pub fn has_target(&self, program: Program) -> bool {
        self.targets.iter().any(|(target, there)| *target == program && *there)
    }
}

fn drop_reasons(types: &Types<'_>, id: u32) -> Vec<(i32, String)> {
    let names = types.enumerators(id).into_iter();
    names.map(|(name, value)| (value, name.strip_prefix(REASON_PREFIX).unwrap_or(&name).to_owned())).collect()
}

fn resolve_one(types: &Types<'_>, wanted: &Wanted, id: Option<u32>) -> Resolved {
    let field = id.and_then(|id| wanted.paths.iter().find_map(|path| types.field(id, path)));
    let offset = match field {
        None => Err(Unusable::Absent),
        Some(field) if fits(wanted.holds, field) => Ok(field.offset),
        Some(field) => Err(Unusable::OtherType(field)),
    };
    let name = format!("{}.{}", wanted.structure, wanted.paths.first().copied().unwrap_or_default());
    Resolved { global: wanted.global, name, offset, needed_by: wanted.needed_by }
}

fn fits(holds: Holds, field: Field) -> bool {
    match holds {
        Pointer => field.kind == FieldKind::Pointer,
        Number(size) => field.kind == FieldKind::Number && field.size == size,
        Bytes(size) => matches!(field.kind, FieldKind::Composite | FieldKind::Array) && field.size >= size,
    }
}

#[cfg(test)]
mod tests;
