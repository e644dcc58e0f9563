#!/bin/bash
# From a bare Debian machine with cargo to a running cluster of one, with a service that containers find by name.
#
#   scripts/quickstart.sh          installs and starts a Docker Engine if there is none, builds, shows; leaves the cluster up
#   scripts/quickstart.sh --down   removes all that it made
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
[ "$(id -u)" = 0 ] || { echo "quickstart: run as root: it starts a Docker Engine and makes network links" >&2; exit 1; }
ENGINE=/var/run/docker.sock
SCRATCH=/var/tmp/swarm-quickstart
SWARM=${CARGO_TARGET_DIR:-target}/release/swarm
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '\033[2m$ %s\033[0m\n' "$(sed "s#$SWARM#swarm#g" <<<"$*")"; "$@"; }

down() {
    if [ -S /run/swarm/swarm.sock ] && [ -x "$SWARM" ]; then
        "$SWARM" service rm web >/dev/null 2>&1 || true
        "$SWARM" leave --force || true
    fi
    # The supervisor passes the signal on and ends with the daemon.
    if [ -f /run/swarm/daemon.pid ]; then kill "$(cat /run/swarm/daemon.pid)" 2>/dev/null || true; fi
    for _ in $(seq 100); do [ -S /run/swarm/swarm.sock ] || break; sleep 0.1; done
    if [ -f "$SCRATCH/dockerd.pid" ]; then
        docker -H "unix://$ENGINE" image rm --force quickstart/web >/dev/null 2>&1 || true
        local pid; pid=$(cat "$SCRATCH/dockerd.pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    fi
    if [ -f "$SCRATCH/state-is-ours" ]; then rm -rf /var/lib/swarm; fi
    rm -rf "$SCRATCH"
    echo "quickstart: everything it made is gone"
}

engine() { docker -H "unix://$ENGINE" version >/dev/null 2>&1; }

start_engine() {
    engine && return
    say "No Docker Engine answers: starting one"
    setsid dockerd -H "unix://$ENGINE" >"$SCRATCH/dockerd.log" 2>&1 </dev/null &
    echo $! >"$SCRATCH/dockerd.pid"
    for _ in $(seq 300); do engine && return; sleep 0.1; done
    tail -5 "$SCRATCH/dockerd.log" >&2
    echo "quickstart: the Docker Engine did not start" >&2
    exit 1
}

[ "${1:-}" = --down ] && { down; exit 0; }
mkdir -p "$SCRATCH"
[ -e /var/lib/swarm ] || : >"$SCRATCH/state-is-ours"
install_tools
start_engine
say "Building swarm"
cargo build --locked --release --quiet
say "A small image, without any registry"
./scripts/make-image.sh | docker -H "unix://$ENGINE" import - quickstart/web
say "A cluster"
address=$(ip -4 -o route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')
run "$SWARM" init --advertise-addr "${address:-127.0.0.1}"
say "A service"
run "$SWARM" service create --name web --replicas 3 quickstart/web \
    sh -c 'hostname > /www/index.html; exec httpd -f -p 80 -h /www'
run "$SWARM" service ls
run "$SWARM" service ps web
say "Containers find it by name"
one=$(docker -H "unix://$ENGINE" ps --quiet --filter label=com.docker.swarm.service.name=web | head -1)
run docker -H "unix://$ENGINE" exec "$one" nslookup web
run docker -H "unix://$ENGINE" exec "$one" wget -q -O - http://web/
say "What to try next"
cat <<NEXT
  $SWARM service scale web=5             more of it
  $SWARM service logs web                its output
  $SWARM join-token worker               the command that brings another host in
  docker -H unix:///run/swarm/swarm.sock service ls     the stock client, unchanged
  scripts/quickstart.sh --down           remove all this
NEXT
echo "quickstart: ok"
