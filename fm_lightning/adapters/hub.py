"""Exported networks on the Hugging Face Hub: loaded at a pinned commit, uploaded by the user's own login."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fm_lightning.adapters.model_folder import CARD, CONFIG, RESULTS, WEIGHTS, load_folder, read_config
from fm_lightning.errors import UserError

NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


def download(name: str, revision: str | None) -> Path:
    """The folder in the cache that holds an exported network of the Hub.

    Args:
        name: ``user/name``.
        revision: a commit; branches and tags move.

    Raises:
        UserError: no commit, no such model or commit, one that was not exported, or no connection.
    """
    if revision is None or not COMMIT.fullmatch(revision):
        given = "" if revision is None else f", not {revision!r}"
        raise UserError(
            f"A model on the Hub is loaded at a commit of 40 digits{given}.",
            f"Copy it from https://huggingface.co/{name}/commits/main and pass revision=...",
        )
    with _explained(name, revision):
        # Here, because it takes half a second that users of local files need not wait.
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        config, _ = (hf_hub_download(name, file, revision=revision) for file in (CONFIG, WEIGHTS))
        with suppress(EntryNotFoundError):  # a network without results is one all the same
            hf_hub_download(name, RESULTS, revision=revision)
    return Path(config).parent


def push_to_hub(folder: str | Path, name: str, private: bool | None = None) -> str:
    """Uploads an exported folder with the login of this machine (``hf auth login``), and returns the commit.

    Args:
        folder: written by ``fm-lightning export``; it is checked first.
        name: ``user/name``; created if it does not exist.
        private: whether a new repository is private; by default as the user's settings say.

    Raises:
        UserError: a folder that cannot be loaded, whose card or results are of other weights, a refused login, or no connection.
    """
    folder = Path(folder)
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name on the Hub.", "Use user/name.")
    load_folder(folder)
    for file in (CARD, RESULTS):
        if not (folder / file).is_file():
            raise UserError(f"{folder} holds no {file}.", "Export the run again.")
    if read_config(folder)["weights"]["identity"] not in (folder / CARD).read_text(encoding="utf-8"):
        raise UserError(f"{folder / CARD} is the card of other weights.", "Export the run again.")
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    with _explained(name, "main"):
        from huggingface_hub import CommitOperationAdd, HfApi

        api, changes = HfApi(), [CommitOperationAdd(file.name, str(file)) for file in files]
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.create_commit(name, changes, commit_message="fm-lightning export").oid)


@contextmanager
def _explained(name: str, revision: str) -> Iterator[None]:
    """The Hub's errors in one line each."""
    from huggingface_hub import errors

    try:
        yield
    except UserError:
        raise
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError) as error:
        raise _unreachable(name, revision) from error
    except errors.GatedRepoError as error:
        problem = f"{name} is shared only with people whom its author has admitted."
        raise UserError(problem, f"Ask at https://huggingface.co/{name}, and run hf auth login") from error
    except (errors.RepositoryNotFoundError, errors.LocalTokenNotFoundError) as error:
        problem = f"The Hub shows no model {name} to this login."
        raise UserError(problem, "Check the name, or run hf auth login") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{name} has no commit {revision}.", f"Copy one from https://huggingface.co/{name}/commits/main"
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(
            f"{name} at {revision[:12]} was not exported by fm-lightning: {CONFIG} or {WEIGHTS} is missing.",
            "Choose another model, or load it with the library that its page names.",
        ) from error
    except (errors.HfHubHTTPError, ValueError) as error:  # names and cards that are not valid are ValueErrors
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            problem = f"The Hub does not let this login write to {name}."
            raise UserError(problem, "Run hf auth login, with a token that may write there") from error
        reason = " ".join(str(error).partition("For more information")[0].split())[:200].rstrip(".")
        raise UserError(f"The Hub refuses {name}: {reason}.", "Check the name and the login: hf auth whoami") from error
    except Exception as error:
        if not type(error).__module__.startswith("httpx"):  # the client's own errors, of a broken connection
            raise
        raise _unreachable(name, revision) from error


def _unreachable(name: str, revision: str) -> UserError:
    where = f", and {name} at {revision[:12]} is not in the cache" if COMMIT.fullmatch(revision) else ""
    return UserError(
        f"The Hub cannot be reached{where}.", "Connect to the network, unset HF_HUB_OFFLINE, or pass a folder."
    )
