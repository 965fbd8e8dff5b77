#!/bin/sh
# The restart by systemd, in a guest of its own that runs systemd and has strongSwan's real packages: the cure is written,
# the daemon's unit restarted over D-Bus, its routes are gone; `undo` and a restart bring them back.
#
#   VPNFIX=/path/to/vpnfix cure-restart.sh swanctl|starter
#
# swanctl needs charon-systemd and strongswan-swanctl, starter needs strongswan-starter. Never run on a host: it sets up
# devices and configures strongSwan. No SA comes up: a trap policy is enough for charon to install its route.
set -eu
: "${VPNFIX:?the binary}"
kind=${1:?swanctl or starter}

fail() { echo "FAILED: $*" >&2; exit 1; }
until_true() { # what, command…
    what=$1; shift
    for _ in $(seq 300); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.1; done
    fail "no end of waiting for $what"
}
has_routes() { [ -n "$(ip route show table 220 2>/dev/null)" ]; }
has_none() { ! has_routes; }
device_for() { ip -o route get "$1" | sed -n 's/.* dev \([^ ]*\).*/\1/p'; }
main_pid() { systemctl show -P MainPID "$unit"; }

[ -d /run/systemd/system ] || fail "systemd does not run here"
ip netns add far
ip link add wan type veth peer name wan netns far
ip addr add 192.0.2.1/24 dev wan && ip link set wan up
ip -n far addr add 192.0.2.2/24 dev wan && ip -n far link set wan up
ip link add Tunnel1 type vti local 192.0.2.1 remote 192.0.2.2 key 42
ip addr add 169.254.10.2/30 dev Tunnel1 && ip link set Tunnel1 up

case $kind in
swanctl)
    unit=strongswan.service
    cat > /etc/swanctl/conf.d/test.conf <<'C'
connections { test {
    local_addrs = 192.0.2.1
    remote_addrs = 192.0.2.2
    local { auth = pubkey }
    remote { auth = pubkey }
    children { test {
        local_ts = 0.0.0.0/0
        remote_ts = 0.0.0.0/0
        mark_in = 42
        mark_out = 42
        start_action = trap
    } }
} }
C
    ;;
starter)
    unit=strongswan-starter.service
    cat > /etc/ipsec.conf <<'C'
conn test
    left=192.0.2.1
    right=192.0.2.2
    leftsubnet=0.0.0.0/0
    rightsubnet=0.0.0.0/0
    mark=42
    auto=route
C
    ;;
*) fail "unknown kind $kind" ;;
esac
systemctl restart "$unit"
until_true "charon's route" has_routes
[ "$(device_for 169.254.10.1)" = wan ] || fail "the incident is not here: $(ip route get 169.254.10.1)"
before=$(main_pid)
find /etc/strongswan.conf /etc/strongswan.d -type f -exec sha256sum {} + | sort > /tmp/before

# Nobody answers in the far namespace, so live packets confirm nothing: 3, with the daemon restarted.
status=0
"$VPNFIX" --format json fix --cure --restart --no-probe --wait 2s > /tmp/fix.json || status=$?
case $status in 0 | 3) ;; *) cat /tmp/fix.json; fail "fix ended with $status" ;; esac
tr -d ' \n' < /tmp/fix.json | grep -q '"restart":{"state":"done"' || { cat /tmp/fix.json; fail "no restart told"; }
[ "$(main_pid)" != "$before" ] || fail "the same daemon runs"
systemctl is-active --quiet "$unit" || fail "$unit is not active"
has_none || fail "routes stand: $(ip route show table 220)"
"$VPNFIX" undo > /dev/null
[ ! -e /etc/strongswan.d/zz-vpnfix.conf ] || fail "undo left the file"
find /etc/strongswan.conf /etc/strongswan.d -type f -exec sha256sum {} + | sort | cmp - /tmp/before || fail "files changed"

# The cure alone, without rules: right after the restart.
"$VPNFIX" fix --cure --restart --no-probe --wait 2s > /dev/null || true
ip -d rule show | grep -q 'proto 118' && fail "rules were added where nothing had to be repaired"
[ "$(device_for 169.254.10.1)" = Tunnel1 ] || fail "not cured: $(ip route get 169.254.10.1)"
"$VPNFIX" undo > /dev/null
systemctl restart "$unit"
until_true "charon's route to come back" has_routes
echo "ok: $kind"
