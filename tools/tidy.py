"""The repository's test of itself: sizes, names, types, words. Prints one line per problem; exit 1 if there is one.

Layers are import-linter's (pyproject.toml), style is ruff's and rustfmt's; this file has what no tool knows.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("core", "security", "consensus", "mesh")
WITH_README = (*ROOMS, "native", "examples", "integration", "helm", "tools")

FILE_LINES_MAX = 800
#: A function fits a screen. Its docstring does not count: the longer the contract, the better.
FUNCTION_LINES_MAX = 70
#: File -> why it may be longer than FILE_LINES_MAX.
LONG_FILES = {"Cargo.lock": "written by cargo"}
#: Lists that tools write: neither their length nor their words are ours.
GENERATED = ("Cargo.lock", "LICENSE", "requirements/")
TEXT_SUFFIXES = {
    ".py",
    ".pyi",
    ".rs",
    ".md",
    ".toml",
    ".sh",
    ".txt",
    ".yaml",
    ".yml",
    ".js",
    ".css",
    ".html",
    ".json",
    "",
}

# Written in pieces, so that this file does not trip over itself.
MARKERS = ("TO" + "DO", "FIX" + "ME", "X" + "XX")
PLACES = ("/wo" + "rk/", "/fa" + "rm/", "/home" + "/")
HOSTS = (
    "py" + "pi.org",
    "python" + "hosted.org",
    "index.crates" + ".io",
    "static.crates" + ".io",
    "proxy.golang" + ".org",
)
BANNED = re.compile(
    "|".join([*(rf"\b{word}\b" for word in MARKERS), *(rf"(?<![\w.]){re.escape(place)}" for place in PLACES)])
    + "|"
    + "|".join(re.escape(host) for host in HOSTS)
)


def files(root: Path = ROOT) -> list[Path]:
    """Every file that is or would be committed, relative to root; in an export without git, every visible file."""
    done = subprocess.run(
        ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"),
        cwd=root,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    if done.returncode == 0:
        names = sorted({name for name in done.stdout.decode().split("\0") if name})
        return [Path(name) for name in names if (root / name).is_file()]
    skip = {".git", ".venv", "target", "dist", "__pycache__"}
    found = (path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file())
    return [path for path in found if not skip.intersection(path.parts)]


def text(path: Path, root: Path) -> str | None:
    """The file's text, or None for anything binary or of another kind."""
    if path.suffix not in TEXT_SUFFIXES:
        return None
    try:
        return (root / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def is_generated(path: Path) -> bool:
    """Whether a tool wrote it."""
    return path.as_posix().startswith(GENERATED)


def is_test(path: Path) -> bool:
    """Whether it is Python that pytest loads."""
    return path.suffix == ".py" and ("tests" in path.parts or path.parts[0] == "integration")


def trees(root: Path, paths: list[Path]) -> Iterator[tuple[Path, ast.Module]]:
    """Every Python file, parsed."""
    for path in paths:
        if path.suffix == ".py":
            yield path, ast.parse((root / path).read_text(encoding="utf-8"), str(path))


def file_sizes(root: Path, paths: list[Path]) -> Iterator[str]:
    """One concept per file."""
    for path in paths:
        content = text(path, root)
        if content is None or is_generated(path) or path.as_posix() in LONG_FILES:
            continue
        lines = content.count("\n")
        if lines > FILE_LINES_MAX:
            yield f"{path}: {lines} lines, at most {FILE_LINES_MAX}"


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines a function takes, its docstring apart."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def function_sizes(root: Path, paths: list[Path]) -> Iterator[str]:
    """A function fits a screen."""
    for path, tree in trees(root, paths):
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and code_lines(node) > FUNCTION_LINES_MAX
            ):
                yield f"{path}:{node.lineno}: {node.name} has {code_lines(node)} lines, at most {FUNCTION_LINES_MAX}"


def namespace(root: Path, paths: list[Path]) -> Iterator[str]:
    """`meshfold` is a namespace of two wheels: an __init__.py in it hides the other one."""
    for path in paths:
        if path.parts[-2:] in {("meshfold", "__init__.py"), ("meshfold", "__init__.pyi")}:
            yield f"{path}: must not exist, it breaks the namespace across the two wheels"


def typed(root: Path, paths: list[Path]) -> Iterator[str]:
    """Every package says that it is typed."""
    wanted = [Path(room, "python/meshfold", room, "py.typed") for room in ROOMS]
    wanted.append(Path("native/python/meshfold/py.typed"))
    for path in wanted:
        if path not in paths:
            yield f"{path}: is missing"


def is_public(path: Path) -> bool:
    """Whether the module is part of what users import."""
    if path.suffix != ".py" or len(path.parts) < 4 or path.parts[1:3] != ("python", "meshfold"):
        return False
    names = [*path.parts[3:-1], path.stem]
    return all(not name.startswith("_") or name == "__init__" for name in names)


def bound_names(tree: ast.Module) -> set[str]:
    """The names a module binds at its top, inside top-level `if` and `try` as well."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def exports(root: Path, paths: list[Path]) -> Iterator[str]:
    """A public module has one `__all__`, a tuple of names it has."""
    for path, tree in trees(root, [path for path in paths if is_public(path)]):
        found = [
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name) and target.id == "__all__"
        ]
        if len(found) != 1 or not isinstance(found[0], ast.Tuple):
            yield f"{path}: needs one __all__, a tuple"
            continue
        names = [item.value for item in found[0].elts if isinstance(item, ast.Constant)]
        for name in names:
            if name not in bound_names(tree):
                yield f"{path}: __all__ names {name!r}, which the module does not have"
        if len(names) != len(set(names)):
            yield f"{path}: __all__ names something twice"


def readmes(root: Path, paths: list[Path]) -> Iterator[str]:
    """Every room says what it is."""
    for room in WITH_README:
        if Path(room, "README.md") not in paths:
            yield f"{room}/README.md: is missing"
    if Path("LICENSE") not in paths:
        yield "LICENSE: is missing"


def words(root: Path, paths: list[Path]) -> Iterator[str]:
    """No unfinished work, no path of one machine, no host of a package index."""
    for path in paths:
        content = None if is_generated(path) else text(path, root)
        for number, line in enumerate((content or "").splitlines(), 1):
            found = BANNED.search(line)
            if found:
                yield f"{path}:{number}: {found.group()!r} has no place here"


def sleeps(root: Path, paths: list[Path]) -> Iterator[str]:
    """A test waits for a condition or advances its clock; sleep(0) only gives way."""
    for path, tree in trees(root, [path for path in paths if is_test(path)]):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            duration = node.args[0]
            if name == "sleep" and isinstance(duration, ast.Constant) and duration.value != 0:
                yield f"{path}:{node.lineno}: a test sleeps for {duration.value!r}"


def abstract(root: Path, paths: list[Path]) -> Iterator[str]:
    """A method that subclasses give is abstract: a class that lacks it is refused when it is made, and by the type checker."""
    for path, tree in trees(root, paths):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Raise) or node.exc is None:
                continue
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name) and raised.id == "NotImplementedError":
                yield f"{path}:{node.lineno}: raises NotImplementedError, make it an @abstractmethod"


def tools_named(root: Path, paths: list[Path]) -> Iterator[str]:
    """tools/README.md has a row for every tool."""
    told = root / "tools/README.md"
    rows = told.read_text(encoding="utf-8") if told.is_file() else ""
    for path in paths:
        if (
            path.parent.as_posix() == "tools"
            and path.suffix in (".py", ".sh")
            and f"| `{path.name}` |" not in rows
        ):
            yield f"tools/README.md: no row for {path.name}"


def test_folders(root: Path, paths: list[Path]) -> Iterator[str]:
    """importlib mode: an __init__.py among tests makes two rooms' modules collide."""
    for path in paths:
        if path.name == "__init__.py" and "tests" in path.parts:
            yield f"{path}: must not exist, tests are loaded by path"


def registry(root: Path, paths: list[Path]) -> Iterator[str]:
    """The generated closed lists are those of core/registry.toml."""
    done = subprocess.run(
        (sys.executable, "tools/registry.py", "--check"),
        cwd=root,
        check=False,
        text=True,
        capture_output=True,
    )
    if done.returncode:
        yield f"core/registry.toml: generated files are stale, run `make fix` ({(done.stdout + done.stderr).strip()})"


def examples(root: Path, paths: list[Path]) -> Iterator[str]:
    """The tables of examples are those of the examples."""
    if not (root / "tools/examples.py").exists():
        return
    command = (sys.executable, "tools/examples.py", "--check")
    done = subprocess.run(command, cwd=root, check=False, text=True, capture_output=True)
    if done.returncode:
        yield done.stderr.strip()


Check = Callable[[Path, list[Path]], Iterator[str]]
CHECKS: tuple[Check, ...] = (
    file_sizes,
    function_sizes,
    namespace,
    typed,
    exports,
    readmes,
    words,
    sleeps,
    abstract,
    tools_named,
    test_folders,
    registry,
    examples,
)


def main() -> int:
    """Run every check over the repository."""
    paths = files()
    problems = [problem for check in CHECKS for problem in check(ROOT, paths)]
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
