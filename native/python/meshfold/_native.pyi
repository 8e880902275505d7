"""The compiled engine. Import the names of `meshfold.core` and `meshfold.consensus` instead."""

from typing import Final

VERSION: Final[str]
