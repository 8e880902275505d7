"""The list of public names is the one of the packages, and a change of either is found."""

from __future__ import annotations

from pathlib import Path

import public_api


def test_the_list_is_the_one_of_the_packages() -> None:
    listed = (public_api.ROOT / public_api.LIST).read_text("utf-8").splitlines()
    assert listed == public_api.names(), "run tools/public_api.py, and look at what it changed"


def test_every_room_has_public_names() -> None:
    rooms = {name.split(".")[1] for name in public_api.names()}
    assert rooms == set(public_api.ROOMS)


def test_what_a_package_exports_is_read_and_private_packages_are_not(tmp_path: Path) -> None:
    for folder, text in (
        ("core", '__all__ = ("A", "B")\n'),
        ("core/_inner", '__all__ = ("C",)\n'),
        ("core/sub", "x = 1\n"),
    ):
        place = tmp_path / "core/python/meshfold" / folder
        place.mkdir(parents=True)
        (place / "__init__.py").write_text(text)
    assert public_api.names(tmp_path) == ["meshfold.core.A", "meshfold.core.B"]
