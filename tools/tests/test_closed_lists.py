"""Every error class and every reason is produced somewhere, and a test makes it happen - or stands here with why not yet."""

from __future__ import annotations

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Reserved on the wire for what later versions bring. A name leaves this list when its feature comes.
RESERVED: dict[str, dict[str, str]] = {
    "reject_reasons": {
        "fence": "write requests over the mesh that carry a token",
        "entry": "log entries between voters",
        "conf": "changes of the set of voters",
        "relay": "messages between voters relayed by a third",
        "graph": "manifests that come from a peer",
    },
    "drop_reasons": {
        "site_expired": "replication between sites",
    },
}
FAMILIES = {"MeshfoldError", "CoreError", "SecurityError", "ConsensusError", "MeshError"}


@cache
def sources() -> tuple[dict[Path, str], dict[Path, str]]:
    """(code, tests) by path."""
    listed = subprocess.run(
        ("git", "ls-files", "*.py", "*.rs"), cwd=ROOT, check=True, capture_output=True, text=True
    )
    code: dict[Path, str] = {}
    tests: dict[Path, str] = {}
    for name in listed.stdout.splitlines():
        path = Path(name)
        if path.name in ("registry.py", "registry.rs", "errors.py") or path == Path(__file__).relative_to(
            ROOT
        ):
            continue
        text = (ROOT / path).read_text("utf-8")
        is_test = "tests" in path.parts or path.parts[0] == "integration" or path.name.startswith("test_")
        (tests if is_test else code)[path] = text
    return code, tests


def found(pattern: str, texts: dict[Path, str]) -> bool:
    return any(re.search(pattern, text) for text in texts.values())


def error_names() -> list[str]:
    text = (ROOT / "core/python/meshfold/core/errors.py").read_text("utf-8")
    return [name for name in re.findall(r"^class (\w+)\(", text, re.MULTILINE) if name not in FAMILIES]


def reasons(kind: str) -> list[str]:
    return list(tomllib.loads((ROOT / "core/registry.toml").read_text("utf-8"))[kind])


@pytest.mark.parametrize("name", error_names())
def test_each_error_is_raised_and_a_test_expects_it(name: str) -> None:
    code, tests = sources()
    assert found(rf'\b{name}\(|"{name}"', code), f"nothing raises {name}"
    assert found(rf"\b{name}\b", tests), f"no test expects {name}"


@pytest.mark.parametrize("kind", RESERVED)
def test_each_reason_is_given_and_a_test_expects_it(kind: str) -> None:
    code, tests = sources()
    missing = []
    for reason in reasons(kind):
        camel = "".join(part.capitalize() for part in reason.split("_"))
        given = found(rf'["\']{reason}["\']|Reason::{camel}\b', code)
        tested = found(rf'["\']{reason}["\']|Reason::{camel}\b', tests)
        if reason in RESERVED[kind]:
            assert not (given and tested), f"{reason} is no longer reserved: take it off the list"
        elif not (given and tested):
            missing.append(f"{reason}: {'never given' if not given else 'never expected by a test'}")
    assert not missing, "\n".join(missing)
