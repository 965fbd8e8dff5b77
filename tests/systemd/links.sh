# The incident's links, before any manager starts: ens5 with somebody at its other end, and a tunnel. Where the kernel has no
# VTI, one end of a veth pair stands for it, and vpnfix is told so.
set -e
ip -b - <<'END'
link set lo up
link add ens5 type veth peer name lan
link set lan up
END
if ! ip link add vti1 type vti local 192.168.12.49 remote 203.0.113.10 key 1 2>/dev/null; then
	ip link add vti1 type veth peer name far1
	ip link set far1 up
	ip link set vti1 arp off
	echo --tunnel vti1 > /run/vpnfix-play-tunnel
fi
ip -b - <<'END'
addr add 169.254.55.54/30 dev vti1
link set vti1 up
route add 10.20.0.0/16 via 169.254.55.53 dev vti1 proto bgp metric 20
END
