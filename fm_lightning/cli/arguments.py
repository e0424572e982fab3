"""The words of a command, read in one way for every verb. Needs no torch: what is wrong here is answered at once."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fm_lightning.cli import configurations, pages
from fm_lightning.errors import UserError

# Options that may stand alone, and the values that they take otherwise.
_OPTIONAL = {"--again": re.compile("true|false|evaluation"), "--trial": re.compile(r"\d+")}
_OBJECT = re.compile(r"--trainer\.(?:callbacks|logger)\.([A-Z]\w*)")
_ALONE = ("-h", "--help", "--help-all", "--print_config", "--print", "--wandb")


class Complaints(UserError):
    """Several things are wrong, and all of them are said at once."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        super().__init__("\n".join(dict.fromkeys(str(error) for error in errors)), "")

    @property
    def lines(self) -> list[str]:
        """One line per error."""
        return self.problem.split("\n")

    def __str__(self) -> str:
        return self.problem


@contextlib.contextmanager
def noting(errors: list[UserError]) -> Iterator[None]:
    """Collects what is wrong, so that it can be reported together."""
    try:
        yield
    except UserError as error:
        errors.append(error)


def complain(errors: Sequence[UserError]) -> None:
    """Raises what is wrong, if anything is.

    Raises:
        UserError: the only error, or all of them together.
    """
    if errors:
        raise errors[0] if len(errors) == 1 else Complaints(errors)


@dataclass(frozen=True)
class Word:
    """One option with its value, or a bare word.

    Attributes:
        option: ``--trainer.max_steps``; empty for a bare word.
        value: the value; None where the option stands alone.
        text: the words of the command line that it came from.
    """

    option: str
    value: str | None
    text: tuple[str, ...]


def scan(args: Sequence[str]) -> Iterator[Word]:
    """The words of a command line, options paired with their values."""
    left = list(args)
    while left:
        word = left.pop(0)
        if not _is_option(word):
            yield Word("", word, (word,))
            continue
        option, equals, value = word.partition("=")
        option = {"-c": "--config"}.get(option, option)
        takes = _OPTIONAL.get(option)
        if equals:
            yield Word(option, value, (word,))
        elif option in _ALONE or not left or _is_option(left[0]) or (takes and not takes.fullmatch(left[0])):
            yield Word(option, None, (word,))
        else:
            following = left.pop(0)
            yield Word(option, following, (word, following))


def _is_option(word: str) -> bool:
    return re.match(r"--\w|-[A-Za-z]", word) is not None


def resolve(verb: str, args: Sequence[str]) -> list[str]:
    """The arguments for the parser of ``verb``: files for names of configurations, and a run directory spelled out.

    ``-c RUN_DIR``, or ``RUN_DIR`` alone, stands for the run's saved configuration, name and root.

    Raises:
        UserError: everything that can be seen to be wrong without loading a library.
    """
    errors: list[UserError] = []
    found: list[str] = []
    for word in scan(args):
        with noting(errors):
            found += _resolved(verb, word)
    given = [word.option for word in scan(args)]
    asks = any(option in ("-h", "--help", "--help-all") for option in given)
    own = "--autoencoder" if verb == "encode" else "--model.net"
    if not errors and not asks and "-c" not in found and not any(option.startswith(own) for option in given):
        errors.append(UserError(f"{verb} needs a configuration.", f"Use fm-lightning {verb} -c {pages.EXAMPLE[verb]}"))
    complain(errors)
    return found


def _resolved(verb: str, word: Word) -> list[str]:
    if word.option == "--config" or not word.option:
        if not word.value:
            raise UserError("-c needs a file, a run directory or a name.", "Use -c digits")
        if not word.option and not Path(word.value).is_dir():
            shown = f"{word.value!r} is not an option."
            if configurations.exists(word.value):
                raise UserError(shown, f"Use fm-lightning {verb} -c {word.value}")
            raise UserError(shown, f"Options have the form --key value; see fm-lightning {verb} --help")
        return _configuration(verb, word.value)
    if word.option in _OPTIONAL:
        return [f"{word.option}={word.value or {'--again': 'true', '--trial': pages.TRIAL}[word.option]}"]
    if word.option == "--help-all":
        return ["--help"]
    if not word.option.startswith("--"):
        raise UserError(f"Unknown option {word.option}.", f"See fm-lightning {verb} --help")
    if word.value is None and word.option not in _ALONE and word.option.partition(".")[0][2:] in pages.top_level(verb):
        raise UserError(f"{word.option} needs a value.", f"Use {word.option} VALUE")
    if found := _OBJECT.fullmatch(word.option):
        raise UserError(f"{word.option} names no option of {found[1]}.", f"Use {word.option}.OPTION VALUE")
    if word.option in ("--data.init_args.base_seed", "--data.base_seed"):
        raise UserError(f"{word.option} follows from --seed_everything.", "Use --seed_everything VALUE")
    check_key(verb, word.option.removeprefix("--").rstrip("+"), dashes="--")
    if word.value and word.value.lstrip()[:1] in ("{", "["):
        _refuse_keys_twice(word)
    return list(word.text)


def _configuration(verb: str, name: str) -> list[str]:
    path = configurations.find(name)
    errors: list[UserError] = []
    content = configurations.read(path)
    for key in content:
        with noting(errors):
            check_key(verb, str(key), at=f"{path}: ")
    with noting(errors):
        _check_forms(content, path)
    complain(errors)
    if path.parent.is_dir() and Path(name).is_dir() and verb != "encode":
        run = path.parent.resolve()
        root = path.parent.parent if path.parent.name else run.parent
        return ["-c", str(path), "--name", run.name, "--root", str(root)]
    return ["-c", str(path)]


def _check_forms(content: Mapping[str, Any], path: Path) -> None:
    """Refuses sections and lists of another form, some of which the parser would leave out silently."""
    for section in ("trainer", "model"):
        if section in content and not isinstance(content[section], dict):
            raise UserError(f"{path}: {section} holds no 'key: value' lines.", f"Write for example {_FORMS[section]}")
    data = content.get("data")
    if "data" in content and not isinstance(data, str | dict):
        raise UserError(f"{path}: data={data!r} is not a class.", f"Write for example {_FORMS['data']}")
    if isinstance(data, dict) and not isinstance(data.get("init_args", {}), dict):
        raise UserError(f"{path}: data.init_args holds no 'key: value' lines.", "Write for example n: 100")
    callbacks = (content.get("trainer") or {}).get("callbacks")
    if isinstance(callbacks, dict) and "class_path" not in callbacks:
        raise UserError(f"{path}: trainer.callbacks is not a list.", f"Write for example {_FORMS['callbacks']}")


_FORMS = {
    "trainer": "trainer: {max_steps: 1000}",
    "model": "model: {guidance: 1.5}",
    "data": "data: {class_path: fm_lightning.data.Digits}",
    "callbacks": "callbacks: [{class_path: fm_lightning.callbacks.EMA}]",
}


def check_key(verb: str, key: str, dashes: str = "", at: str = "") -> None:
    """Refuses an option whose first part ``verb`` does not know.

    Raises:
        UserError: names the option that was probably meant.
    """
    known = pages.top_level(verb)
    first, dot, rest = key.partition(".")
    if first in known:
        return
    if whole := pages.full_name(verb, key):
        fix = f"Use {dashes}{whole}"
    elif meant := difflib.get_close_matches(first, known, n=1, cutoff=0.5):
        fix = f"Use {dashes}{meant[0]}{dot}{rest}"
    else:
        fix = f"See fm-lightning {verb} --help"
    raise UserError(f"{at}Unknown key {dashes}{key}.", fix)


def _refuse_keys_twice(word: Word) -> None:
    try:
        configurations.load_strictly(str(word.value))
    except configurations.KeyTwice as error:
        raise UserError(f"{word.option}: {error.problem}.", "Keep one of the two.") from None
    except yaml.YAMLError:
        return  # the parser of the option says what it takes


def options_and_runs(verb: str, args: Sequence[str], known: Sequence[str]) -> tuple[dict[str, str | None], list[Path]]:
    """The options of a verb that takes run directories, and the directories.

    Raises:
        UserError: an option that is not ``known``, or what ``run_directories`` refuses.
    """
    words = list(scan(args))
    if unknown := [word.option for word in words if word.option not in ("", "--config", *known)]:
        raise UserError(f"{verb} has no option {unknown[0]}.", f"See fm-lightning {verb} --help")
    options = {word.option: word.value for word in words}
    return options, run_directories(verb, [word for word in words if word.option in ("", "--config")])


def run_directories(verb: str, words: Sequence[Word]) -> list[Path]:
    """The run directories among the words, bare or after ``-c``.

    Raises:
        UserError: all that do not exist or are files.
    """
    errors, found = [], []
    for word in words:
        path = Path(word.value or "")
        if not word.value:
            errors.append(UserError("-c needs a run directory.", f"Use fm-lightning {verb} {pages.EXAMPLE[verb]}"))
        elif path.is_dir():
            found.append(path)
        elif path.is_file():
            errors.append(
                UserError(f"{path} is a file, not a run directory.", f"Use fm-lightning {verb} {path.parent}")
            )
        else:
            errors.append(UserError(f"{path} does not exist.", _existing(path)))
    complain(errors)
    return found


def _existing(path: Path) -> str:
    root = path.parent if path.parent.is_dir() else Path("runs")
    runs = [str(run.parent) for run in sorted(root.glob("*/run.json"))]
    meant = difflib.get_close_matches(str(path), runs, n=1, cutoff=0.5) or runs[-1:]
    return (
        f"Use {meant[0]}, or list the runs with fm-lightning ls {root}"
        if meant
        else "List the runs with fm-lightning ls"
    )
