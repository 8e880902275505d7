"""Every Python block of the documents runs, and prints or yields what the document says.

```python blocks run; the blocks of one file share a namespace and one event loop. `await` is allowed at the top.
An expression followed by `# -> TEXT` must have that repr.
```py blocks show a file of the repository: their first line is a comment with its path, the rest is the file.
```text, ```console and every other kind are for reading.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FENCE = re.compile(
    r"^(?P<ticks>```+)(?P<kind>[^\n`]*)\n(?P<body>.*?)^(?P=ticks)[ \t]*$", re.MULTILINE | re.DOTALL
)
EXPECTED = re.compile(r"#\s*->\s*(?P<text>.*?)\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block: the line of its first line of code, its language, its text."""

    line: int
    kind: str
    body: str


def blocks(content: str) -> list[Block]:
    return [
        Block(content.count("\n", 0, found.start("body")) + 1, found["kind"].strip(), found["body"])
        for found in FENCE.finditer(content)
    ]


def documents() -> list[Path]:
    rooms = [path for path in sorted(ROOT.glob("*/README.md")) if not path.parent.name.startswith(".")]
    return [*sorted(ROOT.glob("*.md")), *rooms, *sorted((ROOT / "docs").rglob("*.md"))]


def with_blocks(kind: str) -> list[Path]:
    return [path for path in documents() if any(b.kind == kind for b in blocks(path.read_text("utf-8")))]


def steps(block: Block, name: str) -> Iterator[tuple[CodeType, str | None, int]]:
    """The block's statements, each with the repr its comment promises."""
    source = "\n" * (block.line - 1) + block.body
    lines = source.splitlines()
    for statement in ast.parse(source, name).body:
        expected = EXPECTED.search(lines[(statement.end_lineno or statement.lineno) - 1])
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        if isinstance(statement, ast.Expr) and expected:
            expression = ast.Expression(statement.value)
            yield compile(expression, name, "eval", flags), expected["text"], statement.lineno
        else:
            assert not expected, f"{name}:{statement.lineno}: only an expression can promise a value"
            yield compile(ast.Module([statement], []), name, "exec", flags), None, statement.lineno


def run(content: str, name: str) -> None:
    module = ModuleType("document")
    sys.modules[module.__name__] = module  # typing looks up the module of a class to resolve its annotations
    try:
        with asyncio.Runner() as runner:

            async def step(code: CodeType) -> Any:
                value = eval(code, module.__dict__)
                return (
                    await value
                    if inspect.isawaitable(value) and code.co_flags & inspect.CO_COROUTINE
                    else value
                )

            for block in blocks(content):
                if block.kind != "python":
                    continue
                for code, expected, line in steps(block, name):
                    value = runner.run(step(code))
                    assert expected is None or repr(value) == expected, (
                        f"{name}:{line}: {value!r}, not {expected}"
                    )
    finally:
        del sys.modules[module.__name__]


def identify(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", with_blocks("python"), ids=identify)
def test_document_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(path.read_text("utf-8"), identify(path))


@pytest.mark.parametrize("path", with_blocks("py"), ids=identify)
def test_shown_files_are_the_files(path: Path) -> None:
    for block in blocks(path.read_text("utf-8")):
        if block.kind == "py":
            first, _, rest = block.body.partition("\n")
            shown = ROOT / first.removeprefix("# ")
            assert rest == shown.read_text("utf-8"), f"{identify(path)}:{block.line} differs from {first}"


@pytest.mark.parametrize("path", documents(), ids=identify)
def test_links_lead_to_files(path: Path) -> None:
    prose = FENCE.sub("", path.read_text("utf-8"))
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose):
        assert (path.parent / target).exists(), f"{identify(path)}: no {target}"


def test_promised_value_is_compared() -> None:
    run("```python\nx = 1\n```\n```python\nx + 1  # -> 2\n```\n", "good.md")
    with pytest.raises(AssertionError, match="bad.md:2: 1, not 2"):
        run("```python\n1  # -> 2\n```\n", "bad.md")


def test_top_level_await_runs_in_one_loop() -> None:
    run(
        "```python\nimport asyncio\nf = asyncio.get_running_loop().create_future()\nf.set_result(3)\n"
        "await f  # -> 3\n```\n",
        "await.md",
    )


def test_the_manual_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    config = (ROOT / "mkdocs.yml").read_text("utf-8").replace("site_dir: target/site", "site_dir: site")
    for room in ("core", "security", "consensus", "mesh", "native"):
        config = config.replace(f"{room}/python", str(ROOT / room / "python"))
    (tmp_path / "mkdocs.yml").write_text(config, "utf-8")
    done = subprocess.run(
        (Path(sys.executable).parent / "zensical", "build", "--clean"),
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0 and "No issues found" in done.stdout, done.stdout
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|link)\b[^>]*(?:src|href)=[\"']?(https?:[^\"'> ]+)", page.read_text("utf-8")
        )
        assert not loaded, f"{page.name} loads {loaded}"
    api = (tmp_path / "site/reference/api/core/index.html").read_text("utf-8")
    assert "publish_many" in api
