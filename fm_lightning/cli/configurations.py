"""Configurations: found by name or path, read strictly. Needs no torch, so that a mistyped name is answered at once."""

from __future__ import annotations

import difflib
import re
import sys
import zlib
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fm_lightning.errors import UserError

SHIPPED = Path(__file__).resolve().parents[1] / "configs"
SAVED = "config.yaml"  # a run directory's own configuration
_SEAL = "# Saved by fm-lightning, checksum {:08x}. You can edit it.\n"


class KeyTwice(yaml.constructor.ConstructorError):
    """A mapping names a key twice."""


class _StrictLoader(yaml.CSafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self._refuse_twice(node)
        return super().construct_mapping(node, deep)

    def _refuse_twice(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            # "callbacks" and "callbacks+" (which appends) are two keys; "<<" merges an anchor.
            if name in seen and name != "<<":
                raise KeyTwice(None, None, f"{name} stands twice", key.start_mark)
            seen.add(name)
            path, _, rest = name.partition(".")
            if rest and _has_below(node, path, rest):
                raise KeyTwice(None, None, f"{name} stands twice", key.start_mark)


def _has_below(node: yaml.MappingNode, first: str, rest: str) -> bool:
    """Whether a mapping has the key ``rest`` (``a.b`` for a deeper one) below its key ``first``."""
    for key, value in node.value:
        if str(key.value) == first and isinstance(value, yaml.MappingNode):
            name, _, further = rest.partition(".")
            return _has_below(value, name, further) if further else any(str(k.value) == rest for k, _ in value.value)
    return False


def load_strictly(text: str) -> Any:
    """The YAML document ``text``.

    Raises:
        yaml.YAMLError: the text is not YAML, or a mapping names a key twice (``KeyTwice``).
    """
    return yaml.load(text, _StrictLoader)


def sealed(text: str) -> str:
    """A configuration with a first line that tells its checksum: a file that was cut may still be valid YAML."""
    return _SEAL.format(zlib.crc32(text.encode())) + text


def _is_changed(text: str) -> bool:
    """Whether ``text`` has a checksum that is not its own."""
    first, _, rest = text.partition("\n")
    found = re.fullmatch(_SEAL.strip().replace("{:08x}", "([0-9a-f]{8})"), first)
    return found is not None and int(found[1], 16) != zlib.crc32(rest.encode())


@cache
def _say_changed(path: Path) -> None:
    print(f"{path} was edited or damaged since fm-lightning saved it; it is used as it is", file=sys.stderr)


def read(path: Path) -> dict[str, Any]:
    """The content of a configuration file. Says if a saved one has changed.

    Raises:
        UserError: the file is missing, cannot be read, is not YAML, names a key twice, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = load_strictly(text)
    except KeyTwice as error:
        mark = error.problem_mark
        assert mark is not None
        raise UserError(f"{path}, line {mark.line + 1}: {error.problem}.", "Keep one of the two.") from None
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise UserError(f"{path}{line} is not valid YAML.", "Compare it with configs/digits.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path} is not a text file.", "Pass a YAML file, for example -c digits") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", "Check the file and its permissions.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no 'key: value' lines.", "Compare it with configs/digits.yaml")
    if _is_changed(text):
        _say_changed(path)
    return content


def find(name: str, option: str = "-c") -> Path:
    """The file that NAME means after ``-c`` or ``option``: a path, or the name of a configuration that ships with the package.

    Raises:
        UserError: there is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir() and (path / SAVED).is_file():
        return path / SAVED
    # The pages name configurations by their place in the repository; installed, they have no other.
    shipped = SHIPPED / f"{name.removeprefix('configs/').removesuffix('.yaml')}.yaml"
    if (
        name
        and not path.is_absolute()
        and ".." not in path.parts
        and shipped.is_file()
        and shipped.resolve().is_relative_to(SHIPPED.resolve())
    ):
        return shipped
    raise missing(name, option)


def exists(name: str) -> bool:
    """Whether ``find`` finds NAME."""
    try:
        return bool(find(name))
    except UserError:
        return False


def missing(name: str, option: str = "-c") -> UserError:
    """What to say about a configuration that does not exist."""
    names = shipped_names()
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    meant = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    by_tail = [n for n in names if n.rpartition("/")[2] == wanted.rpartition("/")[2]]
    near = _neighbour(Path(name))
    fix = near or (by_tail or meant or ["digits" if option == "-c" else "schedules/kts_tau"])[0]
    if Path(name).is_dir():
        return UserError(
            f"{name} is a directory without {SAVED}.", f"Use a file or a run directory, for example {option} {fix}"
        )
    if not (near or by_tail or meant) and option == "-c" and "/" in name and not name.endswith((".yaml", ".yml")):
        return UserError(f"{name} does not exist.", "List the runs with fm-lightning ls")
    return UserError(f"{name or 'An empty name'} does not exist.", f"Use {option} {fix}")


def shipped_names() -> list[str]:
    """Names of all configurations that ship with the package, for example ``schedules/kts_tau``."""
    home = SHIPPED.resolve()
    return sorted(str(path.relative_to(home).with_suffix("")) for path in home.rglob("*.yaml"))


def _neighbour(path: Path) -> str | None:
    """A YAML file or run next to ``path`` whose name is nearly the same."""
    if not path.parent.is_dir():
        return None
    there = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml") or (p / SAVED).is_file()]
    meant = difflib.get_close_matches(path.name, there, n=1, cutoff=0.75)
    return str(path.with_name(meant[0])) if meant else None
