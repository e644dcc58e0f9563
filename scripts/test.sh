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

# In a fresh clone everything is built once: what a second build would need only fills the disk.
[ -d "${CARGO_TARGET_DIR:-target}/debug/incremental" ] || export CARGO_INCREMENTAL=0

stage "tools"; install_tools
if want gate; then
    stage "gate"; install_cargo_deny; ./scripts/check.sh
fi
if want unit; then
    stage "unit, properties, scenarios, storage, API"
    test_runner
fi
if want sim; then
    # It takes one core or two for minutes, and everything after it mostly waits: at the lowest priority it costs little
    # time beside the rest.
    if [ "$part" = all ]; then
        stage "simulation: begins, beside what follows"
        cargo test --locked --quiet --no-run --test sim
        simulated=$(mktemp)
        setsid nice -n 19 ./scripts/test.sh sim >"$simulated" 2>&1 & simulation=$!
        trap 'kill -- -$simulation 2>/dev/null || true' EXIT
    else
        stage "simulation: 100 seeds of managers, 30 of clusters, determinism, canaries"
        ./scripts/sim.sh --seeds 100
        ./scripts/sim.sh --profile cluster --seeds 30
        cargo test --locked --quiet --test sim -- --skip any_seed_keeps --skip a_big_cluster --nocapture
    fi
fi
if want power; then
    stage "power cuts, failing disks, damage: both kinds of logs"
    cargo test --locked --quiet --test power -- --nocapture --test-threads=2
fi
if want engine; then
    stage "contract of the real engine"
    with_engine cargo test --locked --quiet --test it -- --test-threads=1 engine:: agent::
fi
if want e2e; then
    stage "end to end on the lab"; cargo test --locked --test e2e -- --test-threads=1 --nocapture --skip chaos:: --skip mixed::
fi
if want chaos; then
    stage "chaos on real processes, and its checker of histories"
    cargo test --locked --quiet --test e2e -- chaos:: --skip chaos_leaves_what_was_promised
    ./scripts/chaos.sh --minutes 1 --seed "${CHAOS_SEED:-1}"
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
if [ -n "${simulation:-}" ]; then
    stage "simulation: ends"
    trap - EXIT
    status=0; wait $simulation || status=$?
    cat "$simulated"; rm "$simulated"
    [ $status = 0 ] || exit $status
fi
stage "all passed"
