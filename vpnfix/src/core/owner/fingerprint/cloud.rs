//! Cloud tools that route what secondary network interfaces send: amazon-ec2-net-utils and cloud-init.

use super::{Candidate, Kind, Program, Route, Rule, Seen};
use crate::core::model::Link;
use crate::core::owner::seen::is_only_from;

/// amazon-ec2-net-utils counts tables and priorities alike from here: 100 a network card, 1 a device (`lib.sh`:
/// `rule_base`). No instance has more than a few cards with a few dozen devices.
const EC2_NUMBERS: std::ops::Range<u32> = 10_000..12_000;
/// cloud-init's tables are 100 and the interface's number (`DataSourceEc2.convert_ec2_metadata_network_config`).
const CLOUD_INIT_TABLES: std::ops::Range<u32> = 101..132;

/// `10001: from ADDRESS lookup 10001`, in networkd's drop-in files.
pub(super) fn ec2_net_utils_rule(_: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let table = rule.table().filter(|table| EC2_NUMBERS.contains(table) && *table == rule.priority)?;
    let shape = "the rule is for what one address or prefix sends, as it makes one for each of an interface";
    Some(
        Candidate::of(Program::Ec2NetUtils)
            .with(Kind::Number, format!("priority and table are {table}, in the range that it counts from 10000"))
            .with_if(is_only_from(rule), Kind::Shape, shape),
    )
}

pub(super) fn ec2_net_utils_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    super::by_rule(seen, route, Program::Ec2NetUtils, ec2_net_utils_rule)
}

/// `from ADDRESS lookup 101`, without a priority: the kernel puts it before the first rule that is not its own.
pub(super) fn cloud_init_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let table = rule.table().filter(|table| CLOUD_INIT_TABLES.contains(table) && is_only_from(rule))?;
    let from = rule.from?;
    let holder = seen.snapshot.addresses.iter().find(|address| from.contains(&address.local))?;
    let by_holder = |link: &Link| link.index == holder.ifindex;
    let number = format!("table {table} is in the range that cloud-init counts from 101");
    let shape = "the rule sends what an interface's own address sends out by that interface";
    let candidate = Candidate::of(Program::CloudInit).with(Kind::Number, number);
    Some(candidate.with_if(seen.table_device(table, by_holder).is_some(), Kind::Shape, shape))
}

pub(super) fn cloud_init_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    super::by_rule(seen, route, Program::CloudInit, cloud_init_rule)
}
