"""Generate the closed lists for Rust, Python and the documentation from core/registry.toml.

python tools/registry.py          write the three files
python tools/registry.py --check  exit 1 where one of them is stale
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "core/registry.toml"
NOTE = "Generated from core/registry.toml by tools/registry.py: change that file instead."


def _tuple(values: list[str]) -> str:
    return "(\n" + "".join(f'    "{value}",\n' for value in values) + ")"


def python(lists: dict[str, Any]) -> str:
    """The Python module: enums for what code branches on, tuples for what it only checks against."""
    out = [f'"""Every closed list of Meshfold.\n\n{NOTE}\n"""\n']
    out.append("from __future__ import annotations\n\nfrom enum import IntEnum, IntFlag, StrEnum")
    out.append("from typing import Final, Literal\n")
    names = ["Action", "ExitCode", "FrameKind", "Taint", "DropReason", "Overflow", "Contract"]
    constants = [
        "ABSORBING_TAINTS",
        "CONTRACTS",
        "DROP_REASONS",
        "FRAME_CLASSES",
        "LAYERS",
        "OVERFLOW_POLICIES",
    ]
    constants += ["PERFECT_TAINTS", "PLANES", "RECEIPTS", "REJECT_REASONS", "TAINT_DOMAINS", "TIME_KINDS"]
    constants += ["VARIANTS", "VARIANT_PLANES"]
    out.append("__all__ = (\n" + "".join(f'    "{name}",\n' for name in sorted(names + constants)) + ")\n")
    out.append('\nclass Action(IntFlag):\n    """What a grant allows, as bits."""\n')
    out += [f"    {name} = {bit}" for name, bit in lists["actions"].items()]
    out.append('\n\nclass ExitCode(IntEnum):\n    """What a command says by its exit code."""\n')
    out += [f"    {name} = {code}" for name, code in lists["exit_codes"].items()]
    out.append('\n\nclass FrameKind(IntEnum):\n    """The kinds of frames on the wire."""\n')
    out += [f"    {name} = {kind['number']}" for name, kind in lists["frame_kinds"].items()]
    out.append(
        '\n\nclass Taint(StrEnum):\n    """Everything that can be less than perfect about an event."""\n'
    )
    out += [f'    {value} = "{value}"' for values in lists["taints"].values() for value in values]
    out.append("")
    for alias, key in (
        ("DropReason", "drop_reasons"),
        ("Overflow", "overflow_policies"),
        ("Contract", "contracts"),
    ):
        inner = "".join(f'    "{value}",\n' for value in lists[key])
        out.append(f"\n{alias} = Literal[\n{inner}]")
    out.append("")
    for key in ("planes", "layers", "time_kinds", "contracts", "receipts", "overflow_policies"):
        out.append(f"{key.upper()}: Final = {_tuple(lists[key])}")
    out.append(f"DROP_REASONS: Final = {_tuple(lists['drop_reasons'])}")
    out.append(f"REJECT_REASONS: Final = {_tuple(lists['reject_reasons'])}")
    out.append(f"VARIANTS: Final = {_tuple(list(lists['variants']))}")
    out.append("VARIANT_PLANES: Final[dict[str, tuple[str, ...]]] = {")
    for name, planes in lists["variants"].items():
        inner = ", ".join(f'"{plane}"' for plane in planes)
        out.append(f'    "{name}": ({inner},),')
    out.append("}")
    out.append('#: Frame kind -> class token of its subject ("" where that is the asker\'s inbox).')
    out.append("FRAME_CLASSES: Final[dict[FrameKind, str]] = {")
    out += [f'    FrameKind.{name}: "{kind["class"]}",' for name, kind in lists["frame_kinds"].items()]
    out.append("}")
    out.append("#: Domain -> its values, the perfect one first (S28).")
    out.append("TAINT_DOMAINS: Final[dict[str, tuple[Taint, ...]]] = {")
    for domain, values in lists["taints"].items():
        out.append(f'    "{domain}": (\n' + "".join(f"        Taint.{v},\n" for v in values) + "    ),")
    out.append("}")
    out.append("PERFECT_TAINTS: Final = frozenset(values[0] for values in TAINT_DOMAINS.values())")
    absorbing = ", ".join(f"Taint.{value}" for value in lists["taint_rules"]["absorbing"])
    out.append(f"ABSORBING_TAINTS: Final = frozenset(({absorbing}))")
    return "\n".join(out) + "\n"


def rust(lists: dict[str, Any]) -> str:
    """The Rust module: taints as one bit each, drop reasons as an enum, names for both."""
    taints = [value for values in lists["taints"].values() for value in values]
    reasons = lists["drop_reasons"]
    out = [f"//! Every closed list the engine needs.\n//!\n//! {NOTE}\n"]
    out.append(
        f"/// Names of all taints; a taint's bit is its position here.\npub const TAINTS: [&str; {len(taints)}] = ["
    )
    out += [f'    "{value}",' for value in taints]
    out.append("];\n")
    out += [
        f"/// The bit of `{value}`.\npub const {value}: u64 = 1 << {bit};" for bit, value in enumerate(taints)
    ]
    out.append(
        "\n/// For each domain, its perfect value and all its values as bits, in the registry's order (S28)."
    )
    out.append(f"pub const TAINT_DOMAINS: [(u64, u64); {len(lists['taints'])}] = [")
    out += [f"    ({values[0]}, {' | '.join(values)})," for values in lists["taints"].values()]
    out.append("];\n")
    out.append("/// Why an accepted event is not delivered on an edge.")
    out.append(
        "#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(u8)]\npub enum DropReason {"
    )
    for number, reason in enumerate(reasons):
        name = "".join(part.title() for part in reason.split("_"))
        out.append(f"    /// `{reason}`\n    {name} = {number},")
    out.append("}\n")
    out.append(
        f"/// Names of all drop reasons; a reason's number is its position here.\npub const DROP_REASONS: [&str; {len(reasons)}] = ["
    )
    out += [f'    "{reason}",' for reason in reasons]
    out.append("];")
    return "\n".join(out) + "\n"


def markdown(lists: dict[str, Any]) -> str:
    """The reference page."""
    out = ["# Registry: every closed list", "", f"<!-- {NOTE} -->", ""]
    for key, value in lists.items():
        out += [f"## {key.replace('_', ' ').capitalize()}", ""]
        if isinstance(value, list):
            out += [", ".join(f"`{item}`" for item in value), ""]
            continue
        out += ["| name | value |", "|---|---|"]
        for name, item in value.items():
            text = ", ".join(f"`{part}`" for part in item) if isinstance(item, list) else f"`{item}`"
            if isinstance(item, dict):
                text = f"{item['number']}, subject class `{item['class'] or 'inbox of the asker'}`"
            out.append(f"| `{name}` | {text} |")
        out.append("")
    return "\n".join(out)


def outputs() -> dict[Path, str]:
    """Each generated file with what it should contain."""
    lists = tomllib.loads(SOURCE.read_text())
    return {
        ROOT / "core/python/meshfold/core/registry.py": python(lists),
        ROOT / "core/src/registry.rs": rust(lists),
        ROOT / "docs/reference/registry.md": markdown(lists),
    }


def main() -> int:
    """Write the files, or with --check only compare them."""
    stale = [path for path, text in outputs().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is stale: run python tools/registry.py\n")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(outputs()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
