#!/bin/bash
# Everything: the gate, unit and property tests, scenarios, the storage suite, and end to end on real Docker Engines in a
# lab of hosts on this machine. Installs what it needs. Run as root; about 40 minutes on two cores from nothing.
#
#   scripts/test.sh            all
#   scripts/test.sh gate|unit|sim|power|engine|e2e|mixed|chaos|quickstart|compose     one part
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
part=${1:-all}
want() { [ "$part" = all ] || [ "$part" = "$1" ]; }
stage() { printf '\n== %s (%(%H:%M:%S)T)\n' "$1" -1; }

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
    ./scripts/sim.sh --seeds 100
    cargo test --locked --quiet --test sim -- --skip any_seed_keeps --skip a_big_cluster --nocapture
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
    stage "chaos on real processes: the checker, then two minutes"
    cargo test --locked --quiet --test e2e -- chaos:: --skip chaos_leaves_what_was_promised
    ./scripts/chaos.sh --minutes 2 --seed "${CHAOS_SEED:-1}"
fi
if want mixed; then
    stage "this release and the one before it in one cluster"
    SWARM_PREVIOUS=$(./scripts/previous.sh)
    export SWARM_PREVIOUS
    cargo test --locked --test e2e -- --test-threads=1 --nocapture mixed::
fi
if want quickstart; then
    stage "quickstart, as a new user"; ./scripts/quickstart.sh; ./scripts/quickstart.sh --down
fi
if want compose; then
    stage "hosts as containers"; ./scripts/compose-test.sh
fi
stage "all passed"
