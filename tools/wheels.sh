#!/usr/bin/env bash
# Build both release wheels into a folder: tools/wheels.sh [OUT]. Uses the build tools of .venv, so nothing is fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-dist}
mkdir -p "$out"
out=$(cd "$out" && pwd)

export MESHFOLD_RELEASE=1 UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never
export PATH="$PWD/.venv/bin:$PATH:${HOME:-/root}/.cargo/bin:${HOME:-/root}/.local/bin"
rm -f "$out"/meshfold-*.whl "$out"/meshfold_native-*.whl
for project in native .; do
    if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then
        VIRTUAL_ENV="$PWD/.venv" uv build --quiet --wheel --no-build-isolation --python .venv/bin/python \
            --out-dir "$out" "$project"
    else
        .venv/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$out" "./$project"
    fi
done
rm -f "$out/.gitignore"
wheels=("$out"/meshfold-*.whl "$out"/meshfold_native-*.whl)
for wheel in "${wheels[@]}"; do
    [[ -f $wheel ]] || { echo "wheels: $wheel was not built" >&2; exit 1; }
    echo "built $(basename "$wheel")"
done
