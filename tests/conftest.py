"""Tiny runs through the real command line, in this process: importing Lightning again takes seconds."""

from __future__ import annotations

import gc
import logging
from pathlib import Path

import pytest
import torch
from tiny_runs import Ended, tiny_config

# Networks of width 16 gain nothing from threads, and timings of two cores depend on them.
torch.set_num_threads(1)
logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)


# What libraries hold stays: searching it for garbage takes a tenth of the time.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    gc.unfreeze()


@pytest.fixture
def command(tmp_path, monkeypatch, capfd, request):
    """``command("fit", "-c", ...)`` as typed in an empty directory that has the configuration tiny.yaml."""
    from fm_lightning.__main__ import main

    monkeypatch.chdir(tmp_path)
    tiny_config(tmp_path / "tiny.yaml")
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(
            "fm_lightning.report.page.write_report", lambda folder, results, arrays: Path(folder) / "report.html"
        )

    def run(*args: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["fm-lightning", *map(str, args)])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as exit:
            status = exit.code or 0
        return Ended(status, *capfd.readouterr())

    return run


@pytest.fixture
def drawn():
    """Comparisons write report.html too; its figures take seconds, so that a test asks for them."""


@pytest.fixture
def listing(tmp_path):
    """A function: every file below the working directory with its content and time, to see that nothing changed."""

    def look() -> dict[str, tuple[int, bytes]]:
        files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
        return {str(path.relative_to(tmp_path)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files} | {
            str(path.relative_to(tmp_path)) + "/": (0, b"") for path in tmp_path.rglob("*") if path.is_dir()
        }

    return look


@pytest.fixture
def refused(command, listing):
    """Runs a command that must be refused: status 2, one line, nothing changed; returns the line."""

    def run(*args: object) -> str:
        before = listing()
        ended = command(*args)
        assert ended.status == 2, ended
        lines = ended.err.splitlines()
        assert len(lines) == 1, ended.err
        assert lines[0].startswith("fm-lightning: ")
        assert len(lines[0]) < 420, lines[0]
        assert "Traceback" not in ended.out + ended.err
        assert listing() == before, "nothing is moved, made or overwritten"
        return lines[0]

    return run


@pytest.fixture(scope="session")
def kl_folder(tmp_path_factory):
    """An AutoencoderKL of random weights as ``save_pretrained`` leaves it."""
    AutoencoderKL = pytest.importorskip("diffusers").AutoencoderKL
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            shift_factor=0.25,
        )
    path = tmp_path_factory.mktemp("autoencoder")
    network.save_pretrained(path)
    return path
