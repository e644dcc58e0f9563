#!/bin/bash
# Feeds whatever reads other people's bytes with mutations of its corpus (tests/fuzz/corpus/TARGET). An input that makes a
# target panic, take too long or grow too much is kept in the corpus, and the run ends with its name.
#
#   scripts/fuzz.sh                          every target, 30 seconds each
#   scripts/fuzz.sh --target T               one
#   scripts/fuzz.sh --seconds N              so long for each; 0 replays the corpora alone
#   scripts/fuzz.sh --seed S                 other mutations (the default is drawn)
#   scripts/fuzz.sh --list                   the targets
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { sed -n '5,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
targets() { sed -n '/^targets!\[/,/^\];/s/^    \([a-z_]*\),$/\1/p' src/tests/fuzz.rs; }
export FUZZ_SECONDS=30 FUZZ_SEED=$RANDOM$RANDOM FUZZ_TARGET=
while [ $# -gt 0 ]; do
    case $1 in
        --list) targets; exit ;;
        --target) FUZZ_TARGET=${2:?} ;;
        --seconds) FUZZ_SECONDS=${2:?} ;;
        --seed) FUZZ_SEED=${2:?} ;;
        *) usage ;;
    esac
    shift 2
done
if [ -n "$FUZZ_TARGET" ] && ! targets | grep --quiet --line-regexp "$FUZZ_TARGET"; then
    echo "there is no target $FUZZ_TARGET: ./scripts/fuzz.sh --list" >&2
    exit 2
fi
exec cargo test --locked --quiet --lib -- tests::fuzz:: --nocapture --test-threads=1
