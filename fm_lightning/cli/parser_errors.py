"""The parser's message in one line: what is wrong, and what was probably meant.

jsonargparse reports a wrong value as the tree of all types that it tried, over forty lines for a schedule. These functions
find the line that helps. What can be checked without the parser is refused earlier, by ``arguments.resolve``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from typing import Any

from fm_lightning.cli.arguments import Complaints
from fm_lightning.cli.endings import chain
from fm_lightning.errors import UserError

# Modules in which a class is searched that was named without its module.
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


def user_error(error: BaseException | None) -> UserError | None:
    """The UserError inside an exception of the parser, which wraps what a constructor raised; None if there is none.

    (A union of types keeps the inner exception where the class stands first: ``Class | str | None``.)
    """
    return next((link for link in chain(error) if isinstance(link, UserError)), None)


def constructor_error(error: BaseException) -> UserError | None:
    """What a constructor raised, where the parser keeps no more than its text; None for any other exception."""
    text = str(error)
    found = re.search(r"Errors: - (.+?) - (?:Not a valid|Expected)", " ".join(text.split()))
    if found is None:
        return None
    what = found[1].replace("`", "").strip("'").rstrip(".")
    return UserError(f"{_where(text)}{_clip(what, 200)}.", "Correct this value.")


def shorten(message: str, verb: str, options: Iterable[str] = ()) -> UserError:
    """The parser's message in one line, or one line per unknown option.

    Args:
        message: the parser's message.
        verb: the command's verb.
        options: names of all options of the verb, for example ``trainer.max_steps``.
    """
    flat, where, known = " ".join(message.split()), _where(message), list(options)
    if found := re.search(r'Linked "([^"]+)" must be given via "([^"]+)"', flat):
        return UserError(f"--{found[1]} follows from --{found[2]}.", f"Use --{found[2]} VALUE")
    if found := re.search(r"(\S+) stands twice in .*?line (\d+)", flat):
        file = re.search(r"[^\s'\"]+\.(?:yaml|yml|json)", flat)
        return UserError(
            f"{file[0] if file else where}, line {found[2]}: {found[1]} stands twice.", "Keep one of the two."
        )
    if found := re.search(r"unrecognized arguments: (.+)", flat):
        words = [word for word in found[1].split() if word.startswith("--")]
        return Complaints([_unknown_key(word, verb, known, "--") for word in words])
    if found := re.search(r"does not accept option '([^']+)'", flat):
        return _unknown_key(found[1], verb, known)
    if found := re.search(r"arguments? (?:is|are) required: ([\w., ]+)", flat):
        missing = " and ".join(name.strip().removeprefix(f"{verb}.") for name in found[1].split(","))
        if inside := re.findall(r"class_path '([^']+)'", flat[: found.start()]):
            name = inside[-1].rpartition(".")[2]
            return UserError(f"{where}{name} needs {missing}.", f"Set it under init_args: of {name}.")
        return UserError(f"The configuration sets no {missing}.", "Start from one that does, for example -c digits")
    if found := re.search(r"Option '([^']+)' is not accepted", flat):
        return _unknown_argument(where, _class_path(flat, found.start()), found[1])
    missing_class = (
        r"module '[\w.]+' has no attribute '\w+'|No module named '[\w.]+'|Expected a dot import path string: (\S+)"
    )
    if found := re.search(missing_class, flat):
        given = found[1] or _class_path(flat, found.start())
        if "." not in given and given.islower() and (number := re.search(r"<class '(int|float)'>", flat)):
            problem = f"{where.removesuffix(': ')}={given} has the wrong type."
            return UserError(problem, f"Use a value of type {number[1]}.")
        base = re.search(r"subclass of (\w+)", flat)
        return _unknown_class(where, given, base[1] if base else "")
    if found := re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", flat):
        return UserError(f"{where}{found[1]} is not a {found[2]}.", f"Use {_kinds(found[2])}")
    if found := re.search(r"Not a valid subclass of (\w+)\. Got value: (.+?) Subclass types expect", flat):
        problem = f"{where}{_clip(found[2])} is not a {found[1]}."
        if found[1] == "Schedule":
            return UserError(problem, "Write for example {steps: 50}")
        return UserError(problem, f"Name a class with class_path: and init_args:, for example {_kinds(found[1])}")
    return _wrong_type(flat, where)


def _where(message: str) -> str:
    """The keys that lead to the first wrong value: ``model.net > width: ``."""
    keys: list[str] = []
    for line in message.splitlines():
        keys += re.findall(r'Parser key "([^"]+)"', line)
        if keys and re.match(r"\s*- Expected a <class 'NoneType'>", line):
            break
    return f"{' > '.join(dict.fromkeys(keys))}: " if keys else ""


def _unknown_key(given: str, verb: str, options: list[str], dashes: str = "") -> UserError:
    key = given.removeprefix("--").partition("=")[0]
    parts, branch = key.split("."), ""
    while parts and any(option.startswith(f"{branch}{parts[0]}.") for option in options):
        branch, parts = f"{branch}{parts[0]}.", parts[1:]
    children = sorted({option[len(branch) :].partition(".")[0] for option in options if option.startswith(branch)})
    meant = difflib.get_close_matches(parts[0], children, n=1, cutoff=0.5) if parts else []
    # What follows the misspelt part is repeated only below an option of its own, for instance --model.net.init_args.x.
    is_leaf = bool(meant) and f"{branch}{meant[0]}" in options
    rest = "".join(f".{part}" for part in parts[1:]) if is_leaf else ""
    fix = f"Use {dashes}{branch}{meant[0]}{rest}" if meant else f"See fm-lightning {verb} --help-all"
    return UserError(f"Unknown key {dashes}{key}.", fix)


def _unknown_argument(where: str, class_path: str, argument: str) -> UserError:
    known, name = _arguments(class_path), class_path.rpartition(".")[2]
    meant = difflib.get_close_matches(argument, known, n=1, cutoff=0.5)
    if name == "WandbLogger":  # wandb.init's arguments reach it through **kwargs, which the parser cannot list
        fix = f"Use --trainer.logger.WandbLogger.{argument} V, or dict_kwargs: {{{argument}: V}} in the file"
    else:
        fix = f"Use {meant[0]}" if meant else "Remove it."
    return UserError(f"{where}{name} has no option {argument!r} ({', '.join(known) or 'it takes none'}).", fix)


def _arguments(class_path: str) -> list[str]:
    """Names that a class takes, including those that it passes on to its base classes."""
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


def _unknown_class(where: str, given: str, base: str) -> UserError:
    module, _, name = given.rpartition(".")
    known = _classes(module) if module else {}
    if not known:  # the module is wrong as well, or was left out
        known = {n: path for home in reversed(_HOMES) for n, path in _classes(home).items()}
    meant = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    example = _kinds(base) if base else "fm_lightning.data.Digits"
    fix = f"Use {known[meant[0]]}" if meant else f"Name a class by its full path, for example {example}"
    return UserError(f"{where}The class {given} does not exist.", fix)


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
    """Paths of classes derived from the class named ``base``."""
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
    key = where.removesuffix(": ")
    types = [t for t in dict.fromkeys(re.findall(r"Expected an? <class '([\w.]+)'>", flat)) if t != "NoneType"]
    # The innermost value stands first; the values around it follow.
    value = re.search(r"(?:Got value|Given value): (.+?)(?= - |\. (?:Got|Given) value|$)", flat)
    choices = ", ".join(dict.fromkeys(c for some in re.findall(r"Literal\[([^\]]+)\]", flat) for c in some.split(", ")))
    # A whole number is meant where the parser also takes true and false, and YAML's sequences are lists.
    names = [t.rpartition(".")[2] for t in types]
    names = [name for name in names if name != "bool" or "int" not in names]
    words = " or ".join(dict.fromkeys({"Sequence": "list", "tuple": "list"}.get(name, name) for name in names))
    if key and choices:
        given = f"={_clip(value[1])}" if value else ""
        return UserError(
            f"{key}{given} is not allowed.", f"Use {choices}{f' or a value of type {words}' if words else ''}."
        )
    if words and value and key:
        return UserError(f"{key}={_clip(value[1])} has the wrong type.", f"Use a value of type {words}.")
    text = re.sub(r'Parser key "([^"]+)":', r"\1:", flat)
    return UserError(f"{_clip(text, 300)}.", "See --help-all")


def _class_path(flat: str, position: int) -> str:
    """The class that the message is about at ``position``: named before it, or in the value that follows."""
    before = re.findall(r"class_path '([^']+)'", flat[:position])
    # A callable (optimizer, scheduler) is shown after the complaint, as a Namespace.
    after = re.search(r"class_path='([^']+)'", flat[position:]) if "callable class" in flat[:position] else None
    return after[1] if after else before[-1] if before else "?"


def _clip(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
