#!/bin/bash
# `fix --cure --restart` with real systemd and Debian's strongSwan: the file is written, the daemon's unit is restarted over
# D-Bus, its routes are gone; `undo` and a restart bring them back. No association comes up: a trap policy is enough for charon
# to install its route. A veth pair stands for the tunnel.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
unit=strongswan-starter.service
vpnfix="vpnfix --tunnel Tunnel1"

fail() { echo "FAILED: cure: $*"; systemctl status --no-pager "$unit" | head -30; ip rule; ip route show table all; exit 1; }
soon() { local i; for i in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; return 1; }
has_routes() { [ -n "$(ip route show table 220 2>/dev/null)" ]; }
has_none() { ! has_routes; }
device_for() { ip -o route get "$1" | sed -n 's/.* dev \([^ ]*\).*/\1/p'; }
main_pid() { systemctl show -P MainPID "$unit"; }
configuration() { find /etc/strongswan.conf /etc/strongswan.d -type f -exec sha256sum {} + | sort; }

# The other plays' links and rules are none of this one's.
ip rule del priority 220 2>/dev/null
ip route flush table 220 2>/dev/null
ip link del vti1
ip netns add far
ip link add wan type veth peer name wan netns far
ip addr add 192.0.2.1/24 dev wan && ip link set wan up
ip -n far addr add 192.0.2.2/24 dev wan && ip -n far link set wan up
ip link add Tunnel1 type veth peer name far1 netns far
ip link set Tunnel1 arp off && ip addr add 169.254.10.2/30 dev Tunnel1 && ip link set Tunnel1 up && ip -n far link set far1 up

cat > /etc/ipsec.conf <<'C'
conn test
    left=192.0.2.1
    right=192.0.2.2
    leftsubnet=0.0.0.0/0
    rightsubnet=0.0.0.0/0
    mark=42
    auto=route
C
systemctl restart "$unit" || fail "strongSwan does not start"
soon has_routes || fail "charon installs no route"
[ "$(device_for 169.254.10.1)" = wan ] || fail "the incident is not here: $(ip route get 169.254.10.1)"
before=$(main_pid)
configuration > /tmp/before

said=$($vpnfix fix --cure --dry-run 2>&1)
[ $? = 1 ] && grep -q install_routes <<< "$said" || fail "the dry run: $said"
[ ! -e /etc/strongswan.d/zz-vpnfix.conf ] || fail "the dry run wrote"

said=$($vpnfix --format json fix --cure --restart --wait 10s 2>/tmp/log)
status=$?
# Nobody answers behind the tunnel, but what is required is confirmed.
[ $status = 0 ] || fail "fix ended with $status: $said $(cat /tmp/log)"
tr -d ' \n' <<< "$said" | grep -q '"restart":{"state":"done"' || fail "no restart is told: $said"
[ "$(main_pid)" != "$before" ] || fail "the same daemon runs"
systemctl is-active --quiet "$unit" || fail "$unit is not active"
has_none || fail "routes stand: $(ip route show table 220)"
[ "$(device_for 169.254.10.1)" = Tunnel1 ] || fail "not repaired: $(ip route get 169.254.10.1)"

$vpnfix undo > /dev/null || fail "undo"
[ ! -e /etc/strongswan.d/zz-vpnfix.conf ] || fail "undo left the file"
configuration | cmp -s - /tmp/before || fail "files of others changed"
[ "$(device_for 169.254.10.1)" = Tunnel1 ] || fail "the daemon installed routes without a restart"
systemctl restart "$unit"
soon has_routes || fail "charon's route does not come back"
systemctl stop "$unit"
echo "ok: cure, with $(dpkg-query -W -f '${Package} ${Version}' strongswan-charon)"
