#!/bin/sh
# The gate: formatting, lints, documentation, architecture, dependencies. Never writes.
set -eu
cd "$(dirname "$0")/.."
echo "== format"; cargo fmt --check
echo "== lints"; cargo clippy --locked --all-targets --quiet -- --deny warnings
echo "== documentation"; RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps --quiet --document-private-items
echo "== architecture"; cargo test --locked --quiet --test tidy
echo "== dependencies"
if cargo deny --version >/dev/null 2>&1; then
    cargo deny --log-level error check bans licenses sources
else
    echo "cargo-deny is not installed; scripts/test.sh installs it"
fi
