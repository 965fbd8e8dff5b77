#!/bin/bash
# Plays `vpnfix persist` with the managers that it is for, in a Debian system of its own with systemd. It is run once a boot:
# the first one plays each manager with restarts, and leaves rules persisted for the next boots to judge.
#
# `ip route get` is the judge of routes, a list of all files with their sums that of traces.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
here=$(dirname "$0")
state=/var/lib/vpnfix-play
failed=0
vpnfix="vpnfix --tunnel vti1"

ok() { echo "ok: $*"; }
bad() { echo "FAILED: $*"; ip rule; failed=1; }
check() { local what=$1; shift; if "$@"; then ok "$what"; else bad "$what"; fi; }
ends() { # STATUS WHAT COMMAND...
	local wanted=$1 what=$2 said status; shift 2
	said=$("$@" 2>&1); status=$?
	if [ $status = "$wanted" ]; then ok "$what"; else bad "$what: status $status, not $wanted: $said"; fi
}
soon() { local i; for i in $(seq 150); do "$@" && return 0; sleep 0.2; done; return 1; }
goes_by() { ip route get "$1" 2>/dev/null | grep -q " dev $2 "; }
right() { goes_by 10.20.0.1 vti1 && goes_by 169.254.55.53 vti1; }
peer_right() { goes_by 169.254.55.53 vti1; }
hijacked() { goes_by 169.254.55.53 ens5; }
no_own_rules() { ! ip rule | grep -q 'proto 118'; }
no_rules_of_ours() { ! ip rule | grep -q -e '169.254.55.52/30' -e '10.20.0.0/16'; }

# Every file, directory and link that persistence could have touched. NetworkManager writes its own profiles anew.
tree() {
	find /etc /var/lib /run/vpnfix /run/systemd/network /usr/lib/systemd -xdev \
		-not -path '/var/lib/NetworkManager/*' -not -path '/var/lib/systemd/*' -not -path '/etc/NetworkManager/*' \
		-not -path "$state*" -not -path '/run/vpnfix/*' -printf '%p %y %m %l\n' 2>/dev/null | sort
	find /etc -xdev -type f -not -path '/etc/NetworkManager/*' -exec sha256sum {} + | sort
}
# Again until there is a gateway: a manager that has just been started may not have given ens5 its address yet.
hijack_once() { sh "$here/hijack.sh" 2>/dev/null; }
hijack() { soon hijack_once; }
hijacked_anew() { hijack_once && hijacked; }
repair() { # STRATEGY, and how fix ends with it
	hijack
	check "the scene is hijacked" soon hijacked
	ends "${2-0}" "fix --strategy $1" $vpnfix fix --strategy "$1" --wait 20s
	check "$1 repairs" peer_right
	no_own_rules && bad "fix left no rule"
}
persisted() { # BACKEND, and what else persist is told
	local backend=$1; shift
	tree > $state/before
	ends 0 "persist by $backend $*" $vpnfix persist --backend "$backend" "$@"
	$vpnfix --format json persist --dry-run --backend "$backend" "$@" | grep -q '"state": "unchanged"' || [ "$backend" = networkmanager ] ||
		bad "$backend: what was written is not what would be written again"
}
# As a reboot does: what vpnfix added to the kernel is gone.
forget() { ends 0 "undo" $vpnfix undo; check "undo left no rule of vpnfix's" no_own_rules; }
released() { # BACKEND
	ends 0 "unpersist of $1" $vpnfix unpersist
	tree > $state/after
	check "$1: unpersist leaves no trace" diff $state/before $state/after
}
chosen() { # BACKEND
	$vpnfix --format json persist --dry-run | grep -q "\"backend\": \"$1\"" && ok "auto takes $1" || bad "auto does not take $1"
}

networkd() {
	printf '[Match]\nName=ens5\n[Network]\nAddress=192.168.12.49/24\nGateway=192.168.12.1\nLinkLocalAddressing=no\n' \
		> /etc/systemd/network/10-ens5.network
	systemctl restart systemd-networkd
	check "systemd-networkd has ens5" soon networkd_has
}
networkd_has() { grep -qs ADMIN_STATE=configured "/run/systemd/netif/links/$(cat /sys/class/net/ens5/ifindex)"; }

play_networkd() {
	echo "== systemd-networkd $(systemctl --version | head -1)"
	networkd
	repair prefixes
	chosen networkd
	persisted networkd
	forget
	systemctl restart systemd-networkd; soon networkd_has; hijack
	check "systemd-networkd made the rules" soon right
	check "no rule of them is doubled" test "$(ip rule | grep -c 'to 10.20.0.0/16')" = 1
	ends 0 "fix after that has nothing to do" $vpnfix fix
	check "and adds nothing" no_own_rules
	released networkd
	networkctl reload; check "systemd-networkd drops them" soon no_rules_of_ours
	# It configures ens5 anew, some time after it said that it will: as long as the address is gone there is no gateway.
	check "nothing is left of it" soon hijacked_anew

	repair prefixes
	persisted networkd --keep-foreign-rules
	systemctl restart systemd-networkd; soon networkd_has
	networkctl reconfigure ens5; sleep 1; soon networkd_has
	check "rules that are not its own stay" grep -q 'lookup 220' <(ip rule)
	released networkd
	networkctl reload
	forget
	check "systemd-networkd drops its own again" soon no_rules_of_ours
	systemctl restart systemd-networkd; soon networkd_has
}

play_systemd() {
	echo "== a unit"
	repair prefixes
	persisted systemd
	ends 0 "systemd-analyze verify" systemd-analyze verify /etc/systemd/system/vpnfix-rules.service
	forget
	systemctl restart systemd-networkd; soon networkd_has; hijack
	check "the unit runs again with systemd-networkd" soon right
	released systemd
	check "systemd has forgotten the unit" test "$(systemctl show -P LoadState vpnfix-rules.service)" = not-found
	check "the rules stand" right
	forget
}

play_netplan() {
	echo "== netplan"
	mv /etc/systemd/network/10-ens5.network $state/
	printf 'network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    ens5:\n      addresses: [192.168.12.49/24]\n      routes: [{to: default, via: 192.168.12.1}]\n      link-local: []\n' \
		> /etc/netplan/01-scene.yaml
	chmod 600 /etc/netplan/01-scene.yaml
	netplan generate; networkctl reload; systemctl restart systemd-networkd
	check "systemd-networkd has ens5 from netplan" soon netplan_has
	repair prefixes
	chosen networkd
	ends 4 "netplan cannot express suppression" $vpnfix persist --backend netplan
	forget
	# What BGP learned is not repaired by it, and that is said by the status.
	repair inside 3
	chosen netplan
	persisted netplan
	ends 0 "netplan generate" netplan generate
	forget
	systemctl restart systemd-networkd; soon netplan_has; hijack
	check "netplan made the rules" soon peer_right
	# What netplan generated from the file goes with the file.
	ends 0 "unpersist of netplan" $vpnfix unpersist
	netplan generate; tree > $state/after
	check "netplan: unpersist leaves no trace" diff $state/before $state/after
	networkctl reload; check "the rules of netplan are gone" soon no_rules_of_ours
	rm /etc/netplan/01-scene.yaml /run/systemd/network/10-netplan-ens5.network
	mv $state/10-ens5.network /etc/systemd/network/
}
netplan_has() { networkd_has && grep -qs netplan "/run/systemd/netif/links/$(cat /sys/class/net/ens5/ifindex)"; }

play_network_manager() {
	echo "== $(nmcli --version)"
	systemctl stop systemd-networkd.socket systemd-networkd
	mv /etc/systemd/network/10-ens5.network $state/
	ip addr flush dev ens5; ip rule del priority 220 2>/dev/null
	systemctl start NetworkManager
	check "NetworkManager has ens5" soon network_manager_has
	repair prefixes
	chosen networkmanager
	persisted networkmanager
	forget
	nmcli -t connection up uuid 0a5be93f-6f5e-4b8a-9d2a-1f0d3b5c7e11 > /dev/null; soon network_manager_has; hijack
	check "NetworkManager made the rules" soon right
	systemctl restart NetworkManager; soon network_manager_has
	check "and keeps them at its restart" soon right
	released networkmanager
	check "no rule is left in the profile" test "$(grep -c routing-rule /etc/NetworkManager/system-connections/scene.nmconnection)" = 0
	nmcli device reapply ens5 > /dev/null; check "NetworkManager drops them" soon no_rules_of_ours
	systemctl stop NetworkManager
}
network_manager_has() { nmcli -t -f DEVICE,STATE device 2>/dev/null | grep -qx ens5:connected; }

play_ifupdown() {
	echo "== ifupdown"
	ip addr flush dev ens5; ip rule del priority 220 2>/dev/null; ip link set ens5 down
	printf 'auto ens5\niface ens5 inet static\n\taddress 192.168.12.49/24\n\tgateway 192.168.12.1\n' > /etc/network/interfaces
	ends 0 "ifup" ifup ens5
	repair prefixes
	chosen ifupdown
	persisted ifupdown
	forget
	ends 0 "ifdown" ifdown ens5
	ends 0 "ifup" ifup ens5
	hijack
	check "ifupdown made the rules" soon right
	released ifupdown
	forget
	ifdown ens5; : > /etc/network/interfaces
}

boot() {
	mkdir -p $state
	local number=$(($(cat $state/boot 2>/dev/null || echo 0) + 1))
	echo $number > $state/boot
	echo "=== boot $number, Linux $(uname -r)"
	case $number in
	1)
		play_networkd
		play_systemd
		play_netplan
		play_network_manager
		play_ifupdown
		ip addr flush dev ens5; ip rule del priority 220 2>/dev/null
		mv $state/10-ens5.network /etc/systemd/network/
		networkd; repair prefixes; persisted networkd
		cp $state/before $state/kept ;;
	2)
		soon networkd_has; hijack
		check "after a reboot systemd-networkd made the rules" soon right
		check "and none is vpnfix's own" no_own_rules
		ends 0 "unpersist" $vpnfix unpersist
		networkctl reload; check "systemd-networkd drops them" soon no_rules_of_ours
		repair prefixes; persisted systemd ;;
	3)
		soon networkd_has; hijack
		check "after a reboot the unit made the rules" soon right
		forget
		ends 0 "unpersist" $vpnfix unpersist
		tree > $state/after
		# What lay under /run went with the reboots.
		sed -i '\,^/run/,d' $state/kept $state/after
		check "nothing is left of it all" diff $state/kept $state/after ;;
	esac
}

boot
# The place for further plays of one boot: each is a script beside this one that ends with a status.
if [ "$(cat $state/boot)" = 3 ]; then
	for play in "$here"/plays/*.sh; do
		[ -e "$play" ] && check "$(basename "$play" .sh)" bash "$play"
	done
fi
echo "=== failed: $failed"
exit $failed
