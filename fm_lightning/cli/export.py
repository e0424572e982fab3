"""``fm-lightning export RUN_DIR [--to FOLDER]``: a finished run as a folder to share, on a disk or on the Hub.

The folder is written under another name and renamed when it is whole. It loads without Lightning and without the run's code
(see ``adapters.model_folder``). Nothing is uploaded: ``push_to_hub`` does that, with the user's own login.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from torch import Tensor, nn

from fm_lightning.adapters.checkpoints import CONFIG as OWN
from fm_lightning.adapters.checkpoints import check_fits, network_state, read_checkpoint
from fm_lightning.adapters.data_space import UNIT, DataSpace
from fm_lightning.adapters.model_folder import CARD, built, described, write_network
from fm_lightning.cli.arguments import options_and_runs
from fm_lightning.cli.compare import read
from fm_lightning.cli.run_directory import RunDirectory
from fm_lightning.comparison.results import Results
from fm_lightning.comparison.rows import BASE
from fm_lightning.data import Latents, Samples
from fm_lightning.data.latents.autoencoder import scales
from fm_lightning.data.latents.manifest import Manifest
from fm_lightning.data.split import pixels
from fm_lightning.errors import UserError
from fm_lightning.files import sync, write_whole
from fm_lightning.hashes import weights_hash
from fm_lightning.noise import noise
from fm_lightning.report.figures import change_forest, frontier, quality_memorization
from fm_lightning.report.model_card import model_card
from fm_lightning.report.style import png
from fm_lightning.study.replicates import Run

FIGURE = "figure.png"
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def main(args: Sequence[str]) -> None:
    """Writes the folder of one run.

    Raises:
        UserError: not exactly one run, a folder that exists, or a run that is unfinished, has no results or results of other
            weights, or has a network that cannot be rebuilt without its code.
    """
    run, folder, license = _read_arguments(args)
    checkpoint, found = _finished(run)
    results = found.results
    config = checkpoint[OWN]
    description = described(config["model"]["net"])
    net = built(description, run / "config.yaml")
    last = run / "checkpoints" / "last.ckpt"
    state = network_state(checkpoint)
    check_fits(state, net, last)
    net.load_state_dict(state)
    net.eval()
    identity = weights_hash(net)
    if results.identity.get("weights") != identity:
        raise UserError(
            f"{run}/results.json holds results of other weights than {last}.",
            f"Measure these with fm-lightning test -c {run} --again evaluation",
        )
    space = _space(config["data"], results, net)
    about = {"run": run.resolve().name, "step": checkpoint.get("global_step"), "dataset": _dataset(config["data"])}
    facts = {
        "name": run.resolve().name,
        "license": license,
        "dataset": about["dataset"],
        "network": description["class"],
        "parameters": sum(p.numel() for p in net.parameters()),
        "step": about["step"],
        "identity": identity,
        "images": space.pixels == UNIT,
        "classes": space.num_classes,
        "schedule": _arguments(found.manifest.definitions[found.manifest.rows[BASE]["key"]]["schedule"]),
    }
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        draft.mkdir(parents=True)
        write_network(draft, net, description, space, about)
        # Without the configuration, which holds the author's paths: config.json has what loading needs.
        dataclasses.replace(results, config={}).write(draft)
        facts["figure"] = _figure(results, draft)
        write_whole(draft / CARD, model_card(results, facts))
        sync(draft)
        _free(folder)
        draft.rename(folder)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        reason = str(error.strerror).lower()
        raise UserError(f"Cannot write {folder}: {reason}.", "Name another folder with --to.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(f"Exported {run} to {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    print(
        f"Load it with load_network({str(folder)!r}). To share it on the Hub, log in with hf auth login, then in Python:"
    )
    print(f'    fm_lightning.adapters.push_to_hub({str(folder)!r}, "user/{facts["name"]}")')


def _read_arguments(args: Sequence[str]) -> tuple[Path, Path, str]:
    """The run directory, ``--to`` and ``--license``."""
    given, paths = options_and_runs("export", args, ("--to", "--license"))
    if len(paths) != 1:
        raise UserError("export takes one run directory.", "Use fm-lightning export runs/NAME")
    if "--to" in given and not given["--to"]:
        raise UserError("--to needs a folder.", f"Use --to {paths[0].resolve().name}-flow")
    license = given.get("--license", "unknown") or ""
    if not LICENSE.fullmatch(license):
        raise UserError(f"--license {license!r} is no name of a licence.", "Use for example --license mit")
    folder = Path(given.get("--to") or paths[0] / "export")
    _free(folder)
    return paths[0], folder, license


def _free(folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists.", "Name a new folder with --to.")


def _finished(run: Path) -> tuple[dict[str, Any], Run]:
    """The last checkpoint and the comparison of a finished run."""
    place = run.resolve()
    record = RunDirectory(str(place.parent), place.name).record
    if not record:
        raise UserError(f"{run} was not made by fm-lightning run.", "Use fm-lightning export runs/NAME")
    checkpoint = run / "checkpoints" / "last.ckpt"
    if "trained" not in record and checkpoint.exists():
        raise UserError(f"{run} holds an unfinished training.", f"Finish it with fm-lightning run -c {run}")
    if "trained" not in record:
        raise UserError(
            f"The model of {run} was not trained there: it has no checkpoint of its own.", "Share the original weights."
        )
    found = read(run, run.name)
    return read_checkpoint(checkpoint), found


def _space(config: Mapping[str, Any], results: Results, net: nn.Module) -> DataSpace:
    """The space of the samples, as far as it is known without the data themselves."""
    found = DataSpace(
        tuple(results.shape or ()), results.space or "", num_classes=int(getattr(net, "num_classes", 0) or 0)
    )
    data = _data(config)
    if isinstance(data, Latents):
        try:
            manifest = Manifest.read(data.folder)
        except UserError:
            print(f"The latents of {data.folder} are not there: config.json does not say how samples are decoded.")
            return found
        shift, factor = (tuple(values.flatten().tolist()) for values in scales(manifest, data.scaling))
        names = tuple(manifest.class_names) if data.conditional else ()
        return dataclasses.replace(
            found, autoencoder=manifest.autoencoder, shift=shift, factor=factor, class_names=names
        )
    if data is not None and _are_pixels(data, found.shape):
        return dataclasses.replace(found, pixels=UNIT)
    return found


def _data(config: Mapping[str, Any]) -> Samples | None:
    """The datamodule, without its data; None where its class cannot be built here."""
    sys.path.insert(0, str(Path.cwd()))  # a class of the user's own lies where the command is typed
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Samples, "data")
    try:
        return parser.instantiate_classes(parser.parse_object({"data": dict(config)})).data
    except Exception as error:  # of any class of the user's
        print(f"{config.get('class_path')} cannot be built ({error}): config.json does not say how samples are shown.")
        return None


def _are_pixels(data: Samples, shape: Sequence[int]) -> bool:
    """Whether the data show samples in [-1, 1] as pixels."""
    probe: Tensor = noise(range(4), shape, 0)
    try:
        return bool((data.to_uint8(probe) == pixels(probe)).all())
    except Exception:  # no pixels, or only once the data are loaded
        return False


def _dataset(config: Mapping[str, Any]) -> str:
    """The data's name: a source on the Hub, else the class; a path of the author's stays at home."""
    source = (config.get("init_args") or {}).get("source")
    name = str(config["class_path"]).rpartition(".")[2]
    return source if isinstance(source, str) and not Path(source).exists() and source.count("/") == 1 else name.lower()


def _arguments(definition: Mapping[str, Any]) -> str:
    """A definition's fields (``table.keys.definition``) as arguments in Python: every setting that is not the default."""
    return ", ".join(f"{key}={_python(value)}" for key, value in definition.items() if key != "class")


def _python(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{value['class'].rpartition('.')[2]}({_arguments(value)})"
    if isinstance(value, list):
        return f"({', '.join(map(_python, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, str) and value.lstrip("-").startswith("0x"):
        return repr(float.fromhex(value))
    return repr(value)


def _figure(results: Results, folder: Path) -> str | None:
    """Writes the first figure of the report that can be drawn from the results alone."""
    for draw in (frontier, quality_memorization, change_forest):
        if (figure := draw(results, {})) is not None:
            (folder / FIGURE).write_bytes(png(figure))
            return FIGURE
    return None
