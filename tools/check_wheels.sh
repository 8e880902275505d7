#!/usr/bin/env bash
# Build both wheels, install them into an empty environment away from the checkout, and run a short mesh from there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
export UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never
export PATH="$PATH:${HOME:-/root}/.cargo/bin:${HOME:-/root}/.local/bin"
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

tools/wheels.sh "$place/dist"
if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then
    uv venv --quiet --python .venv/bin/python "$place/venv"
    uv pip install --quiet --python "$place/venv/bin/python" --require-hashes -r requirements/run.txt
    uv pip install --quiet --python "$place/venv/bin/python" --no-deps "$place"/dist/*.whl
else
    .venv/bin/python -m venv "$place/venv"
    "$place/venv/bin/pip" install --quiet --require-hashes -r requirements/run.txt
    "$place/venv/bin/pip" install --quiet --no-deps "$place"/dist/*.whl
fi
cd "$place" # nothing of the checkout is importable from here
"$place/venv/bin/python" - <<'PY'
import importlib.metadata as metadata

versions = {name: metadata.version(name) for name in ("meshfold", "meshfold-native")}
assert len(set(versions.values())) == 1, versions
pin = f"meshfold-native=={versions['meshfold']}"
assert pin in (metadata.requires("meshfold") or []), f"the release wheel does not pin {pin}"
PY
"$place/venv/bin/meshfold" version
"$place/venv/bin/meshfold" up --for 5s --json >"$place/up.json"
"$place/venv/bin/python" "$root/tools/check_up.py" --short "$place/up.json"
