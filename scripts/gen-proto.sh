#!/bin/sh
# Writes src/wire/gen from proto/. Run after every change of proto/.
set -eu
cd "$(dirname "$0")/.."
UPDATE_EXPECT=1 cargo test --test it proto::
