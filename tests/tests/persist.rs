//! What `persist` writes and runs, on a host of its own: namespaces in which this host's first process, its /etc and its /run
//! are the scene's, with managers that are known by what they leave there. The real managers are played by
//! `tests/systemd/run.sh`.

use std::process::Command;

use vpnfix_tests::command::binary;
use vpnfix_tests::need_root;
use vpnfix_tests::scene::Scene;

/// The incident with a veth pair in the tunnel's place, and the managers' signs. `$vpnfix` runs vpnfix; a command that fails
/// ends the scene.
const HOST: &str = r#"
set -eu
for folder in /etc /run /var/lib; do mount -t tmpfs -o mode=755 scene $folder; done
mkdir -p /run/bin /run/systemd/system /run/systemd/units /run/systemd/netif/links /etc/systemd/network
printf '#!/bin/sh\n[ "$1" = --version ] && echo "systemd 252 (252.1)"\necho "systemctl $*" >> /run/log\n' > /run/bin/systemctl
printf '#!/bin/sh\n[ "$1" = -t ] && cat /run/active || echo "nmcli $*" >> /run/log\n' > /run/bin/nmcli
chmod +x /run/bin/*
PATH=/run/bin:$PATH
ip -b - <<'END'
link set lo up
link add ens5 type veth peer name lan
link add vti1 type veth peer name far1
link set far1 up
link set lan up
link set ens5 up
link set vti1 arp off up
addr add 192.168.12.49/24 dev ens5
addr add 169.254.55.54/30 dev vti1
route add default via 192.168.12.1 dev ens5
route add default via 192.168.12.1 dev ens5 proto static table 220
rule add from all lookup 220 priority 220
rule add to 169.254.55.52/30 lookup main priority 100 protocol 118
END
vpnfix="$VPNFIX_BIN --tunnel vti1"
networkd() {
	ln -s x /run/systemd/units/invocation:systemd-networkd.service
	echo NETWORK_FILE=/run/systemd/network/10-ens5.network > /run/systemd/netif/links/$(cat /sys/class/net/ens5/ifindex)
}
network_manager() {
	ln -s x /run/systemd/units/invocation:NetworkManager.service
	printf '0a5b:ens5:%s:up\\: link\n' "$1" > /run/active
}
ends() { local status=0; wanted=$1; shift; "$@" > /run/said 2>&1 || status=$?; [ $status = $wanted ] || { cat /run/said; echo "$*: $status"; exit 1; }; }
lacks() { if grep "$@"; then echo "not lacking: $*"; exit 1; fi; }
tree() { find /etc /var/lib -printf '%p %y %m %s %l\n' | sort; }
"#;

/// Plays a scene on a host of its own.
fn play(scene: &str) {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private", "--kill-child"]);
    command.args(["sh", "-c", &format!("mount -t sysfs scene /sys\n{HOST}\n{scene}")]);
    let output = command.env("VPNFIX_BIN", binary()).env("LC_ALL", "C").output().expect("unshare could not be run");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
}

#[test]
fn a_drop_in_comes_and_goes_without_a_trace() {
    need_root!();
    play(
        r#"
networkd
ends 0 $vpnfix diagnose --format json; cp /run/said /run/diagnosis
grep -q '"id": "not-persisted"' /run/diagnosis
grep -q '"id": "dropped-by-networkd"' /run/diagnosis
tree > /run/before
ends 0 $vpnfix persist --dry-run
grep -q '/etc/systemd/network/10-ens5.network.d/90-vpnfix.conf (0644, would be written)' /run/said
grep -q 'To=169.254.55.52/30' /run/said
tree | diff /run/before -
ends 0 $vpnfix persist
grep -qx 'To=169.254.55.52/30' /etc/systemd/network/10-ens5.network.d/90-vpnfix.conf
ends 0 $vpnfix persist --format json
grep -q '"state": "unchanged"' /run/said
ends 0 $vpnfix diagnose --format json; cp /run/said /run/diagnosis
lacks -e not-persisted -e dropped-by-networkd -e persisted-differs /run/diagnosis
ip rule del to 169.254.55.52/30 lookup main priority 100
ends 1 $vpnfix diagnose --format json
grep -q persisted-differs /run/said
# Made by the manager, as after a reboot: kept on, though it is not vpnfix's.
ip rule add to 169.254.55.52/30 lookup main priority 100 protocol 4
ends 0 $vpnfix persist
ends 0 $vpnfix diagnose --format json
lacks -e not-persisted -e persisted-differs /run/said
ends 0 $vpnfix unpersist
ip rule | grep -q 'to 169.254.55.52/30 lookup main'
tree | diff /run/before -
ends 0 $vpnfix unpersist
"#,
    );
}

#[test]
fn a_file_that_was_edited_is_left() {
    need_root!();
    play(
        r#"
networkd
ends 0 $vpnfix persist
file=/etc/systemd/network/10-ens5.network.d/90-vpnfix.conf
echo '# mine' >> $file
ends 0 $vpnfix diagnose --format json
grep -q persisted-differs /run/said
ends 4 $vpnfix persist
ends 3 $vpnfix unpersist
grep -q '# mine' $file
# Somebody else's file of that name is never touched.
rm -r /etc/systemd/network/10-ens5.network.d /var/lib/vpnfix
mkdir ${file%/*}; echo theirs > $file
ends 4 $vpnfix persist
ends 0 $vpnfix unpersist
[ "$(cat $file)" = theirs ]
"#,
    );
}

#[test]
fn a_profile_gets_exactly_the_rules_that_are_taken_out_again() {
    need_root!();
    play(
        r#"
network_manager /etc/NetworkManager/system-connections/up.nmconnection
tree > /run/before
ends 0 $vpnfix persist
grep -qx 'nmcli connection modify uuid 0a5b +ipv4.routing-rules priority 100 to 169.254.55.52/30 table 254' /run/log
ends 0 $vpnfix unpersist
grep -qx 'nmcli connection modify uuid 0a5b -ipv4.routing-rules priority 100 to 169.254.55.52/30 table 254' /run/log
tree | diff /run/before -
# NetworkManager's own picture of what others configured.
network_manager() { printf '0a5b:ens5:%s:up\n' "$1" > /run/active; }
network_manager /run/NetworkManager/system-connections/ens5.nmconnection
ends 4 $vpnfix persist --backend networkmanager
ends 0 $vpnfix persist
grep -q 'vpnfix-rules.service' /run/said
[ -x /etc/vpnfix/persisted-rules ]
# The script adds what lacks and leaves what is there.
sh /etc/vpnfix/persisted-rules
[ "$(ip rule | grep -c 169.254.55.52/30)" = 1 ]
ip rule del to 169.254.55.52/30 lookup main priority 100
sh /etc/vpnfix/persisted-rules
ip rule | grep -q '169.254.55.52/30 lookup main proto 118'
ends 0 $vpnfix unpersist
tree | diff /run/before -
"#,
    );
}

#[test]
fn nothing_is_written_where_there_is_nothing_to_keep() {
    need_root!();
    play(
        r#"
ip rule del to 169.254.55.52/30 lookup main priority 100
ip rule add to 169.254.55.52/30 lookup main priority 100
networkd
tree > /run/before
ends 0 $vpnfix persist
grep -q 'made by others' /run/said
tree | diff /run/before -
rm -r /run/systemd
ip rule add to 10.9.0.0/16 lookup main priority 101 protocol 118
ends 4 $vpnfix persist
tree | diff /run/before -
"#,
    );
}

#[test]
fn a_namespace_beside_the_host_s_own_is_refused() {
    need_root!();
    let scene = Scene::healthy();
    for command in ["persist", "unpersist"] {
        let run = scene.vpnfix(&[command]).ends(4).tells_an_error();
        assert!(run.stderr.contains("does not outlive a reboot"), "{run}");
    }
}
