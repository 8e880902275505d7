"""The list of public names, one a line, so that adding or removing one is a line that somebody reviews.

Public is what stands in the `__all__` of a room's package or of a package inside it. `--check` compares, without it the
list is written.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path("docs/public-api.txt")
ROOMS = ("core", "security", "consensus", "mesh")


def packages(root: Path) -> Iterator[tuple[str, Path]]:
    """Every package as (dotted name, its __init__.py)."""
    for room in ROOMS:
        base = root / room / "python"
        for init in sorted(base.glob(f"meshfold/{room}/**/__init__.py")):
            parts = init.parent.relative_to(base).parts
            if not any(part.startswith("_") for part in parts):
                yield ".".join(parts), init


def exported(init: Path) -> list[str]:
    """The names of its `__all__`."""
    for node in ast.parse(init.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def names(root: Path = ROOT) -> list[str]:
    """Every public name with its package, sorted."""
    return sorted(f"{package}.{name}" for package, init in packages(root) for name in exported(init))


def main() -> int:
    """Write the list, or with `--check` say what differs."""
    found = names()
    if "--check" not in sys.argv[1:]:
        (ROOT / LIST).write_text("".join(f"{name}\n" for name in found), "utf-8")
        return 0
    listed = (ROOT / LIST).read_text("utf-8").splitlines()
    added, gone = sorted(set(found) - set(listed)), sorted(set(listed) - set(found))
    sys.stdout.writelines(f"{LIST}: {name} is public and not listed\n" for name in added)
    sys.stdout.writelines(f"{LIST}: {name} is listed and not public\n" for name in gone)
    return 1 if added or gone else 0


if __name__ == "__main__":
    sys.exit(main())
