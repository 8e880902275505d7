#!/usr/bin/env bash
# Make .venv and install both wheels editable, Rust included. Idempotent: a stamp remembers what was built.
# Everything it says goes to stderr, so that a command after it owns stdout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec 1>&2

export PATH="$PATH:${HOME:-/root}/.cargo/bin:${HOME:-/root}/.local/bin"
export UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never
stamp=.venv/.meshfold-stamp

# What the installed result depends on. Python sources are editable and need no rebuild.
fingerprint() {
    {
        printf '%s\0' "$PWD"
        find core security consensus native -name '*.rs' -not -path '*/tests/*' -print0
        printf '%s\0' Cargo.toml Cargo.lock core/Cargo.toml core/stores/Cargo.toml consensus/Cargo.toml security/Cargo.toml native/Cargo.toml \
            pyproject.toml native/pyproject.toml hatch_build.py requirements/dev.txt
    } | LC_ALL=C sort -z | while IFS= read -r -d '' path; do
        if [[ -f $path ]]; then sha256sum "$path"; else printf '%s\n' "$path"; fi
    done | sha256sum | cut -d' ' -f1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3.14 python3; do
        if [[ -n $candidate ]] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    echo "bootstrap: no Python 3.11 or newer on PATH: install one, or name it with PYTHON=..."
    return 1
}

wanted=$(fingerprint)
if [[ -x .venv/bin/meshfold && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    exit 0
fi
if ! command -v cargo >/dev/null; then
    echo "bootstrap: cargo is missing: install Rust 1.90 or newer with rustup"
    exit 1
fi

python=$(find_python)
if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then
    echo "bootstrap: uv sync (the first build of the Rust engine takes a minute or two)"
    # What is built is known by the stamp, not by times of files: a checkout of another commit may set them back.
    uv sync --quiet --python "$python" --reinstall-package meshfold-native
else
    echo "bootstrap: no uv, so venv and pip with the hashed list"
    if [[ ! -x .venv/bin/pip ]]; then
        rm -rf .venv
        "$python" -m venv .venv
    fi
    export PATH="$PWD/.venv/bin:$PATH"
    .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e ./native -e .
fi
printf '%s\n' "$wanted" >"$stamp"
echo "bootstrap: ready"
