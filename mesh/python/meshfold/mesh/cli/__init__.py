"""The command line: one executable, `meshfold`."""

import sys

__all__ = ("main",)

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C ends it without a traceback from here on."""
    try:
        from meshfold.mesh.cli.interrupts import nothing_begun

        with nothing_begun():
            from meshfold.mesh.cli.app import run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
