#!/usr/bin/env bash
# Build the Jaeger that the tests talk to, from its Go module, and print the path of the binary on stdout.
#
# Version and checksums are pinned in tools/jaeger/. The result is kept in ${XDG_CACHE_HOME:-~/.cache}/meshfold, so this
# takes minutes once and no time afterwards; two runs at a time wait for each other. Ends with 3 where there is no Go.
set -euo pipefail
source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/jaeger" && pwd)

version=$(sed -n 's#^require github.com/jaegertracing/jaeger v##p' "$source_folder/go.mod")
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/meshfold
binary=$cache/jaeger-$version-$(cat "$source_folder"/go.{mod,sum} | sha256sum | cut -c1-8)
wait_s_max=1200

mkdir -p "$cache"
exec 9>"$cache/jaeger.lock"
flock -w "$wait_s_max" 9
if [[ ! -x $binary ]]; then
    if ! command -v go >/dev/null; then
        echo "build_jaeger: no Go on PATH: install Go 1.23 or newer" >&2
        exit 3
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cp "$source_folder"/go.{mod,sum} "$work"
    echo "build_jaeger: building Jaeger $version (some minutes, once)" >&2
    # Without cgo the result runs anywhere. `go install` refuses the module for its replacement of sarama.
    (
        cd "$work"
        CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS='-mod=mod -buildvcs=false -trimpath' \
            go build -ldflags='-s -w' -o jaeger github.com/jaegertracing/jaeger/cmd/jaeger >&2
        if ! cmp -s go.sum "$source_folder/go.sum"; then
            echo "build_jaeger: the sources are not the ones of tools/jaeger/go.sum" >&2
            exit 1
        fi
    )
    mv "$work/jaeger" "$binary.new"
    mv "$binary.new" "$binary"
fi
printf '%s\n' "$binary"
