"""The repository holds its own rules, and each rule finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest
import tidy


@pytest.mark.parametrize("check", tidy.CHECKS, ids=lambda check: check.__name__)
def test_repository_holds(check: tidy.Check) -> None:
    problems = list(check(tidy.ROOT, tidy.files()))
    assert not problems, "\n" + "\n".join(problems)


def found(check: tidy.Check, root: Path, name: str, content: str) -> list[str]:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return list(check(root, [Path(name)]))


def test_long_file_is_found(tmp_path: Path) -> None:
    assert not found(tidy.file_sizes, tmp_path, "a.rs", "\n" * tidy.FILE_LINES_MAX)
    assert found(tidy.file_sizes, tmp_path, "a.rs", "\n" * (tidy.FILE_LINES_MAX + 1))


def test_long_function_is_found_and_its_docstring_not_counted(tmp_path: Path) -> None:
    body = "    x = 1\n" * (tidy.FUNCTION_LINES_MAX - 1)
    assert not found(tidy.function_sizes, tmp_path, "a.py", f"def f():\n{body}")
    assert not found(tidy.function_sizes, tmp_path, "a.py", f'def f():\n    """A\n\n    B"""\n{body}')
    assert found(tidy.function_sizes, tmp_path, "a.py", f"def f():\n{body}    x = 2\n")


def test_namespace_init_is_found(tmp_path: Path) -> None:
    assert found(tidy.namespace, tmp_path, "core/python/meshfold/__init__.py", "")
    assert not found(tidy.namespace, tmp_path, "core/python/meshfold/core/__init__.py", "")


@pytest.mark.parametrize(
    "content",
    ["", "__all__ = ['f']\n\ndef f() -> None: ...\n", "__all__ = ('g',)\n", "__all__ = ('f', 'f')\nf = 1\n"],
    ids=["none", "list", "unbound", "twice"],
)
def test_bad_exports_are_found(tmp_path: Path, content: str) -> None:
    name = "core/python/meshfold/core/thing.py"
    assert found(tidy.exports, tmp_path, name, content)
    assert not found(tidy.exports, tmp_path, name, "__all__ = ('f',)\n\ndef f() -> None: ...\n")


def test_private_modules_need_no_exports(tmp_path: Path) -> None:
    assert not found(tidy.exports, tmp_path, "core/python/meshfold/core/_thing.py", "")
    assert not found(tidy.exports, tmp_path, "core/python/meshfold/core/_deep/thing.py", "")


@pytest.mark.parametrize("word", [*tidy.MARKERS, *tidy.PLACES, *tidy.HOSTS])
def test_banned_words_are_found(tmp_path: Path, word: str) -> None:
    assert found(tidy.words, tmp_path, "a.md", f"see {word}\n")
    assert not found(tidy.words, tmp_path, "a.md", "seen nothing\n")


@pytest.mark.parametrize("call", ["time.sleep(0.1)", "await asyncio.sleep(1)", "sleep(2)"])
def test_sleeping_tests_are_found(tmp_path: Path, call: str) -> None:
    source = f"async def test_a():\n    {call}\n"
    assert found(tidy.sleeps, tmp_path, "core/tests/test_a.py", source)
    assert not found(tidy.sleeps, tmp_path, "core/python/meshfold/core/a.py", source)
    assert not found(
        tidy.sleeps, tmp_path, "core/tests/test_a.py", "async def test_a():\n    await sleep(0)\n"
    )


@pytest.mark.parametrize("raised", ["NotImplementedError", 'NotImplementedError("later")'])
def test_methods_that_should_be_abstract_are_found(tmp_path: Path, raised: str) -> None:
    assert found(tidy.abstract, tmp_path, "a.py", f"class A:\n    def f(self):\n        raise {raised}\n")
    assert not found(tidy.abstract, tmp_path, "a.py", "def f():\n    raise ValueError\n")


def test_a_tool_that_nobody_names_is_found(tmp_path: Path) -> None:
    assert found(tidy.tools_named, tmp_path, "tools/a.py", "")
    (tmp_path / "tools/README.md").write_text("| `a.py` | does |\n")
    assert not found(tidy.tools_named, tmp_path, "tools/a.py", "")


def test_missing_files_are_found(tmp_path: Path) -> None:
    assert len(list(tidy.typed(tmp_path, []))) == len(tidy.ROOMS) + 1
    assert len(list(tidy.readmes(tmp_path, []))) == len(tidy.WITH_README) + 1
    assert found(tidy.test_folders, tmp_path, "core/tests/__init__.py", "")
