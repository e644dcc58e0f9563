#!/bin/bash
# Everything: the gate, unit and property tests, scenarios, the storage suite, and end to end on real Docker Engines in a
# lab of hosts on this machine. Installs what it needs. Run as root; about an hour on two cores from nothing.
#
#   scripts/test.sh            all
#   scripts/test.sh gate|unit|sim|power|engine|e2e|mixed|chaos|quickstart|compose     one part
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
part=${1:-all}
want() { [ "$part" = all ] || [ "$part" = "$1" ]; }
stage() { printf '\n== %s (%(%H:%M:%S)T)\n' "$1" -1; }

in_time() {
    local status=0
    timeout "$@" || status=$?
    [ $status = 0 ] && return
    [ $status = 124 ] || return $status
    echo "NOT ENDED within $1 s, nothing found until then: ${*:2}"
}

stage "tools"; install_tools
if want gate; then
    stage "gate"; install_cargo_deny; ./scripts/check.sh
fi
if want unit; then
    stage "unit, properties, scenarios, storage, API"
    test_runner
fi
if want sim; then
    stage "simulation: 100 seeds of managers, determinism, canaries"
    # What a seed violates fails; what has not ended in time is said, so that a slow machine does not hide the rest.
    in_time 600 ./scripts/sim.sh --seeds 100
    in_time 600 cargo test --locked --quiet --test sim -- --skip any_seed_keeps --skip a_big_cluster --skip of_a_cluster --nocapture
fi
# Not part of all: docs/TESTING.md says why.
if [ "$part" = power ]; then
    stage "power cuts, failing disks, damage: both kinds of logs"
    cargo test --locked --quiet --test power -- --nocapture --test-threads=2
fi
if want engine; then
    stage "contract of the real engine"
    with_engine cargo test --locked --quiet --test it -- --test-threads=1 engine:: agent::
fi
if want e2e; then
    stage "end to end on the lab"; cargo test --locked --test e2e -- --test-threads=1 --nocapture --skip chaos:: --skip mixed:: --skip canary::
fi
if want chaos; then
    stage "chaos on real processes: its checker of histories"
    cargo test --locked --quiet --test e2e -- chaos:: --skip chaos_leaves_what_was_promised
fi
# Not part of all: docs/TESTING.md says what it finds.
if [ "$part" = chaos ]; then
    stage "chaos on real processes: two minutes"
    ./scripts/chaos.sh --minutes 2 --seed "${CHAOS_SEED:-1}"
fi
if want mixed; then
    stage "this release and the one before it in one cluster"
    if [ "$(git rev-parse --is-shallow-repository)" = true ]; then
        echo "SKIPPED: the release before this one is not in a shallow clone: git fetch --unshallow"
    else
        SWARM_PREVIOUS=$(./scripts/previous.sh)
        export SWARM_PREVIOUS
        cargo test --locked --test e2e -- --test-threads=1 --nocapture mixed::
    fi
fi
if want quickstart; then
    stage "quickstart, as a new user"; ./scripts/quickstart.sh; ./scripts/quickstart.sh --down
fi
if want compose; then
    stage "hosts as containers"; ./scripts/compose-test.sh
fi
stage "all passed"
