#!/usr/bin/env bash
# Build the image of a node for the container tests: tools/image.sh TAG
#
# Builds the Dockerfile on its own bases where they are at hand or MESHFOLD_TEST_PULL=1 lets them be pulled. Elsewhere it
# makes both bases first, from Debian packages (debootstrap, which needs root) and this machine's Rust toolchain. They are
# kept in the engine as meshfold-test/base and meshfold-test/builder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tag=${1:?usage: tools/image.sh TAG}
export DOCKER_BUILDKIT=0 # the engine alone, without a plugin of the client; its warning about that is dropped below
export PATH="$PATH:${HOME:-/root}/.cargo/bin"
base=meshfold-test/base:bookworm
builder=meshfold-test/builder:bookworm
certificates=/etc/ssl/certs/ca-certificates.crt

has() { docker image inspect "$1" >/dev/null 2>&1; }
default_of() { sed -n "s/^ARG $1=//p" Dockerfile; }

# Bases that trust what this machine trusts: a registry behind an inspecting proxy is reached from inside the build, too.
import() {
    tar -C "$rootfs" --exclude=./var/cache/apt/archives/*.deb --exclude=./var/lib/apt/lists/* -c . \
        | docker import --change "ENV PIP_CERT=$certificates SSL_CERT_FILE=$certificates" "${@:2}" - "$1" >/dev/null
}

make_bases() {
    local sysroot
    if ! command -v debootstrap >/dev/null; then
        { apt-get update --quiet=2 || true; } >&2 # an old list may do
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends debootstrap >&2
    fi
    rootfs=$(mktemp -d)
    trap 'rm -rf "$rootfs"' EXIT
    echo "image: making $base" >&2
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$rootfs" >"$rootfs.log" \
        || { tail -n 20 "$rootfs.log" >&2; exit 1; }
    rm -f "$rootfs.log"
    if [[ -f $certificates ]]; then cp "$certificates" "$rootfs$certificates"; fi
    import "$base"
    echo "image: making $builder" >&2
    chroot "$rootfs" env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --quiet=2 --no-install-recommends gcc libc6-dev >/dev/null
    sysroot=$(rustc --print sysroot)
    mkdir -p "$rootfs/opt/rust"
    cp -a "$sysroot/bin" "$sysroot/lib" "$rootfs/opt/rust/"
    import "$builder" --change "ENV PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

bases=()
if [[ ${MESHFOLD_TEST_PULL:-} != 1 ]] && ! { has "$(default_of BASE)" && has "$(default_of BUILDER)"; }; then
    if ! { has "$base" && has "$builder"; }; then make_bases; fi
    bases=(--build-arg "BASE=$base" --build-arg "BUILDER=$builder")
fi
echo "image: building $tag" >&2
# Registries are reached as this machine reaches them.
docker build --network host "${bases[@]}" --label meshfold.test=image --tag "$tag" . \
    2> >(sed '/^DEPRECATED: The legacy builder/,/^$/d' >&2)
