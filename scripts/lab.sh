#!/usr/bin/env bash
# N hosts on one machine, each a set of namespaces with its own dockerd and its own swarm, as one cluster.
#
#   lab.sh up N [--managers M]   make hosts 1..N and form a cluster (hosts 1..M are managers; default: up to 3)
#   lab.sh hosts N               make hosts 1..N without a cluster
#   lab.sh exec K CMD…           run a command inside host K
#   lab.sh kill K [WHAT]         SIGKILL: host (default: every process in it), daemon (swarm), dockerd
#   lab.sh stop K                power off: kill the host and take its network away
#   lab.sh start K [WHAT]        bring back what was killed (host, daemon, dockerd)
#   lab.sh cut K | mend K        take the link of host K down | up
#   lab.sh partition A B         drop everything between hosts A and B, both ways
#   lab.sh oneway A B            drop everything from host A to host B
#   lab.sh isolate K             drop everything between host K and all others; its link stays up
#   lab.sh loss K PERCENT        drop so many frames from and to host K, at random
#   lab.sh delay K MS [JITTER]   hold up every frame from and to host K by MS and up to JITTER milliseconds more
#   lab.sh heal                  end all partitions, loss and delay
#   lab.sh clock K SECONDS       put the wall clock of host K's daemon ahead (or back, if negative); 0: right again
#   lab.sh pause K [WHAT]        stop the process (SIGSTOP): daemon (default) or dockerd
#   lab.sh resume K [WHAT]       let it go on
#   lab.sh failpoint K TEXT      kill host K's daemon; its next life has SWARM_FAILPOINTS=TEXT (docs/TESTING.md)
#   lab.sh files K N             let host K's daemon open N files at most; without N: as many as before
#   lab.sh fill K [MIB]          fill the disk of host K's daemon but for MIB (0); needs LAB_DISK
#   lab.sh empty K               make room again
#   lab.sh ip K                  the address of host K
#   lab.sh log K [WHAT]          the log of host K: swarm (default) or dockerd
#   lab.sh load K TAR NAME       import a root file system as image NAME into host K
#   lab.sh down                  remove everything that up made
#
# Environment: LAB_STATE (where hosts keep their disks; default /var/tmp/swarm-lab), SWARM_BIN (the binary), LAB_NAME (prefix
# of namespaces, so that several labs can stand side by side; default swl), LAB_DOCKERD (flags of the engines in place of
# --live-restore), LAB_DISK (size of a disk for each daemon, such as 400M), LAB_CLOCK=1 (clocks can be set: libfaketime).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
LAB_STATE=${LAB_STATE:-/var/tmp/swarm-lab}
LAB_NAME=${LAB_NAME:-swl}
UL=$LAB_NAME-ul
name() { echo "$LAB_NAME-h$1"; }
fail() { echo "lab: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "namespaces need root: run as root"

binary() {
    local target=${CARGO_TARGET_DIR:-$root/target} candidate
    for candidate in "${SWARM_BIN:-}" "$target/release/swarm" "$target/debug/swarm"; do
        [ -n "$candidate" ] && [ -x "$candidate" ] && { echo "$candidate"; return; }
    done
    fail "no swarm binary: build it with 'cargo build --release' or set SWARM_BIN"
}

underlay_up() {
    ip netns list | grep -qw "$UL" && return
    ip netns add "$UL"
    ip -n "$UL" link set lo up
    ip -n "$UL" link add sw0 type bridge
    ip -n "$UL" link set sw0 up
    ip -n "$UL" addr add 10.99.0.254/24 dev sw0
    # br_netfilter is per namespace and on by default; the switch must not filter.
    ip netns exec "$UL" sysctl -qw net.bridge.bridge-nf-call-iptables=0 \
        net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null || true
}

host_pid() {
    local pid
    pid=$(cat "$LAB_STATE/$(name "$1")/pid" 2>/dev/null) || fail "host $1 does not run"
    kill -0 "$pid" 2>/dev/null || fail "host $1 does not run"
    echo "$pid"
}

inside() { local k=$1; shift; nsenter --target "$(host_pid "$k")" --all -- "$@"; }

host_up() {
    local k=$1 h d up pid
    h=$(name "$k"); d=$LAB_STATE/$h
    mkdir -p "$d/docker" "$d/swarm" "$d/sock"
    exec 9>"$LAB_STATE/lock"; flock 9   # making namespaces in parallel races in the kernel tools
    if ! ip netns list | grep -qw "$h"; then
        ip netns add "$h"
        ip link add "h$k" netns "$UL" type veth peer name eth0 \
            address "02:99:00:00:00:$(printf %02x "$k")" netns "$h"
        ip -n "$UL" link set "h$k" master sw0 up
        ip -n "$h" link set lo up
        ip -n "$h" link set eth0 up
        ip -n "$h" addr add "10.99.0.$k/24" dev eth0
        ip -n "$h" route add default via 10.99.0.254
    fi
    flock -u 9; exec 9>&-
    rm -f "$d"/sock/* "$d/pid" "$d/stop-dockerd" "$d/stop-daemon"
    SWARM_BIN=$(binary)
    export SWARM_BIN
    if [ -n "${LAB_CLOCK:-}" ]; then
        LAB_CLOCK=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1 2>/dev/null | head -1 || true)
        [ -n "$LAB_CLOCK" ] || fail "clocks cannot be set: apt-get install libfaketime"
        export LAB_CLOCK
    fi
    ip netns exec "$h" unshare --mount --pid --fork --uts --ipc --kill-child --propagation private \
        "$here/lab-host.sh" "host-$k" "$h" "$d" >"$d/dockerd.log" 2>&1 </dev/null &
    up=$!
    for _ in $(seq 600); do
        pid=$(tr -d ' ' <"/proc/$up/task/$up/children" 2>/dev/null || true)
        [ -n "$pid" ] && echo "$pid" >"$d/pid"
        if [ -S "$d/sock/docker.sock" ] && [ -S "$d/sock/swarm.sock" ] &&
            docker -H "unix://$d/sock/docker.sock" version >/dev/null 2>&1; then
            return
        fi
        kill -0 "$up" 2>/dev/null || { tail -5 "$d/dockerd.log" >&2; fail "host $k did not start"; }
        sleep 0.05
    done
    tail --lines=5 "$d/dockerd.log" "$d/swarm.log" >&2
    fail "host $k: no answer from dockerd or swarm"
}

host_kill() {
    local pid
    pid=$(cat "$LAB_STATE/$(name "$1")/pid" 2>/dev/null) || return 0
    kill -9 "$pid" 2>/dev/null || return 0
    for _ in $(seq 250); do kill -0 "$pid" 2>/dev/null || break; sleep 0.02; done
}

host_off() {
    local h cgroup; h=$(name "$1")
    host_kill "$1"
    # A namespace that still has a process is only unlinked and would keep the port's name.
    ip -n "$UL" link del "h$1" 2>/dev/null || true
    ip netns del "$h" 2>/dev/null || true
    for cgroup in /sys/fs/cgroup/*/"$h" /sys/fs/cgroup/"$h"; do
        [ -d "$cgroup" ] && find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}

hosts_up() {
    local k jobs=()
    mkdir -p "$LAB_STATE"
    underlay_up
    for k in $(seq "$1"); do host_up "$k" & jobs+=($!); done
    for k in "${jobs[@]}"; do wait "$k"; done
}

cluster_up() {
    local n=$1 managers=$2 k token
    hosts_up "$n"
    inside 1 "$SWARM" init --advertise-addr 10.99.0.1 >/dev/null
    for k in $(seq 2 "$n"); do
        if [ "$k" -le "$managers" ]; then token=manager; else token=worker; fi
        token=$(inside 1 "$SWARM" join-token --quiet "$token")
        inside "$k" "$SWARM" join --token "$token" --advertise-addr "10.99.0.$k" 10.99.0.1:2377 >/dev/null
    done
    inside 1 "$SWARM" node ls
}

# Rules of the switch. A host that is held up hangs on it by another port.
drop() { # from to [match]
    local from="" to=""
    [ "$1" = any ] || from="iifname { \"h$1\", \"d${1}a\" }"
    [ "$2" = any ] || to="oifname { \"h$2\", \"d${2}a\" }"
    ip netns exec "$UL" nft -f - <<NFT
table bridge lab { chain cut { type filter hook forward priority 0; }; }
add rule bridge lab cut $from $to ${3:-} drop
NFT
}

# No netem in many kernels: frames go through a program of ours.
delay() {
    local k=$1 dir=$LAB_STATE relay h
    relay() { ip netns exec "$UL" python3 "$here/lab-delay.py" "$@"; }
    undelay "$k"
    ip -n "$UL" link add "d${k}a" type veth peer name "d${k}b"
    relay plain "h$k" "d${k}a" "d${k}b"
    for h in $(ip netns list | grep -o "^$LAB_NAME-h[0-9]*"); do
        ip netns exec "$h" python3 "$here/lab-delay.py" plain eth0 &
    done
    wait
    # From here on as fast as may be: the host is off the switch until the relay runs.
    ip -n "$UL" link set "d${k}a" master sw0 up
    ip -n "$UL" link set "d${k}b" up
    ip -n "$UL" link set "h$k" nomaster
    setsid ip netns exec "$UL" python3 "$here/lab-delay.py" relay "h$k" "d${k}b" "$2" "${3:-0}" \
        >"$dir/delay-$k.log" 2>&1 </dev/null &
    echo $! >"$dir/delay-$k.pid"
}

undelay() {
    local k=$1 file=$LAB_STATE/delay-$1.pid
    [ -e "$file" ] || return 0
    kill "$(cat "$file")" 2>/dev/null || true
    rm -f "$file"
    ip -n "$UL" link del "d${k}a" 2>/dev/null || true
    ip -n "$UL" link set "h$k" master sw0 2>/dev/null || true
}

heal() {
    local file k
    ip netns exec "$UL" nft delete table bridge lab 2>/dev/null || true
    for file in "$LAB_STATE"/delay-*.pid; do
        [ -e "$file" ] || continue
        k=${file##*delay-}; undelay "${k%.pid}"
    done
}

process_signal() { # host what signal
    local process; process=$(process_of "$2")
    inside "$1" sh -c "kill -$3 \$(cat /run/lab-$process.pid)"
}

process_of() {
    case "$1" in daemon) echo swarm ;; dockerd) echo dockerd ;; *) fail "what is a '$1'? host, daemon or dockerd" ;; esac
}

down() {
    local d
    heal
    for d in "$LAB_STATE/$LAB_NAME"-h*; do
        [ -d "$d" ] && host_off "${d##*-h}"
    done
    ip netns del "$UL" 2>/dev/null || true
    rm -rf "$LAB_STATE"
}

SWARM=$(binary)
command=${1:-help}; shift || true
case "$command" in
up)
    n=${1:?how many hosts?}; managers=$(( n < 3 ? 1 : 3 ))
    [ "${2:-}" = --managers ] && managers=${3:?how many managers?}
    cluster_up "$n" "$managers" ;;
hosts) hosts_up "${1:?how many hosts?}" ;;
exec) k=${1:?which host?}; shift; inside "$k" "$@" ;;
kill)
    k=${1:?which host?}
    case "${2:-host}" in
    host) host_kill "$k" ;;
    *) process=$(process_of "$2"); d=$LAB_STATE/$(name "$k"); touch "$d/stop-$2"
       inside "$k" sh -c "kill -9 \$(cat /run/lab-$process.pid) 2>/dev/null || :" ;;
    esac ;;
stop) host_off "${1:?which host?}" ;;
start)
    k=${1:?which host?}
    case "${2:-host}" in
    host) host_up "$k" ;;
    *) process_of "$2" >/dev/null; rm -f "$LAB_STATE/$(name "$k")/stop-$2" ;;
    esac ;;
cut) ip -n "$UL" link set "h${1:?which host?}" down ;;
mend) ip -n "$UL" link set "h${1:?which host?}" up ;;
partition) drop "${1:?which hosts?}" "${2:?which hosts?}"; drop "$2" "$1" ;;
oneway) drop "${1:?which hosts?}" "${2:?which hosts?}" ;;
isolate) drop "${1:?which host?}" any; drop any "$1" ;;
loss)
    some="numgen random mod 100 < ${2:?how many in a hundred?}"
    drop "${1:?which host?}" any "$some"; drop any "$1" "$some" ;;
delay) delay "${1:?which host?}" "${2:?how many milliseconds?}" "${3:-0}" ;;
heal) heal ;;
clock)
    # Replaced in one step: the daemon reads it once a second.
    file=$LAB_STATE/$(name "${1:?which host?}")/clock
    [ -e "$file" ] || fail "host $1 goes by the machine's clock: start the lab with LAB_CLOCK=1"
    printf '%+d\n' "${2:?how many seconds?}" >"$file.new"; mv "$file.new" "$file" ;;
pause) process_signal "${1:?which host?}" "${2:-daemon}" STOP ;;
resume) process_signal "${1:?which host?}" "${2:-daemon}" CONT ;;
failpoint)
    d=$LAB_STATE/$(name "${1:?which host?}"); text=${2:?which failpoints?}
    # A life that is about to begin must not take them and be killed for another: first there is none, for a while.
    touch "$d/stop-daemon"
    dead=0
    for _ in $(seq 100); do
        if inside "$1" sh -c "kill -9 \$(cat /run/lab-swarm.pid) 2>/dev/null"; then dead=0; else dead=$((dead + 1)); fi
        [ $dead -lt 4 ] || break
        sleep 0.1
    done
    echo "$text" >"$d/failpoints"
    rm "$d/stop-daemon"
    for _ in $(seq 100); do [ -e "$d/failpoints" ] || exit 0; sleep 0.05; done
    fail "host $1: no daemon took the failpoints" ;;
files)
    inside "${1:?which host?}" sh -c "pid=\$(cat /run/lab-swarm.pid); most=${2:-}; \
        [ \"\$most\" ] || most=\$(awk '/open files/ {print \$5}' /proc/\$pid/limits); prlimit --pid \$pid --nofile=\$most:" ;;
fill)
    [ "$(inside "${1:?which host?}" stat -f -c %b /var/lib/swarm)" != "$(stat -f -c %b "$LAB_STATE")" ] ||
        fail "the disk of host $1 is the machine's: start the lab with LAB_DISK=400M"
    inside "$1" sh -c "free=\$(( \$(stat -f -c '%a * %S' /var/lib/swarm) / 1048576 - ${2:-0} ))
        [ \$free -le 0 ] || fallocate -l \${free}M /var/lib/swarm/filler-\$\$
        [ ${2:-0} != 0 ] || cat /dev/zero >/var/lib/swarm/filler-last-\$\$ 2>/dev/null; :" ;;
empty) inside "${1:?which host?}" sh -c "rm -f /var/lib/swarm/filler-*" ;;
ip) echo "10.99.0.${1:?which host?}" ;;
log) cat "$LAB_STATE/$(name "${1:?which host?}")/${2:-swarm}.log" ;;
load) docker -H "unix://$LAB_STATE/$(name "${1:?which host?}")/sock/docker.sock" import "${2:?tar?}" "${3:?name?}" ;;
down) down ;;
*) sed -n '2,31s/^# \{0,1\}//p' "$0"; [ "$command" = help ] || exit 2 ;;
esac
