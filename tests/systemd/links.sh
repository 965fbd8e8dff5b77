# The incident's links, before any manager starts: ens5 with somebody at its other end, and a tunnel. One end of a veth pair
# stands for that, and vpnfix is told so: without security associations a VTI would refuse what is sent to confirm a repair.
set -e
ip -b - <<'END'
link set lo up
link add ens5 type veth peer name lan
link set lan up
link add vti1 type veth peer name far1
link set far1 up
link set vti1 arp off
addr add 169.254.55.54/30 dev vti1
link set vti1 up
route add 10.20.0.0/16 via 169.254.55.53 dev vti1 proto bgp metric 20
END
