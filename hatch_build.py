"""Metadata hook: `pip install .` in a checkout builds ./native beside us; a release pins its version."""

import os
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class NativeSibling(MetadataHookInterface):
    """Add the dependency on meshfold-native that fits: the folder beside us, or the released wheel."""

    def update(self, metadata: dict) -> None:
        if "MESHFOLD_RELEASE" in os.environ:
            native = f"meshfold-native=={metadata['version']}"
        else:
            # Package indexes refuse direct references, so a release without the variable fails loudly.
            native = f"meshfold-native @ {(Path(self.root) / 'native').as_uri()}"
        metadata["dependencies"] = [native, *self.config["dependencies"]]
