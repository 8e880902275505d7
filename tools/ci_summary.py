"""Add up what the test stages of .ci/run reported: python tools/ci_summary.py FOLDER

Reads every junit file (*.xml) and every cargo log (*.log) of the folder. Prints what was skipped and why, then `N passed, N failed`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)


def count(folder: Path) -> tuple[int, int, list[str]]:
    """Passed, failed, and one line for each skipped test."""
    passed = failed = 0
    skipped: list[str] = []
    for path in sorted(folder.glob("*.xml")):
        for case in ElementTree.parse(path).iter("testcase"):
            skip = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            elif skip is not None:
                skipped.append(f"{case.get('classname')}::{case.get('name')}: {skip.get('message', '')}")
            else:
                passed += 1
    for path in sorted(folder.glob("*.log")):
        for good, bad, ignored in CARGO.findall(path.read_text(encoding="utf-8", errors="replace")):
            passed += int(good)
            failed += int(bad)
            skipped += [f"{path.stem}: an ignored Rust test"] * int(ignored)
    return passed, failed, skipped


def main(arguments: list[str]) -> int:
    """Print the sums; exit 1 where a test failed or none ran."""
    passed, failed, skipped = count(Path(arguments[0]))
    for line in skipped:
        sys.stdout.write(f"skipped {line}\n")
    sys.stdout.write(f"skipped tests: {len(skipped)}\n{passed} passed, {failed} failed\n")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
