#!/bin/bash
# Boots a Debian system with its own systemd in namespaces of its own, on this kernel, and plays `vpnfix persist` in it:
#     run.sh ROOT VPNFIX
# ROOT is the system's root folder, which stays as it is: what is written goes to a layer in memory. A boot is a new network
# namespace, so nothing but the disk outlives it.
set -u
if [ "${VPNFIX_PLAY_INSIDE-}" = "" ]; then
	exec env VPNFIX_PLAY_INSIDE=1 unshare --mount --propagation private -- "$0" "$@"
fi
root=$1 vpnfix=$2
here=$(cd "$(dirname "$0")" && pwd)
layer=$(mktemp -d)
trap 'umount -l "$layer"; rmdir "$layer"' EXIT
mount -t tmpfs -o size=400m,mode=755 vpnfix-play $layer || exit 4
mkdir $layer/upper $layer/work $layer/root
mount -t overlay -o "lowerdir=$root,upperdir=$layer/upper,workdir=$layer/work" vpnfix-play $layer/root || exit 4
mkdir -p $layer/root/opt/play
cp -r "$here"/. $layer/root/opt/play/
install -m 755 "$vpnfix" $layer/root/usr/bin/vpnfix
cp -r "$here"/root/. $layer/root/
chmod 600 $layer/root/etc/NetworkManager/system-connections/*
: > $layer/root/etc/network/interfaces
units=$layer/root/etc/systemd/system
mkdir -p $units/sysinit.target.wants
install -m 644 "$here/../../contrib/vpnfix-watch.service" $units/
ln -s ../scene.service $units/sysinit.target.wants/
# Each manager starts when its turn comes; systemd-networkd from the boot on, because the reboots are its turn.
rm -f $units/multi-user.target.wants/{NetworkManager,strongswan-starter,networking}.service $units/network-online.target.wants/*
ln -s /lib/systemd/system/systemd-networkd.service $units/multi-user.target.wants/

cat > $layer/init <<'INIT'
#!/bin/bash
# Inside the new namespaces, as their first process.
root=$1
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
for folder in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs $root/$folder; done
for device in null zero full random urandom tty; do
	: > $root/dev/$device
	mount --bind /dev/$device $root/dev/$device
done
mkdir $root/dev/pts $root/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts $root/dev/pts
ln -s pts/ptmx $root/dev/ptmx
# Without udev: systemd takes a read-only /sys for a sign of that (https://systemd.io/CONTAINER_INTERFACE).
mount -o remount,bind,ro $root/sys
exec env -i container=vpnfix-play PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot $root /sbin/init --log-target=console
INIT
chmod +x $layer/init

child() { cat "/proc/$1/task/$1/children" 2>/dev/null | tr -d ' '; }
boot() {
	unshare --mount --propagation private --net --pid --fork --ipc --uts --cgroup --kill-child -- \
		$layer/init $layer/root > $layer/console 2>&1 < /dev/null &
	local keeper=$! i init
	for i in $(seq 600); do
		init=$(child $keeper)
		[ -n "$init" ] && [ -S "/proc/$init/root/run/systemd/private" ] && break
		sleep 0.2
	done
	if [ -z "$init" ] || [ ! -S "/proc/$init/root/run/systemd/private" ]; then
		echo "systemd did not start:"; tail -40 $layer/console; kill -9 $keeper; return 4
	fi
	inside() { nsenter -t "$init" -m -n -p -i -u -C -r -w env -i "$@"; }
	inside systemctl is-system-running --wait
	inside bash /opt/play/play.sh
	local status=$?
	[ $status = 0 ] || inside systemctl --failed --no-legend
	kill -9 "$init"
	wait $keeper 2>/dev/null
	return $status
}
failed=0
for number in 1 2 3; do boot || failed=1; done
exit $failed
