#!/usr/bin/env bash
# Process 1 of a lab host, started by lab.sh: own /proc, cgroups, /run; then dockerd and swarm, each restarted when it ends
# unless DIR/stop-dockerd or DIR/stop-daemon exists. Arguments: host name, cgroup, directory of the host's disk.
set -euo pipefail
host=$1 cgroup=$2 dir=$3
hostname "$host"
mount -t proc proc /proc
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    :   # cgroup v2: one hierarchy, visible as it is
else
    # "ip netns exec" has remounted /sys for the new namespace, which hides the cgroup mounts.
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for controller in $(awk 'NR>1 && $4==1 {print $1}' /proc/cgroups); do
        mkdir -p "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || rmdir "/sys/fs/cgroup/$controller"
    done
    mkdir -p /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd || rmdir /sys/fs/cgroup/systemd
fi
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /run/lock /run/docker /run/swarm /etc/docker /var/lib/docker /var/lib/swarm
mount --bind "$dir/docker" /var/lib/docker
mount --bind "$dir/swarm" /var/lib/swarm
if [ -n "${LAB_DISK:-}" ]; then
    # A disk of its own for the daemon, that can be filled: a loop device where there are any, memory elsewhere.
    [ -e "$dir/disk" ] || { truncate -s "$LAB_DISK" "$dir/disk"; mkfs.ext4 -q -m 0 "$dir/disk"; }
    mount -o loop "$dir/disk" /var/lib/swarm || mount -t tmpfs -o "size=$LAB_DISK" tmpfs /var/lib/swarm
fi
ln -s "$dir/sock/swarm.sock" /run/swarm/swarm.sock   # /run is a tmpfs: secrets of tasks never reach the disk
: >"$dir/empty"; mount --bind "$dir/empty" /etc/resolv.conf 2>/dev/null || true
sysctl -qw net.ipv4.ip_forward=1
export dir cgroup
# Process 1 must reap orphans, which docker-init (tini) does.
exec docker-init -s -- bash -c '
keep() { # name stop-file log command…
    local name=$1 stop=$2 log=$3; shift 3
    while :; do
        while [ -e "$dir/$stop" ]; do sleep 0.05; done
        "$@" >>"$log" 2>&1 &
        echo $! >"/run/lab-$name.pid"
        status=0; wait $! || status=$?
        echo "$name ended: $status" >>"$log"
        sleep 0.1
    done
}
swarm_daemon() {
    # Failpoints are for one life of the daemon.
    if [ -e "$dir/failpoints" ]; then
        SWARM_FAILPOINTS=$(cat "$dir/failpoints"); rm "$dir/failpoints"; export SWARM_FAILPOINTS
    fi
    if [ -n "${LAB_CLOCK:-}" ]; then
        # The wall clock alone: what waits goes by the monotonic clock.
        [ -e "$dir/clock" ] || echo "+0" >"$dir/clock"
        rm -f /dev/shm/*faketime*   # of lives that ended without a word
        export LD_PRELOAD=$LAB_CLOCK FAKETIME_TIMESTAMP_FILE=$dir/clock FAKETIME_CACHE_DURATION=1
        export FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1
    fi
    exec "$SWARM_BIN" daemon --engine /run/docker.sock --socket "$dir/sock/swarm.sock"
}
keep dockerd stop-dockerd "$dir/dockerd.log" dockerd --data-root /var/lib/docker --exec-root /run/docker \
    --pidfile /run/docker.pid -H unix:///run/docker.sock -H "unix://$dir/sock/docker.sock" \
    --cgroup-parent "/$cgroup" --default-address-pool base=172.31.0.0/16,size=24 ${LAB_DOCKERD---live-restore} &
keep swarm stop-daemon "$dir/swarm.log" swarm_daemon &
wait'
