"""Hostile subjects at our own parser: row HW36, and what a subject may never say."""

from __future__ import annotations

import random

import pytest
from meshfold.core import Address
from meshfold.core.errors import FrameRejected
from meshfold.mesh.subjects import Subjects

VARIANTS = 100
SUBJECTS = Subjects(b"c" * 16)
SECRET = Address.of("edge", "vault", "secret")
GOOD = SUBJECTS.route("d", SECRET)


def bad_subjects(rng: random.Random) -> list[str]:
    """Subjects that name no route of this mesh and class."""
    tokens = GOOD.split(".")
    found = [".".join(["a"] * 1500), GOOD + ".x" * 2000, "a..b", "." + GOOD, GOOD + ".", "", ".", ">", "*"]
    found += [GOOD.replace(".d.", f".{other}.") for other in "mxwcqkph"]
    found += [GOOD.replace("s-local", site) for site in ("local", "*", ">", "", "S-local")]
    found += [
        GOOD.upper(),
        GOOD + "\n",
        GOOD + "\0",
        GOOD.replace("edge", "ed ge"),
        GOOD.replace("edge", "_5F"),
    ]
    for _ in range(VARIANTS):
        altered = list(tokens)
        how = rng.randrange(4)
        place = rng.randrange(len(tokens))
        if how == 0:
            del altered[place]
        elif how == 1:
            altered.insert(place, rng.choice(("x", "", "*", ">")))
        elif how == 2:
            altered[place] = rng.choice(("*", ">", "", "é", "a b", "%61", "A", "\x7f", "_g0", "x" * 49))
        else:
            altered = altered[: rng.randrange(len(altered))]
        found.append(".".join(altered))
    return found


def test_hw36_a_subject_that_names_no_route_is_refused() -> None:
    seed = random.randrange(2**32)
    subjects = bad_subjects(random.Random(seed))
    assert len(subjects) >= VARIANTS
    for subject in subjects:
        with pytest.raises(FrameRejected) as caught:
            SUBJECTS.address_of("d", subject)
        assert caught.value.reason == "route", f"{subject[:100]!r}, seed {seed}"
    assert SUBJECTS.address_of("d", GOOD) == SECRET


def test_hw36_another_mesh_is_another_subject() -> None:
    with pytest.raises(FrameRejected):
        Subjects(b"d" * 16).address_of("d", GOOD)
