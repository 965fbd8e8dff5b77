#!/bin/bash
# `vpnfix watch` as the service of contrib/vpnfix-watch.service under real systemd, with its hardening: ready only after it is
# attached, killed and back, and systemd-networkd's default of dropping rules that are not its own. A veth pair stands for the
# tunnel.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
unit=vpnfix-watch.service

fail() {
	echo "FAILED: watch: $*"
	systemctl status --no-pager -l "$unit" | head -30; journalctl --no-pager -u "$unit" -n 40 2>/dev/null
	ip rule; ip route show table 220; exit 1
}
soon() { local i; for i in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; return 1; }
device_for() { ip -o route get "$1" | sed -n 's/.* dev \([^ ]*\).*/\1/p'; }
right() { [ "$(device_for 169.254.77.53)" = Tunnel9 ] && [ "$(device_for 10.79.0.1)" = Tunnel9 ]; }
wrong() { [ "$(device_for 169.254.77.53)" != Tunnel9 ]; }
main_pid() { systemctl show -P MainPID "$unit"; }
# Asked for once, and first: systemd hears of the kill some time later, and between two questions the old one may become none.
is_another() { local now; now=$(main_pid); [ "$now" != 0 ] && [ "$now" != "$1" ] && systemctl is-active --quiet "$unit"; }
hijacked() { ip rule show priority 220 | grep -q 'lookup 220'; }
own_rules() { ip rule | grep -c 'proto 118'; }
told() { journalctl --no-pager -o json -t vpnfix 2>/dev/null | grep -q -- "$1"; }

# The other plays' rules and routes are none of this one's. Here systemd-networkd itself has the hijacking rule, so that it stays
# when networkd drops what is not its own.
vpnfix -q undo --all > /dev/null 2>&1
ip rule del priority 220 2>/dev/null
ip route flush table 220 2>/dev/null
ip link add Tunnel9 type veth peer name far9
ip link set Tunnel9 arp off && ip addr add 169.254.77.54/30 dev Tunnel9 && ip link set Tunnel9 up && ip link set far9 up
ip route add 10.79.0.0/16 via 169.254.77.53 dev Tunnel9 proto bgp metric 20
mkdir -p /etc/vpnfix /etc/systemd/network/10-ens5.network.d
printf 'tunnels = ["Tunnel9"]\n[watch]\nprobe = false\nwait = "1s"\n[watch.limits]\nfight-after = 3\npause = "10ms"\n' > /etc/vpnfix/config.toml
networkd_has() { grep -qs ADMIN_STATE=configured "/run/systemd/netif/links/$(cat /sys/class/net/ens5/ifindex)"; }
soon networkd_has || fail "systemd-networkd has not ens5"
right || fail "the scene is not healthy"

systemd-analyze verify "$unit" || fail "systemd-analyze verify"
systemd-analyze security --no-pager --threshold=40 "$unit" > /tmp/security || fail "systemd-analyze security: $(tail -1 /tmp/security)"
vpnfix watch --check-config > /dev/null || fail "the configuration"

systemctl start "$unit" || fail "it does not start"
pid=$(main_pid)
# Type=notify: started means that it said so, and by then the programs are in the kernel.
[ "$(systemctl show -P SubState "$unit")" = running ] || fail "not running"
ls -l "/proc/$pid/fd" | grep -q 'anon_inode:bpf' || fail "ready, and nothing is attached"
systemctl show -P StatusText "$unit" | grep -q Tunnel9 || fail "no status text"
effective=$(sed -n 's/^CapEff:\t0*//p' "/proc/$pid/status")
# NET_ADMIN and NET_RAW; before 6.0 also BPF, to read its own maps.
case $effective in 3000|8000003000) ;; *) fail "capabilities: $effective" ;; esac
grep -q 'NoNewPrivs:.1' "/proc/$pid/status" && grep -q 'Seccomp:.2' "/proc/$pid/status" || fail "no hardening"

printf '[RoutingPolicyRule]\nTable=220\nPriority=220\n[Route]\nGateway=192.168.12.1\nTable=220\n' > /etc/systemd/network/10-ens5.network.d/hijack.conf
networkctl reload || fail "networkctl reload"
soon hijacked || fail "the hijack is not there"
soon told '"VPNFIX_OUTCOME":"applied"' || fail "the hijack is not repaired: $(ip rule)"
soon right || fail "not repaired"

kill -9 "$pid"
soon is_another "$pid" || fail "killed, and not back"
pid=$(main_pid)
right || fail "wrong after the kill"
doubled=$(ip rule | sed 's/^[0-9]*://' | sort | uniq -d | grep -c 'proto 118')
[ "$doubled" = 0 ] || fail "rules are doubled"

# The link is configured anew, as a boot or a lost carrier does; after a mere restart 252 keeps what it finds.
systemctl restart systemd-networkd && soon networkd_has
networkctl reconfigure ens5 || fail "networkctl reconfigure"
soon told 'VPNFIX_BY.*systemd-networkd' || fail "networkd is not named: $(journalctl -t vpnfix -o cat | tail -5)"
soon told 'ManageForeignRoutingPolicyRules=no' || fail "the remedy is not named"
soon right || fail "not repaired after networkd's restart"

systemctl reload "$unit" || fail "reload"
[ "$(main_pid)" = "$pid" ] || fail "a reload is a restart"
systemctl stop "$unit"
! systemctl is-failed --quiet "$unit" || fail "stopped, and failed"
[ "$(own_rules)" -gt 0 ] && right || fail "the rules went with the service"
systemctl start "$unit" || fail "it does not start again"
vpnfix -q undo > /dev/null || fail "undo"
sleep 1
[ "$(own_rules)" = 0 ] || fail "the undo is not honoured"
vpnfix -q --format json fix --no-probe --wait 1ms > /dev/null
right || fail "fix"
systemctl stop "$unit"
vpnfix -q undo > /dev/null
rm -r /etc/systemd/network/10-ens5.network.d /etc/vpnfix/config.toml
networkctl reload
ip link del Tunnel9
echo "ok: watch, with $(systemctl --version | head -1)"
