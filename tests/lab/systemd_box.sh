#!/bin/sh
# The inside of a box: run by systemd_box.py as PID 1 of fresh namespaces, it becomes systemd.
#   systemd_box.sh SCRATCH "CONTROLLER…" [DIR INSIDE]…
# SCRATCH is an empty directory for the throw-away root; each DIR is shown read-only at INSIDE.
# Nothing outside of our mount namespace is touched.
set -eu
scratch=$1 controllers=$2
shift 2

mount --make-rprivate /
mount -t tmpfs box "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
cd "$scratch/root"
while [ $# -gt 0 ]; do
  mkdir -p ".$2"
  mount --bind "$1" ".$2"
  mount -o remount,bind,ro ".$2"
  shift 2
done

mount -t proc proc proc
mount -t sysfs sysfs sys
if [ -n "$controllers" ]; then # a machine with version 1 hierarchies: the same here
  mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
  for name in $controllers; do
    mkdir "sys/fs/cgroup/$name"
    kind=$name
    [ "$name" != systemd ] || kind=none,name=systemd
    mount -t cgroup -o "$kind" cgroup "sys/fs/cgroup/$name"
  done
  mkdir sys/fs/cgroup/unified
  mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
else
  mount -t cgroup2 cgroup2 sys/fs/cgroup
fi

mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mount -t tmpfs -o mode=755 tmpfs etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs root
rm -rf var/lib/private var/cache/private
for device in null zero full random urandom tty; do
  : > "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr

# few units, so that it is up at once and nothing of the machine's is started
from=lib/systemd/system units=run/box-units
mkdir -p "$units/sockets.target.wants" etc/credstore etc/gotunnel
for unit in sysinit basic sockets timers paths slices local-fs local-fs-pre swap shutdown umount final exit \
  network network-online nss-lookup multi-user default; do
  [ ! -e "$from/$unit.target" ] || cp -L "$from/$unit.target" "$units/"
done
cp -L "$from/systemd-exit.service" "$units/"
cp -L "$from/systemd-journald.service" "$from/systemd-journald.socket" "$from/systemd-journald-dev-log.socket" \
  "$units/"
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket "$units/sockets.target.wants/"

# a Python with a shared library looks for it where it was built, which may be in a home
mkdir -p run/systemd/system.conf.d
printf '[Manager]\nDefaultEnvironment=LD_LIBRARY_PATH=/opt/box/python/lib\n' > run/systemd/system.conf.d/box.conf

hostname box
pivot_root . mnt
cd /
umount -l /mnt
mount --make-rshared / # the mounts of credentials reach the services by propagation
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=box \
  SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system:/run/systemd/transient:/run/box-units \
  SYSTEMD_GENERATOR_PATH=/nonexistent \
  /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=0
