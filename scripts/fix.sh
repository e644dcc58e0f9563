#!/bin/sh
# Writes what can be written by machines: formatting, generated code.
set -eu
cd "$(dirname "$0")/.."
cargo fmt
./scripts/gen-proto.sh
