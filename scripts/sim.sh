#!/bin/bash
# Deterministic simulation: whole groups of managers in one thread, on simulated time, network and disks, under faults
# that follow from a seed. A failure prints the seed, the faults that it takes, and the command that repeats it.
#
#   scripts/sim.sh                          100 seeds, on all cores
#   scripts/sim.sh --seeds N [--first S]    N seeds, from S on (1)
#   scripts/sim.sh --seed S [--only 2,5]    one seed; only these faults of its timeline
#   scripts/sim.sh --profile raft           the profile (raft is what there is)
#   scripts/sim.sh --canary NAME            with a bug made on purpose (src/env/faults.rs)
#   scripts/sim.sh --log FILTER             with what the members log, e.g. swarm=debug
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
export SIM_SEEDS=100
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --seeds) export SIM_SEEDS=$2 ;;
        --first) export SIM_FIRST=$2 ;;
        --seed) export SIM_SEED=$2 ;;
        --only) export SIM_ONLY=$2 ;;
        --canary) export SIM_CANARY=$2 ;;
        --log) export SIM_LOG=$2 ;;
        --profile) [ "$2" = raft ] || { echo "there is no profile $2: raft is what there is" >&2; exit 2; } ;;
        *) usage ;;
    esac
    shift 2
done
exec cargo test --locked --quiet --test sim -- --exact any_seed_keeps_the_promises_of_raft --nocapture
