#!/bin/bash
# Builds the release before this one, from the commit that tests/mixed/previous names, and prints the path of its binary.
# Cached by commit below the target folder; its dependencies are those of this build, as far as they are the same.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
commit=$(cat tests/mixed/previous)
kept=$target/previous/$commit
if [ ! -x "$kept/swarm" ]; then
    git cat-file -e "$commit^{commit}" 2>/dev/null || {
        echo "the previous release, commit $commit (tests/mixed/previous), is not in this clone: fetch the whole history" \
            "(git fetch --unshallow)" >&2
        exit 1
    }
    mkdir -p "$kept"
    tree=$kept/tree
    git worktree remove --force "$tree" 2>/dev/null || rm -rf "$tree"
    git worktree prune
    git worktree add --quiet --detach "$tree" "$commit"
    # In our own target folder, so that dependencies are not built twice. There both binaries have one name and the last one
    # that was built has it, so ours is put back.
    export CARGO_TARGET_DIR=$target
    (cd "$tree" && cargo build --locked --quiet --bin swarm) >&2
    cp "$target/debug/swarm" "$kept/swarm.new"
    cargo build --locked --quiet --bin swarm >&2
    mv "$kept/swarm.new" "$kept/swarm"
    git worktree remove --force "$tree"
fi
echo "$kept/swarm"
