#!/bin/bash
# Deterministic simulation: managers, or whole clusters, in one thread on simulated time, network and disks, under faults
# that follow from a seed. A failure prints the seed, the faults that it takes, and the command that repeats it.
#
#   scripts/sim.sh                          100 seeds of managers, on all cores
#   scripts/sim.sh --profile cluster        30 seeds of whole clusters: agents, engines, users; also: big, raft,
#                                           canaries (every bug on purpose above the store is to be found)
#   scripts/sim.sh --seeds N [--first S]    N seeds, from S on (1)
#   scripts/sim.sh --seed S [--only 2,5]    one seed; only these faults of its timeline
#   scripts/sim.sh --canary NAME            with a bug made on purpose (src/env/faults.rs)
#   scripts/sim.sh --log FILTER             with what the members log, e.g. swarm=debug
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
export SIM_PROFILE=raft
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --seeds) export SIM_SEEDS=$2 ;;
        --first) export SIM_FIRST=$2 ;;
        --seed) export SIM_SEED=$2 ;;
        --only) export SIM_ONLY=$2 ;;
        --canary) export SIM_CANARY=$2 ;;
        --log) export SIM_LOG=$2 ;;
        --profile) SIM_PROFILE=$2 ;;
        *) usage ;;
    esac
    shift 2
done
# Where runs are many or long: a build of our crate takes minutes longer, and a run a quarter of the time.
optimised=(--config profile.dev.package.swarm.opt-level=1 --config profile.dev.package.swarm.debug=false)
build=()
case $SIM_PROFILE in
    raft) test=any_seed_keeps_the_promises_of_raft seeds=100 ;;
    cluster) test=any_seed_keeps_the_promises_of_a_cluster seeds=30 ;;
    canaries) test=canaries::every_canary_of_a_cluster_is_found seeds=1 build=("${optimised[@]}") ;;
    big) test=a_big_cluster_keeps_them_too seeds=2 build=("${optimised[@]}") ;;
    *) echo "there is no profile $SIM_PROFILE: raft, cluster, canaries and big are what there is" >&2; exit 2 ;;
esac
export SIM_SEEDS=${SIM_SEEDS:-$seeds}
exec cargo test --locked --quiet "${build[@]}" --test sim -- --exact "$test" --nocapture
