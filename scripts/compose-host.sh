#!/bin/sh
# Process 1 of a host of docker-compose.test.yml: undoes what Docker protects from containers (read-only /sys and cgroups,
# masked parts of /proc), then runs dockerd and swarm; the host ends when one of them does.
set -eu
mount -o remount,rw /sys 2>/dev/null || mount -t sysfs sysfs /sys
# The innermost first: masks may lie on masks.
for path in $(awk '$2 ~ "^/proc/" || $2 ~ "^/sys/firmware" {print $2}' /proc/mounts | sort -r); do
    umount "$path" 2>/dev/null || true
done
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    mount -o remount,rw /sys/fs/cgroup
    # A group with processes of its own cannot hand controllers down: ours move into a leaf.
    mkdir -p /sys/fs/cgroup/init
    while read -r pid; do
        echo "$pid" >/sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true
    done </sys/fs/cgroup/cgroup.procs
    sed -e 's/ / +/g' -e 's/^/+/' </sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
else
    for path in $(awk '$3 == "cgroup" {print $2}' /proc/mounts); do
        mount -o remount,rw "$path" 2>/dev/null || mount -o remount,rw,bind "$path" || true
    done
fi
mkdir -p /run/docker /run/lock /run/swarm /etc/docker
sysctl -qw net.ipv4.ip_forward=1
# Process 1 must reap orphans, which docker-init (tini) does.
exec docker-init -s -g -- bash -c '
dockerd --data-root /var/lib/docker --exec-root /run/docker --pidfile /run/docker.pid \
    -H unix:///run/docker.sock --default-address-pool base=172.31.0.0/16,size=24 >/var/log/dockerd.log 2>&1 &
/opt/swarm daemon --engine /run/docker.sock >/var/log/swarm.log 2>&1 &
wait -n
exit 1'
