"""``fm-lightning encode -c CONFIG``: images to latents, once.

torchrun --nproc-per-node 8 --no-python fm-lightning encode -c CONFIG     # or srun: processes share the work
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser
from torch import nn

from fm_lightning.cli.endings import crash, fail
from fm_lightning.cli.hush import hush
from fm_lightning.cli.parser_errors import shorten, user_error
from fm_lightning.data import FlowData
from fm_lightning.data.batches import Share
from fm_lightning.data.latents.autoencoder import open_autoencoder
from fm_lightning.data.latents.encode import encode_images
from fm_lightning.errors import UserError
from fm_lightning.table.claim import Claim


def encode(
    data: FlowData,
    autoencoder: nn.Module | str,
    folder: str,
    factor: float | list[float] | None = None,
    shift: float | list[float] | None = None,
    mirrored: bool = True,
    dtype: Literal["float16", "bfloat16", "float32"] = "float16",
    batch_size: int = 32,
    shard_size: int = 10_000,
    device: str | None = None,
    source: dict[str, Any] | None = None,
) -> None:
    """Encode the images of a data set once, into a folder that fm_lightning.data.Latents trains on.

    Args:
        data: the images, as for training; `conditional: true` keeps their classes.
        autoencoder: diffusers' AutoencoderKL by name or folder, or a class with encode and decode.
        folder: directory for the latents; the same command run again resumes.
        factor: scale of the latents that are trained on, (z - shift) * factor; default: the autoencoder's configuration.
        shift: shift of the latents; default: the autoencoder's configuration.
        mirrored: whether mirror images are encoded, too.
        dtype: type of the stored numbers.
        batch_size: images encoded at a time.
        shard_size: images in a file; a process holds one in memory.
        device: for example cuda:1; default: the process's own GPU, or the CPU where there is none.
        source: configuration of the images, for the manifest.
    """
    share, place = processes(os.environ)
    if device is None:
        device = f"cuda:{place % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    network = open_autoencoder(autoencoder, factor, shift)
    # The first process claims the folder for all of its launch.
    with nullcontext() if share.rank else Claim(Path(folder).expanduser()):
        manifest = encode_images(
            data,
            network,
            folder,
            source=source,
            mirrored=mirrored,
            dtype=dtype,
            batch_size=batch_size,
            shard_size=shard_size,
            device=device,
            share=share,
        )
    if manifest is None:
        print(
            f"Process {share.rank} of {share.world} has encoded its share; the last one to finish writes the manifest"
        )
        return
    size = sum(shard.bytes for shard in manifest.shards)
    print(
        f"{sum(manifest.identity.rows.values()):,} images as latents of {list(manifest.shape)}, {size / 1e9:.3g} GB, in "
        f"{folder}; train on them with data: fm_lightning.data.Latents, folder: {folder}"
    )


def processes(environment: Mapping[str, str]) -> tuple[Share, int]:
    """This process among those that torchrun or srun started, and its number on this machine.

    Raises:
        UserError: a rank without a number of processes, or beyond it.
    """
    for rank, world, local in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ):
        if rank in environment and world in environment:
            found = Share(int(environment[rank]), int(environment[world]))
            if not 0 <= found.rank < found.world:
                raise UserError(f"{rank}={found.rank} is not below {world}={found.world}.", f"Set {rank}=0")
            return found, int(environment.get(local, 0))
    return Share(), 0


def main(args: list[str]) -> None:
    """Runs the verb; a ``UserError`` ends it with one line and status 2."""
    hush()
    sys.path.insert(0, os.getcwd())  # for the user's own classes
    about = str(encode.__doc__).split("\n")[0]
    parser = ArgumentParser(prog="fm-lightning encode", description=about, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="a YAML file with these options")
    parser.add_function_arguments(encode, skip={"source"}, sub_configs=True)
    try:
        config = parser.parse_args(args)
        plain = yaml.safe_load(parser.dump(config, skip_none=False))
        chosen = parser.instantiate_classes(config)
        chosen.pop("config", None)
        encode(**chosen.as_dict(), source=plain["data"])
    except KeyboardInterrupt:
        fail("encode was interrupted. Run the same command again to resume", status=130)
    except Exception as error:
        if isinstance(error, ArgumentError) and user_error(error) is None:
            options = [action.dest for action in parser._actions if action.option_strings]
            error = shorten(str(error), "encode", options)
        if wrong := user_error(error):  # perhaps wrapped by the parser that builds the objects
            fail(*getattr(wrong, "lines", [str(wrong)]))
        crash(error, Path("fm-lightning-encode"))
