# Shared by the scripts: tools and a Docker Engine of our own. To be sourced; needs root.
SWARM_SCRATCH=${SWARM_SCRATCH:-/var/tmp/swarm-scratch}

# Debian's packages that the project needs at run time and for tests.
install_tools() {
    local missing=()
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v docker-init >/dev/null || missing+=(docker.io)
    command -v nft >/dev/null || missing+=(nftables)
    command -v ip >/dev/null || missing+=(iproute2)
    command -v iptables >/dev/null || missing+=(iptables)
    command -v nsenter >/dev/null || missing+=(util-linux)
    command -v sysctl >/dev/null || missing+=(procps)
    command -v curl >/dev/null || missing+=(curl)
    command -v python3 >/dev/null || missing+=(python3-minimal)
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing+=(libfaketime)
    command -v cc >/dev/null || missing+=(gcc)
    command -v fusermount3 >/dev/null || missing+=(fuse3)
    { command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1; } || missing+=(busybox-static)
    [ ${#missing[@]} = 0 ] && return
    [ "$(id -u)" = 0 ] || { echo "missing: ${missing[*]}; run as root to install them" >&2; exit 1; }
    echo "installing: ${missing[*]}"
    apt-get update -qq
    # The packages' services must not start here: the scripts start engines of their own.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq "${missing[@]}" >/dev/null
}

install_cargo_deny() {
    cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked --quiet
}

# nextest where it is found, plain cargo test otherwise. Properties run on fixed seeds, so that a change is judged by what it
# changed; PROPTEST_RNG_SEED=… or `env -u` explores others.
test_runner() {
    export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-20261121}
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --lib --bins --test it --test scenarios --test tidy
    else
        cargo test --locked --lib --bins --test it --test scenarios --test tidy
    fi
}

# Runs a command with a private Docker Engine that has a busybox image; its socket is in SWARM_TEST_DOCKER.
with_engine() {
    local dir=$SWARM_SCRATCH/engine pid status=0
    mkdir -p "$dir"
    dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" -H "unix://$dir/docker.sock" \
        --bridge=none --iptables=false --cgroup-parent /swarm-scratch >"$dir/log" 2>&1 &
    pid=$!
    for _ in $(seq 400); do
        docker -H "unix://$dir/docker.sock" version >/dev/null 2>&1 && break
        kill -0 $pid 2>/dev/null || { tail -5 "$dir/log" >&2; return 1; }
        sleep 0.05
    done
    ./scripts/make-image.sh | docker -H "unix://$dir/docker.sock" import - busybox:latest >/dev/null
    SWARM_TEST_DOCKER="unix://$dir/docker.sock" "$@" || status=$?
    kill $pid; wait $pid || true
    rm -rf "$dir"
    return $status
}
