"""What the parser has to say about a configuration, in one line: what was given, what was expected, what to type.

jsonargparse reports a wrong value as the tree of all types that it tried, over forty lines for a schedule. The line that
helps is in there; these functions find it, and look up what its author probably meant.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fm_lightning.errors import OldError, UserError

# Where a class that was named without its module is looked for.
_HOMES = (
    "fm_lightning.data",
    "fm_lightning.nets",
    "fm_lightning.flow",
    "fm_lightning.callbacks",
    "fm_lightning.metrics",
    "fm_lightning.metrics.features",
    "fm_lightning.comparison",
    "fm_lightning.training",
    "torch.optim",
    "torch.optim.lr_scheduler",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
)
# Class paths of configurations that were saved before the move into rooms (November 2026).
_MOVED = {
    "fm_lightning.optim": "fm_lightning.training",
    "fm_lightning.tracking": "fm_lightning.training",
    "fm_lightning.trainer": "fm_lightning.training",
    "fm_lightning.data.celeba": "fm_lightning.data",
    "fm_lightning.metrics.inception": "fm_lightning.metrics.features",
    "fm_lightning.metrics.clip": "fm_lightning.metrics.features",
    "fm_lightning.metrics.dinov2": "fm_lightning.metrics.features",
}
_EXAMPLES = {"int": "100", "float": "0.5", "bool": "true", "str": "text", "list": "[1, 2]", "dict": "{a: 1}"}


def user_error(error: BaseException | None) -> UserError | None:
    """The UserError that the parser wrapped while it built an object, if there is one.

    It is found by its type. (A union of types keeps the inner exception where the class stands first: ``Class | str | None``.)
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, UserError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def shorten(message: str, verb: str, options: Iterable[str], configs: Sequence[str]) -> UserError:
    """What the parser's message says, in one line.

    Args:
        message: the parser's.
        verb: the command's.
        options: names of all options of the verb, e.g. ``trainer.max_steps``.
        configs: the configuration files that were given.
    """
    flat = " ".join(message.split())
    where = _where(message)
    options = [o for o in options if o not in ("help", "config", "print_config", "weights_only", "verbose")]
    if found := re.search(r"invalid choice: '([^']*)' \(choose from (.+?)\)", flat):
        verbs = found[2].replace("'", "").split(", ")
        return unknown_verb(found[1], verbs)
    if "is not accepted before subcommand" in flat:
        return OldError(
            f"options given before the verb {verb}", "the verb first", f"type fm-lightning {verb} -c CONFIG.yaml"
        )
    if found := re.search(r'Linked "([^"]+)" must be given via "([^"]+)"', flat):
        return OldError(f"--{found[1]} given", f"{found[2]}, from which it follows", f"type --{found[2]} VALUE")
    if found := re.search(r"unrecognized arguments: (\S+)", flat):
        return _unknown_key(found[1], verb, options, on_command_line=True)
    if found := re.search(r"does not accept option '([^']+)'", flat):
        return _unknown_key(found[1], verb, options, on_command_line=False)
    if found := re.search(r"arguments? (?:is|are) required: ([\w., ]+)", flat):
        missing = " and ".join(name.strip().removeprefix(f"{verb}.") for name in found[1].split(","))
        if inside := re.findall(r"class_path '([^']+)'", flat[: found.start()]):
            name = inside[-1].rpartition(".")[2]
            return OldError(f"{where}{name} without {missing} given", "a value", f"type it under init_args: of {name}")
        return OldError(f"nothing given for {missing}", "a configuration that says it", "type -c configs/digits.yaml")
    if found := re.search(r"Path is not a file: '([^']+)'", flat):
        kept = Path(found[1]) / "config.yaml"
        example = _relative(kept) if kept.exists() else "configs/digits.yaml"
        return OldError(f"-c with the directory {_relative(Path(found[1]))} given", "a file", f"type e.g. -c {example}")
    if found := re.search(r"(?:File|Path) does not exist: '([^']+)'", flat):
        return OldError(
            f"{found[1]} given", "an existing file", "type -c with a configuration, e.g. -c configs/digits.yaml"
        )
    if "Problems parsing config" in flat or "Unexpected config" in flat:
        files = " or ".join(configs) or "the configuration"
        line = re.findall(r"line (\d+), column", flat)
        at = f" (line {line[-1]})" if line else ""
        return OldError(
            f"{files}{at} cannot be read", "YAML of the form 'key: value'", "compare with configs/digits.yaml"
        )
    if found := re.search(r"Option '([^']+)' is not accepted", flat):
        return _unknown_argument(where, _class_path(flat, found.start()), found[1])
    if found := re.search(
        r"module '[\w.]+' has no attribute '\w+'|No module named '[\w.]+'|Expected a dot import path string: (\S+)",
        flat,
    ):
        given = found[1] or _class_path(flat, found.start())
        return _unknown_class(where, given)
    if found := re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", flat):
        return OldError(f"{where}class {found[1]} given", f"a kind of {found[2]}", f"type e.g. {_kinds(found[2])}")
    if found := re.search(r"Not a valid subclass of (\w+)\. Got value: (.+?) Subclass types expect", flat):
        return OldError(
            f"{where}{_clip(found[2])} given",
            f"class_path: and init_args: of a {found[1]}",
            f"type e.g. class_path: {_kinds(found[1])}",
        )
    return _wrong_type(flat, where)


def unknown_verb(given: str, verbs: Sequence[str]) -> UserError:
    """For a first word that is no verb."""
    meant = difflib.get_close_matches(given, verbs, n=1, cutoff=0.5)
    remedy = f"type fm-lightning {meant[0]}" if meant else "type fm-lightning --help"
    return OldError(f"{given!r} given", f"one of {', '.join(verbs)}", remedy)


def _where(message: str) -> str:
    """``model.net > width: ``: the keys on the way to the first wrong value."""
    keys: list[str] = []
    for line in message.splitlines():
        keys += re.findall(r'Parser key "([^"]+)"', line)
        if keys and re.match(r"\s*- Expected a <class 'NoneType'>", line):
            break
    return f"{' > '.join(dict.fromkeys(keys))}: " if keys else ""


def _unknown_key(given: str, verb: str, options: list[str], on_command_line: bool) -> UserError:
    dashes = "--" if on_command_line else ""
    key = given.removeprefix("--").partition("=")[0]
    if on_command_line and not given.startswith("-"):
        return OldError(
            f"{given!r} given", "options of the form --key value", f"type fm-lightning {verb} --help to see them"
        )
    parts, branch = key.split("."), ""
    while parts:  # the longest beginning that exists
        deeper = f"{branch}{parts[0]}."
        if not any(option.startswith(deeper) for option in options):
            break
        branch, parts = deeper, parts[1:]
    children = sorted({option[len(branch) :].partition(".")[0] for option in options if option.startswith(branch)})
    meant = difflib.get_close_matches(parts[0], children, n=1, cutoff=0.5) if parts else []
    if meant:
        whole = branch + ".".join([meant[0], *parts[1:]])
        # What follows the misspelled part is repeated where it can be right.
        leaves = [o for o in options if not any(other.startswith(f"{o}.") for other in options)]
        right = any(
            o == whole or o.startswith(f"{whole}.") or (whole.startswith(f"{o}.") and o in leaves) for o in options
        )
        remedy = f"type {dashes}{whole if right else branch + meant[0]}"
    else:
        remedy = f"type fm-lightning {verb} --help to see all"
    some = ", ".join(children) if len(children) <= 20 else "an option that exists"
    below = f" below {branch[:-1]}" if branch else ""
    return OldError(f"unknown key {dashes}{key} given", f"{some}{below}", remedy)


def _unknown_argument(where: str, class_path: str, argument: str) -> UserError:
    known = _arguments(class_path)
    name = class_path.rpartition(".")[2]
    meant = difflib.get_close_matches(argument, known, n=1, cutoff=0.5)
    expected = ", ".join(known) or "none"
    remedy = f"type {meant[0] if meant else 'one of these'}"
    return OldError(f"{where}{name} does not know {argument!r}", f"among {expected}", remedy)


def _arguments(class_path: str) -> list[str]:
    """Names that a class takes, those behind its ``**kwargs`` included."""
    try:
        module, _, name = class_path.rpartition(".")
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    names: dict[str, None] = {}
    for ancestor in kind.__mro__ if inspect.isclass(kind) else [kind]:
        try:
            parameters = inspect.signature(ancestor).parameters.values()
        except (TypeError, ValueError):
            break
        names |= {p.name: None for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in names if name not in ("self", "params", "optimizer", "base_seed")]


def _unknown_class(where: str, given: str) -> UserError:
    module, _, name = given.rpartition(".")
    if module in _MOVED:
        now = f"{_MOVED[module]}.{name}"
        return OldError(f"{where}class {given} given, which has moved", now, f"type {now}")
    known = _classes(module) if module else {}
    if known:
        expected = f"a class of {module}"
        if len(known) <= 8:
            expected += f" ({', '.join(known)})"
        meant = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5) or [next(iter(known))]
    else:  # the module is wrong as well, or was left out
        known = {n: path for home in reversed(_HOMES) for n, path in _classes(home).items()}
        expected = "the full path of a class"
        meant = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6) or ["Digits"]
    return OldError(f"{where}class {given} given, which does not exist", expected, f"type e.g. {known[meant[0]]}")


def _classes(module: str) -> dict[str, str]:
    """Public classes of a module: name -> path."""
    try:
        home = importlib.import_module(module)
    except (ImportError, ValueError):
        return {}
    public: Any = getattr(home, "__all__", None) or [name for name in vars(home) if not name.startswith("_")]
    kinds = {name: kind for name in public if inspect.isclass(kind := getattr(home, name, None))}
    return {name: f"{module}.{name}" for name, kind in kinds.items() if kind.__module__.startswith(module)}


def _kinds(base: str) -> str:
    """Paths of classes that are of the kind named ``base``."""
    for home in _HOMES:
        found = []
        for name, path in _classes(home).items():
            kind = getattr(importlib.import_module(home), name)
            if base in (parent.__name__ for parent in kind.__mro__[1:]) and not inspect.isabstract(kind):
                found.append(path)
        if found:
            return " or ".join(found[:4])
    return f"a class derived from {base}"


def _wrong_type(flat: str, where: str) -> UserError:
    key = where.removesuffix(": ").rpartition(" > ")[2]
    types = [t for t in dict.fromkeys(re.findall(r"Expected an? <class '([\w.]+)'>", flat)) if t != "NoneType"]
    # The innermost value stands first: what follows are the values around it.
    value = re.search(r"(?:Got value|Given value): (.+?)(?= - |$)", flat)
    if types and value and where:
        example = next((text for t, text in _EXAMPLES.items() if t in types), "another value")
        words = " or ".join(t.rpartition(".")[2] for t in types)
        return OldError(f"{where}{_clip(value[1])} given", words, f"type e.g. {key}: {example}")
    return OldError(_clip(re.sub(r'Parser key "([^"]+)":', r"\1:", flat), 300))


def _class_path(flat: str, position: int) -> str:
    """The class that the complaint at ``position`` is about: named before it, or in the value that follows."""
    before = re.findall(r"class_path '([^']+)'", flat[:position])
    # A callable (optimizer, scheduler) is shown after the complaint, as a Namespace.
    after = re.search(r"class_path='([^']+)'", flat[position:]) if "callable class" in flat[:position] else None
    return after[1] if after else before[-1] if before else "?"


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _clip(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
