#!/usr/bin/env bash
# Measures, beside Docker Swarm on the same machine in the same run, and writes docs/BENCHMARKS.md. Run as root.
#
#   scripts/bench.sh [RUNS] [FAULTS]     RUNS per figure (default 10), FAULTS leaders killed (default 100, for a 99th percentile)
#   scripts/bench.sh storage             the raft log on the disk alone; the rest of docs/BENCHMARKS.md stays as it is
#
# Every figure of a comparison is taken in turn (ours, theirs, ours, …) by the same client, with the same image and an Engine of
# its own for each; read the ratios, the absolute times are those of a noisy machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
runs=${1:-10}
faults=${2:-100}
# A section of docs/BENCHMARKS.md: kinds of logs and the bare device, in turn, on the file system of the state directories.
storage() {
    local scratch=/var/tmp/swarm-bench-storage table
    mkdir -p "$scratch"
    table=$(cargo bench --locked --quiet --bench storage -- "$scratch" 2>/dev/null)
    rm -rf "$scratch"
    echo "## The raft log on the disk"; echo
    echo "Written by \`scripts/bench.sh storage\` on $(date -u +%F): $(nproc) cores, Linux $(uname -r), $(stat -f -c %T /var/tmp). A commit is append, barrier and floor; \`write + fdatasync\` is the same on bare files. Taken in turn in one run."
    echo; echo "$table"
}
if [ "$runs" = storage ]; then
    section=$(storage)
    rest=$(awk '/^## The raft log on the disk/ {skip=1; next} /^## / {skip=0} !skip' docs/BENCHMARKS.md)
    printf '%s\n\n%s\n' "$rest" "$section" >docs/BENCHMARKS.md.new
    mv docs/BENCHMARKS.md.new docs/BENCHMARKS.md
    echo "$section"
    exit
fi
export LAB_NAME=swb LAB_STATE=/var/tmp/swarm-bench
tap=
trap '[ -z "$tap" ] || kill "$tap" 2>/dev/null; ./scripts/lab.sh down >/dev/null 2>&1 || true' EXIT
install_tools
# The benches first: building them leaves an unstripped binary behind.
program=$(cargo bench --locked --bench engine --bench plan --no-run 2>&1 | sed -n 's/.*Executable.*engine.rs (\(.*\))/\1/p')
cargo build --locked --release --quiet
export SWARM_BIN=${CARGO_TARGET_DIR:-$PWD/target}/release/swarm
sock() { echo "$LAB_STATE/$LAB_NAME-h$1/sock/$2.sock"; }
swarm() { local k=$1; shift; ./scripts/lab.sh exec "$k" "$SWARM_BIN" "$@"; }
now() { date +%s%N; }
median() { sort -n | awk '{v[NR]=$1} END {print (NR%2) ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }
p99() { sort -n | awk '{v[NR]=$1} END {i=int(NR*0.99+0.999999); print v[i]}'; }
worst() { sort -n | tail --lines=1; }
echo "hosts: 1-3 a cluster of ours, 4 a node of Docker Swarm" >&2
./scripts/lab.sh down >/dev/null 2>&1 || true
# Theirs must not ask a registry that cannot be reached for every task, and Docker Swarm refuses engines with --live-restore.
LAB_DOCKERD='' DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1 ./scripts/lab.sh hosts 4
./scripts/make-image.sh >"$LAB_STATE/image.tar"
for k in 1 2 3 4; do ./scripts/lab.sh load $k "$LAB_STATE/image.tar" swarm/bench >/dev/null; done
# Within a host the current directory is another one.
[ "${program#/}" != "$program" ] || program=$PWD/$program
# Between our daemon and its engine: notes when a container is asked for.
./scripts/lab.sh exec 1 mv /run/docker.sock /run/engine.sock
./scripts/lab.sh exec 1 "$program" tap /run/docker.sock /run/engine.sock "$LAB_STATE/tap.log" >/dev/null 2>&1 &
tap=$!
until ./scripts/lab.sh exec 1 test -S /run/docker.sock; do
    kill -0 "$tap" 2>/dev/null || { echo "the tap before the engine has ended: $program" >&2; exit 1; }
    sleep 0.05
done
swarm 1 init --advertise-addr 10.99.0.1 >/dev/null
swarm 1 policy allow host-network >/dev/null
docker -H "unix://$(sock 4 docker)" swarm init --advertise-addr 10.99.0.4 >/dev/null
docker -H "unix://$(sock 4 docker)" network create --driver overlay bench >/dev/null
beside=$("$program" compare --ours "$(sock 1 swarm)" "$(sock 1 docker)" --theirs "$(sock 4 docker)" "$(sock 4 docker)" \
    --log "$LAB_STATE/tap.log" --image swarm/bench --network bench --runs "$runs")
echo "$beside"

echo "idle and failover with three managers" >&2
for k in 2 3; do
    swarm $k join --token "$(swarm 1 join-token --quiet manager)" 10.99.0.1:2377 >/dev/null
done
managing() { swarm "$1" node ls --format '{{.ManagerStatus}}' 2>/dev/null | grep -cE 'Leader|Reachable' || true; }
# A daemon that has just started does not manage yet: all of them must see all of them.
settle() {
    for k in 1 2 3; do
        until [ "$(managing $k)" = 3 ] && [ "$(swarm $k node ls --format '{{.Status}}' 2>/dev/null | grep -c Ready)" = 3 ]; do sleep 0.2; done
    done
}
leading() { swarm 1 node ls --format '{{.Hostname}} {{.ManagerStatus}}' | awk '$2 == "Leader" {print $1}'; }
settle
pid=$(./scripts/lab.sh exec 1 cat /run/lab-swarm.pid)
ticks() { ./scripts/lab.sh exec 1 awk '{print $14+$15}' "/proc/$pid/stat"; }
before=$(ticks); sleep 20; after=$(ticks)
idle=$(awk -v a="$after" -v b="$before" -v hz="$(getconf CLK_TCK)" 'BEGIN {printf "%.2f", (a-b)/hz/20*100}')
memory=$(./scripts/lab.sh exec 1 awk '/VmRSS/ {printf "%.1f", $2/1024}' "/proc/$pid/status")
failover=()
for run in $(seq "$faults"); do
    leader=$(leading); leader=${leader##*[!0-9]}
    other=$(( leader % 3 + 1 ))
    # One client that writes again and again: a new config per write, the time of every acknowledgement.
    ./scripts/lab.sh kill "$leader" daemon
    began=$(now)
    until echo x | docker -H "unix://$(sock $other swarm)" config create "f$run-$RANDOM" - >/dev/null 2>&1; do :; done
    failover+=($(( ($(now) - began) / 1000000 )))
    ./scripts/lab.sh start "$leader" daemon
    settle
done

echo "a silent host: $runs times" >&2
# A task that stands on no leader; the link of its host is cut; when does the one that replaces it run?
replaced=()
running() { docker -H "unix://$1" service ps probe --filter desired-state=running --format '{{.Node}} {{.CurrentState}}' 2>/dev/null | awk '$2 == "Running" {print $1}'; }
for run in $(seq "$runs"); do
    swarm 1 service create --quiet --name probe --network host --constraint "node.hostname!=$(leading)" swarm/bench sleep 1000000 >/dev/null
    from=$(running "$(sock 1 swarm)"); host=${from##*[!0-9]}; other=$(( host % 3 + 1 ))
    ./scripts/lab.sh cut "$host"
    began=$(now)
    until to=$(running "$(sock $other swarm)"); [ -n "$to" ] && [ "$to" != "$from" ]; do :; done
    replaced+=($(( ($(now) - began) / 1000000 )))
    ./scripts/lab.sh mend "$host"
    settle
    swarm $other service rm probe >/dev/null
done
plan=$(cargo bench --locked --quiet --bench plan 2>/dev/null)
cargo build --locked --release --quiet

{
    echo "# Benchmarks"; echo
    echo "Written by \`scripts/bench.sh $runs\` on $(date -u +%F): $(nproc) cores, $(awk -F: '/model name/ {print $2; exit}' /proc/cpuinfo | xargs), Linux $(uname -r), Docker Engine $(docker -H "unix://$(sock 1 docker)" version --format '{{.Server.Version}}'). Medians of $runs runs, taken in turn."
    echo; echo "## Beside Docker Swarm and the bare Engine"; echo; echo "$beside"
    echo; echo "## By ourselves"; echo; echo "| what | figure |"; echo "|---|---|"
    echo "| leader killed (\`kill -9\`) to next write acknowledged, client start included: median, 99th percentile, worst of $faults | $(printf '%s\n' "${failover[@]}" | median) ms, $(printf '%s\n' "${failover[@]}" | p99) ms, $(printf '%s\n' "${failover[@]}" | worst) ms |"
    echo "| link of a host cut to its task replaced and running elsewhere (host network), as a client sees it: median, worst of $runs | $(printf '%s\n' "${replaced[@]}" | median) ms, $(printf '%s\n' "${replaced[@]}" | worst) ms |"
    echo "| idle leader of three: CPU | $idle % of a core |"
    echo "| idle leader of three: resident memory | $memory MiB |"
    echo "| release binary | $(awk -v b="$(stat -c %s "$SWARM_BIN")" 'BEGIN {printf "%.1f MB", b/1e6}') |"
    echo; echo "## Planning (in process)"; echo; echo '```'; echo "$plan"; echo '```'
    echo; storage
} >docs/BENCHMARKS.md
cat docs/BENCHMARKS.md
