#!/bin/bash
# Keeps what a release leaves on a manager's disk, for tests/it/upgrade/fixture.rs: snapshot, log, record, key, ledger.
#
#   scripts/make-fixture.sh BINARY OUT.tar.gz     as root; the binary is the release's (scripts/previous.sh prints one)
set -euo pipefail
binary=$(realpath "${1:?which binary?}") out=$(realpath "${2:?which file?}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A network of its own, so that nothing of this machine is touched; no engine is needed for what is replicated.
SWARM=$binary WORK=$work unshare --net --mount --pid --fork --mount-proc bash -euc '
ip link set lo up; ip addr add 10.99.0.1/24 dev lo
mkdir "$WORK/state" "$WORK/run"; mount -t tmpfs tmpfs "$WORK/run"
export SWARM_SOCKET=$WORK/run/swarm.sock
"$SWARM" daemon --state-dir "$WORK/state" --run-dir "$WORK/run" --engine "$WORK/none.sock" >"$WORK/log" 2>&1 &
daemon=$!
for _ in $(seq 200); do [ -S "$SWARM_SOCKET" ] && break; sleep 0.05; done
echo "correct horse battery" >"$WORK/passphrase"
"$SWARM" init --advertise-addr 10.99.0.1
echo "a secret" | "$SWARM" secret create key -
echo "a text" | "$SWARM" config create text -
"$SWARM" service create --detach --name web --replicas 2 --secret key --config text --label a=b nothing:1
"$SWARM" backup create --passphrase-file "$WORK/passphrase" "$WORK/backup.swarm"
"$SWARM" leave --force
# A restored cluster begins with a snapshot; what follows is in its log.
"$SWARM" backup restore --passphrase-file "$WORK/passphrase" --advertise-addr 10.99.0.1 "$WORK/backup.swarm"
"$SWARM" service scale --detach web=3
echo "another text" | "$SWARM" config create later -
sleep 1
kill -TERM $daemon; wait $daemon || true
' || { tail -20 "$work/log" >&2; exit 1; }
cp "$work/backup.swarm" "$work/state/backup.swarm"
rm -f "$work"/state/raft*/ballast "$work/state/daemon.log" "$work/state/lock"
tar -C "$work/state" --sort=name --owner=0 --group=0 -czf "$out" .
ls -la "$out"
