"""Refresh the hashed requirement lists in requirements/, or check that they still fit.

python tools/lock.py          resolve and write requirements/{dev,run,build}.txt
python tools/lock.py --check  exit 1 where a list misses a declared dependency

The lists carry names, versions and hashes and no host, so that any mirror can serve them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
EXPORT = (
    "uv",
    "export",
    "--format",
    "requirements-txt",
    "--no-header",
    "--no-annotate",
    "--no-emit-workspace",
)
#: File name -> which dependency groups it holds.
LISTS: dict[str, tuple[str, ...]] = {
    "dev.txt": ("--all-extras", "--all-groups"),
    "run.txt": ("--extra=server", "--extra=otel", "--no-dev"),
    "build.txt": ("--only-group", "build"),
}
HEADS = {
    "dev.txt": "# Everything a checkout needs to build and to run its checks.",
    "run.txt": "# What an installed meshfold imports, with the embedded server.",
    "build.txt": "# What building the two wheels needs.",
}
#: An address, or any option but a hash: an option is what names an index.
HOST = re.compile(r"://|^\s*-(?!-hash=)", re.MULTILINE)


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(text: str) -> str:
    """The normalized name at the start of a requirement line."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", text)
    if found is None:
        raise SystemExit(f"lock: cannot read the requirement {text!r}")
    return normal(found.group())


def export(options: tuple[str, ...]) -> str:
    """What uv resolves for these options, as text."""
    done = subprocess.run((*EXPORT, *options), cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    return done.stdout


def blocks(text: str) -> dict[str, str]:
    """Split a list into name -> its lines (version and hashes)."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith(("#", "-")) or not line.strip():
            continue
        if not line.startswith(" "):
            name = requirement_name(line)
            found[name] = found.get(name, "")
        found[name] += line + "\n"
    return found


def declared() -> dict[str, set[str]]:
    """File name -> the distributions pyproject.toml asks for by name."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    hook = project["tool"]["hatch"]["metadata"]["hooks"]["custom"]["dependencies"]
    optional: dict[str, list[str]] = project["project"]["optional-dependencies"]
    extras = [line for lines in optional.values() for line in lines]
    groups: dict[str, list[Any]] = project["dependency-groups"]
    # A group's entry is a requirement, or names a group to include, which is listed by itself.
    lines = [line for group in groups.values() for line in group if isinstance(line, str)]
    # The libraries of values (NumPy, Arrow, protobuf) are the application's choice: a node alone needs none.
    run = {requirement_name(line) for line in [*hook, *optional["server"], *optional["otel"]]}
    return {
        "run.txt": run,
        "dev.txt": run | {requirement_name(line) for line in [*extras, *lines]},
        "build.txt": {requirement_name(line) for line in groups["build"]},
    }


def problems() -> list[str]:
    """Every reason why a list is not usable as it is."""
    found: list[str] = []
    for name, wanted in declared().items():
        path = FOLDER / name
        if not path.is_file():
            found.append(f"requirements/{name} is missing")
            continue
        text = path.read_text(encoding="utf-8")
        have = blocks(text)
        found += [f"requirements/{name} misses {item}" for item in sorted(wanted - have.keys())]
        found += [
            f"requirements/{name}: {item} has no hash" for item in have if "--hash=sha256:" not in have[item]
        ]
        if HOST.search(text):
            found.append(f"requirements/{name} names a host")
    return found


def write() -> None:
    """Resolve and write every list."""
    FOLDER.mkdir(exist_ok=True)
    texts = {name: export(options) for name, options in LISTS.items()}
    for name, text in texts.items():
        (FOLDER / name).write_text(f"{HEADS[name]}\n# Written by tools/lock.py.\n{text}", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Write, or only check."""
    if arguments != ["--check"]:
        write()
    found = problems()
    for line in found:
        sys.stderr.write(f"lock: {line}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
