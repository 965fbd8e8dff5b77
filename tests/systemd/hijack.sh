# What strongSwan does: a rule and a default route in its table.
set -e
ip rule | grep -q 'lookup 220' || ip rule add from all lookup 220 priority 220
ip route replace default via 192.168.12.1 dev ens5 proto static table 220
ip neigh replace 192.168.12.1 lladdr 02:00:00:00:12:01 nud permanent dev ens5
