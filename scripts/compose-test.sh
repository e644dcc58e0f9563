#!/usr/bin/env bash
# A cluster of three hosts that are containers (docker-compose.test.yml): one manager, two workers, a service on all of
# them that finds and reaches its tasks by name. The Docker Engine the hosts run on is a private one in namespaces of its
# own, so nothing of this machine's network or engine is touched, and ending one process ends all.
#
#   scripts/compose-test.sh           up, test, down; installs docker-compose where there is none
#   scripts/compose-test.sh --keep    leaves the hosts up until Ctrl-C and says how to reach them
#
# Environment: SWARM_BIN (the binary; default the debug build), SWARM_SCRATCH (where the engine keeps its data).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
fail() { echo "compose: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "run as root: it starts a Docker Engine and makes network links"
SWARM_BIN=$(realpath -m "${SWARM_BIN:-${CARGO_TARGET_DIR:-target}/debug/swarm}")
[ -x "$SWARM_BIN" ] || fail "no $SWARM_BIN: build it with 'cargo build' or set SWARM_BIN"
export SWARM_BIN
DIR=$SWARM_SCRATCH/compose
GROUP=swarmcompose
export DOCKER_HOST=unix://$DIR/docker.sock COMPOSE_PROJECT_NAME=swarmcompose COMPOSE_HTTP_TIMEOUT=180
FILE=docker-compose.test.yml
ENGINE=

compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -f "$FILE" "$@"
    else
        docker-compose -f "$FILE" "$@"
    fi
}
host() { local k=$1; shift; docker exec "$(cat "$DIR/host$k")" "$@"; }
swarm() { local k=$1; shift; host "$k" /opt/swarm "$@"; }

# Waits until a command succeeds: until_true SECONDS WHAT COMMAND…
until_true() {
    local end=$((SECONDS + $1)) what=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "not within the time given: $what"
        sleep 0.2
    done
}

install_compose() {
    docker compose version >/dev/null 2>&1 && return
    command -v docker-compose >/dev/null && return
    echo "installing: docker-compose"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq docker-compose >/dev/null
}

# Namespaces of its own: bridges, nft rules and mounts of the engine and of the hosts go when its process 1 is killed.
# A session of its own: Ctrl-C must not end it before the hosts are removed.
engine_up() {
    mkdir -p "$DIR/data"
    setsid unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private bash -euc '
        mount -t tmpfs -o mode=755 tmpfs /run
        mkdir -p /run/docker /run/lock
        ip link set lo up
        exec docker-init -s -- dockerd --data-root "$1/data" --exec-root /run/docker --pidfile /run/docker.pid \
            -H "unix://$1/docker.sock" --bridge=none --cgroup-parent "/$2"
    ' engine "$DIR" "$GROUP" >"$DIR/engine.log" 2>&1 </dev/null 8<&- &
    ENGINE=$!
    for _ in $(seq 600); do
        docker version >/dev/null 2>&1 && return
        kill -0 "$ENGINE" 2>/dev/null || break
        sleep 0.1
    done
    fail "the Docker Engine did not start"
}

# An image of links and mount points only: programs come from this machine's /usr (see the compose file).
host_image() {
    local tree=$DIR/tree name
    mkdir -p "$tree"/{usr,etc/alternatives,etc/ssl,var/lib/docker,var/lib/swarm,var/log,proc,sys,dev,run,tmp,opt}
    chmod 1777 "$tree/tmp"
    for name in bin sbin lib lib64; do ln -sfn "usr/$name" "$tree/$name"; done
    ln -sfn ../run "$tree/var/run"
    printf 'root:x:0:0:root:/:/bin/sh\n' >"$tree/etc/passwd"
    printf 'root:x:0:\ndocker:x:999:\n' >"$tree/etc/group"
    tar -C "$tree" -c . | docker import \
        -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - swarmcompose/host >/dev/null
}

show_logs() {
    local k
    tail -n 15 "$DIR/engine.log" || true
    for k in 1 2 3; do
        [ -s "$DIR/host$k" ] || continue
        echo "--- host$k"
        docker logs --tail 5 "$(cat "$DIR/host$k")" || true
        for log in dockerd swarm; do
            docker cp "$(cat "$DIR/host$k"):/var/log/$log.log" - | tar -xO | tail -n 10 || true
        done
    done
    swarm 1 service ps --no-trunc web || true
}

down() {
    local status=$? group
    trap - EXIT
    trap '' INT TERM
    case "$status" in 0 | 130) ;; *) show_logs >&2 ;; esac
    if [ -n "$ENGINE" ]; then
        if kill -0 "$ENGINE" 2>/dev/null; then
            # timeout(1) takes no shell functions.
            export -f compose; export FILE
            timeout 120 bash -c 'compose down --volumes --timeout 3' >"$DIR/down.log" 2>&1 ||
                { echo "compose: down failed" >&2; cat "$DIR/down.log" >&2; status=1; }
            kill $(cat "/proc/$ENGINE/task/$ENGINE/children") || true
            for _ in $(seq 100); do kill -0 "$ENGINE" 2>/dev/null || break; sleep 0.1; done
            kill -9 "$ENGINE" 2>/dev/null || true
        fi
        wait "$ENGINE" 2>/dev/null || true
    fi
    for group in /sys/fs/cgroup/*/"$GROUP" /sys/fs/cgroup/"$GROUP"; do
        for _ in $(seq 50); do
            [ -d "$group" ] || break
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        done
    done
    rm -rf "$DIR"
    rmdir "$SWARM_SCRATCH" 2>/dev/null || true
    [ "$status" != 0 ] || echo "compose: ok"
    exit "$status"
}

hosts_up() {
    local k
    compose up -d >"$DIR/up.log" 2>&1 || { cat "$DIR/up.log" >&2; fail "the hosts did not start"; }
    for k in 1 2 3; do compose ps -q "host$k" >"$DIR/host$k"; done
    for k in 1 2 3; do
        until_true 60 "dockerd of host$k answers" host "$k" docker version
        until_true 60 "swarm of host$k listens" host "$k" test -S /run/swarm/swarm.sock
    done
}

cluster_up() {
    local k token
    swarm 1 init --advertise-addr 10.98.0.11 >/dev/null
    token=$(swarm 1 join-token --quiet worker)
    for k in 2 3; do
        swarm "$k" join --token "$token" --advertise-addr "10.98.0.1$k" 10.98.0.11:2377 >/dev/null
    done
    until_true 30 "three nodes are ready" three_ready
    swarm 1 node ls
}
three_ready() { [ "$(swarm 1 node ls | grep -c ' Ready ')" = 3 ]; }

task_of() { host "$1" docker ps --quiet --filter label=com.docker.swarm.service.name=web | head -1; }
in_task() { local k=$1; shift; host "$k" docker exec "$(task_of "$k")" "$@"; }
replicas_are() { swarm 1 service ls | grep -qE "\sweb\s.*\s$1(\s|\$)"; }
# The addresses a task on host K finds behind the name; those of the server itself stand before "Name:".
addresses() { in_task "$1" nslookup web | sed -n '/^Name:/,$s/^Address[^:]*: *\([0-9.]*\).*/\1/p' | sort -u; }
three_addresses() { [ "$(addresses "$1" | wc -l)" = 3 ]; }
fetch() { in_task "$1" timeout 5 wget -q -O - "http://$2/"; }

check_service() {
    local k address found names
    for k in 1 2 3; do scripts/make-image.sh | host_load "$k"; done
    swarm 1 service create --name web --replicas 3 compose/web \
        sh -c 'hostname > /www/index.html; exec httpd -f -p 80 -h /www' >/dev/null
    until_true 90 "web has 3/3 replicas" replicas_are 3/3
    swarm 1 service ls
    swarm 1 service ps web
    for k in 1 2 3; do [ -n "$(task_of "$k")" ] || fail "no task of web on host$k"; done
    for k in 1 2 3; do
        until_true 20 "a task on host$k finds 3 addresses of web" three_addresses "$k"
        found=$(addresses "$k")
        names=$(for address in $found; do until_true 20 "$address answers host$k" fetch "$k" "$address"
            fetch "$k" "$address"; done | sort -u | wc -l)
        [ "$names" = 3 ] || fail "from host$k, ${names} of 3 tasks answer at:" $found
        until_true 20 "http://web/ answers host$k" fetch "$k" web
        echo "host$k: web is" $found "and each answers"
    done
}
host_load() { docker exec -i "$(cat "$DIR/host$1")" docker import - compose/web >/dev/null; }

install_tools
install_compose
# One at a time: the data of a second run would be that of the first.
mkdir -p "$SWARM_SCRATCH"
exec 8<"$SWARM_SCRATCH"
flock --nonblock 8 || fail "another compose-test.sh runs here (set SWARM_SCRATCH to run beside it)"
rm -rf "$DIR"
trap down EXIT
trap 'exit 130' INT TERM
engine_up
host_image
hosts_up
cluster_up
check_service
if [ "${1:-}" = --keep ]; then
    echo "DOCKER_HOST=$DOCKER_HOST docker exec -it $(cut -c1-12 "$DIR/host1") /opt/swarm node ls"
    echo "Ctrl-C removes everything"
    while sleep 1; do :; done
fi
