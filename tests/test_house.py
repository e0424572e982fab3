"""Imports run one way, a room knows those built before it and nothing else (see README, "Inside"); errors have fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fm_lightning"
GROUND = {"errors", "estimate", "files", "guidance", "hashes", "lazy", "noise", "phrases", "trajectory"}
# Each room, and the rooms that it may know besides the ground and itself.
KNOWS: dict[str, set[str]] = {
    "flow": set(),
    "nets": set(),
    "metrics": set(),
    "verdicts": set(),
    "table": {"verdicts"},
    "data": {"metrics"},
    "adapters": {"nets"},
    "comparison": {"flow", "nets", "metrics", "verdicts", "table", "data", "adapters"},
    "training": {"flow", "nets", "metrics", "data", "adapters", "table", "comparison"},
    "diagnosis": {"flow", "metrics", "verdicts", "table", "data", "comparison"},
    "study": {"verdicts", "table", "comparison"},
    "report": {"metrics", "verdicts", "table", "comparison", "study", "diagnosis"},
    "callbacks": {
        "flow",
        "nets",
        "metrics",
        "data",
        "adapters",
        "verdicts",
        "table",
        "comparison",
        "training",
        "report",
    },
}
ALL = {*KNOWS, "cli"}
LIGHT = {"flow", "nets", "metrics", "verdicts", "table", "adapters"}  # useful to someone who never imports Lightning


def files() -> Iterator[tuple[str, Path]]:
    """(room, file) of every source file; ``rglob`` does not enter the link to callbacks."""
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).parts
        if inside[0] != "callbacks":
            yield inside[0].removesuffix(".py"), path
    for path in sorted((PACKAGE / "callbacks").resolve().glob("*.py")):
        yield "callbacks", path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, those inside functions and for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield node.lineno, str(node.module)
            yield from (
                (node.lineno, f"{node.module}.{alias.name}") for alias in node.names if node.module == "fm_lightning"
            )


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "fm_lightning" and len(parts) > 1 else None


@pytest.mark.parametrize(("room", "path"), list(files()), ids=lambda value: getattr(value, "stem", value))
def test_a_room_knows_only_those_before_it(room, path):
    if room in ("cli", "notebook", "__main__", "__init__"):
        return
    may = GROUND if room in GROUND else KNOWS[room] | GROUND | {room}
    for line, module in imports(path):
        known = room_of(module)
        assert known is None or known in may, f"{path}:{line}: {room} imports {module}"
        assert not (room in LIGHT | GROUND and module.partition(".")[0] == "lightning"), f"{path}:{line}: Lightning"


def test_every_file_has_a_room():
    top = {path.stem for path in PACKAGE.glob("*.py")}
    assert top == {"__init__", "__main__", "notebook", *GROUND}
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == {*ALL, "configs"}


def test_modules_do_not_import_each_other():
    """No circle between files, not even through an import that a function hides."""
    names = {}
    for room, path in files():
        inside = path.relative_to(PACKAGE) if room != "callbacks" else Path("callbacks") / path.name
        parts = [*inside.parts[:-1], *([] if inside.stem == "__init__" else [inside.stem])]
        names[".".join(["fm_lightning", *parts])] = path
    graph = {
        name: {module for _, module in imports(path) if module in names and module != name}
        for name, path in names.items()
        if name != "fm_lightning"
    }
    # A package's __init__ collects its own modules: only what comes back through another room would be a circle.
    for name, known in graph.items():
        graph[name] = {m for m in known if not name.startswith(f"{m}.")}
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for module in sorted(graph.get(name, ())):
                walk(module, (*way, name))
            done.add(name)

    for name in graph:
        walk(name, ())


def errors(tree: ast.AST) -> Iterator[ast.Call]:
    """Every call that makes a UserError."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("UserError", "NotFiniteError"):
            yield node


@pytest.mark.parametrize(("room", "path"), list(files()), ids=lambda value: getattr(value, "stem", value))
def test_errors_are_two_sentences(room, path):
    """The problem ends with a full stop, and the template of three fields does not come back."""
    for call in errors(ast.parse(path.read_text())):
        where = f"{path}:{call.lineno}"
        assert len(call.args) + len(call.keywords) == 2, f"{where}: a problem and a fix"
        for argument in call.args:
            text = ast.unparse(argument)
            assert not re.search(r", expected |[;,] (type|give) | given[\"']?$", text), f"{where}: {text}"
        problem = call.args[0]
        tail = problem.values[-1] if isinstance(problem, ast.JoinedStr) and problem.values else problem
        if isinstance(tail, ast.Constant):
            assert str(tail.value).rstrip().endswith((".", "?", "!")), f"{where}: the problem is a sentence"


LAZY = [path for path in sorted(PACKAGE.rglob("__init__.py")) if "lazy import lazy" in path.read_text()]


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_no_module_hides_a_name_that_is_loaded_at_first_use(path):
    """Once a module of that name is imported, it would stand for the name."""
    (checked,) = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
    names = [alias.name for line in checked.body for alias in line.names]
    assert names
    assert not [name for name in names if (path.parent / f"{name}.py").exists() or (path.parent / name).is_dir()]
