#!/bin/bash
# Chaos on real processes: three managers and a worker on the lab, clients that work on them, and faults that follow from a
# seed (docs/TESTING.md). A failure says the seed, where timeline, history and logs lie, and the command that repeats it.
#
#   scripts/chaos.sh                              two minutes, seed 1
#   scripts/chaos.sh --minutes M --seed S         so long, with that seed
#   scripts/chaos.sh --only kill,failpoint,…      these kinds alone; an unknown one is answered with all there are
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
usage() { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
export CHAOS_MINUTES=2 CHAOS_SEED=1
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --minutes) export CHAOS_MINUTES=$2 ;;
        --seed) export CHAOS_SEED=$2 ;;
        --only) export CHAOS_ONLY=$2 ;;
        *) usage ;;
    esac
    shift 2
done
install_tools
exec cargo test --locked --quiet --test e2e -- --exact chaos::chaos_leaves_what_was_promised --nocapture
