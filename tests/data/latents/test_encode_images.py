"""Encoding: what is stored, by how many processes and after what accidents."""

from __future__ import annotations

import os
import resource
import signal
import time

import pytest
import torch
from latent_images import SHARD, TinyNetwork, images, tiny
from safetensors.torch import load_file

from fm_lightning.data import Toy2D
from fm_lightning.data.batches import Share
from fm_lightning.data.latents import Autoencoder, encode_images
from fm_lightning.data.latents.manifest import Manifest
from fm_lightning.errors import UserError


def encode(folder, data=None, autoencoder=None, **options):
    options = {"shard_size": SHARD, "batch_size": 3, **options}
    return encode_images(data or images(), autoencoder or tiny(), folder, **options)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(match, folder, **options):
    with pytest.raises(UserError, match=match) as caught:
        encode(folder, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_moments_of_every_image_are_stored(tmp_path, dtype, mirrored):
    data, network = images(real=4), TinyNetwork()
    manifest = encode(tmp_path, data, Autoencoder(network), dtype=dtype, mirrored=mirrored)
    assert manifest.identity.rows == {"train": 21, "held_out": 5, "real": 4}
    assert [len(s) for s in manifest.of("train")] == [8, 8, 5]
    for name, split in {"train": data.train_split, "held_out": data.held_out_split, "real": data.real_split}.items():
        shards = [load_file(tmp_path / shard.file) for shard in manifest.of(name)]
        stored = {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}
        assert torch.equal(stored["labels"], split.y)
        x = split.x.double() / 127.5 - 1
        for prefix, seen in {"": x, **({"mirrored_": x.flip(-1)} if mirrored else {})}.items():
            with torch.no_grad():
                mean, std = TinyNetwork().double().encode(seen)
            tolerance = {"float16": 2e-3, "bfloat16": 1e-2, "float32": 1e-6}[dtype]
            torch.testing.assert_close(stored[f"{prefix}mean"].double(), mean, rtol=tolerance, atol=tolerance / 10)
            torch.testing.assert_close(stored[f"{prefix}std"].double(), std, rtol=tolerance, atol=tolerance / 10)
        assert len(stored) == 1 + 2 * (1 + mirrored)


def test_statistics_are_those_of_posterior_samples(tmp_path):
    manifest = encode(tmp_path, dtype="float32", mirrored=True)
    shards = [load_file(tmp_path / shard.file) for shard in manifest.of("train")]
    draws = [
        torch.cat([s[f"{prefix}mean"] + s[f"{prefix}std"] * z for s in shards for prefix in ("", "mirrored_")]).double()
        for z in (-1, 1)  # two points with mean 0 and variance 1 stand for a normal draw
    ]
    both = torch.cat(draws).transpose(0, 1).flatten(1)
    torch.testing.assert_close(
        torch.tensor(manifest.channel_mean, dtype=torch.float64), both.mean(1), rtol=1e-6, atol=1e-8
    )
    torch.testing.assert_close(
        torch.tensor(manifest.channel_std, dtype=torch.float64), both.std(1, correction=0), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("world", [2, 3, 7])
def test_many_processes_write_what_one_does(tmp_path, world):
    encode(tmp_path / "one")
    answers = [encode(tmp_path / "many", share=Share(rank, world)) for rank in reversed(range(world))]
    assert files(tmp_path / "one") == files(tmp_path / "many")
    # Three training shards and a held-out one: the first ranks have something to do, and the last of them finishes.
    assert answers[-1] == Manifest.read(tmp_path / "many")
    assert answers[:-1] == [None] * (world - 1)


def test_processes_at_the_same_time(tmp_path):
    encode(tmp_path / "one")
    children = [fork(lambda rank=rank: encode(tmp_path / "many", share=Share(rank, 2))) for rank in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert files(tmp_path / "one") == files(tmp_path / "many")


class Slow(TinyNetwork):
    def encode(self, images):
        time.sleep(0.05)
        return super().encode(images)


def test_killed_it_goes_on_to_the_same_bytes(tmp_path):
    slow = Autoencoder(Slow())
    encode(tmp_path / "whole", autoencoder=slow)
    child = fork(lambda: encode(tmp_path / "killed", autoencoder=slow))
    until = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("*.safetensors")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.safetensors")}
    assert 1 <= len(kept) < 4
    assert not (tmp_path / "killed" / "manifest.json").exists()
    # As if it had been killed while it wrote.
    (tmp_path / "killed" / ".train-00002-of-00003.safetensors.77.tmp").write_bytes(b"half")
    encode(tmp_path / "killed", autoencoder=slow)
    assert files(tmp_path / "whole") == files(tmp_path / "killed")
    assert {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in kept} == kept, "not made again"


def fork(work):
    """Runs ``work`` in a process of its own; its status is 0 if it raises nothing."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def test_finished_it_does_nothing(tmp_path):
    first = encode(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert encode(tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


def test_another_scaling_keeps_the_shards(tmp_path):
    encode(tmp_path)
    before, other = files(tmp_path), Autoencoder(TinyNetwork(), factor=2.0)
    refused(
        r"latents have shift=\[0.1, .*not 0.0 and 2.0.*Delete .*manifest.json",
        tmp_path,
        autoencoder=other,
    )
    (tmp_path / "manifest.json").unlink()
    assert encode(tmp_path, autoencoder=other).factor == 2.0
    assert {k: v for k, v in files(tmp_path).items() if k != "manifest.json"}.items() <= before.items()


@pytest.mark.parametrize("harm", ["truncated", "emptied", "deleted"])
def test_a_damaged_shard_is_made_again(tmp_path, harm):
    encode(tmp_path)
    whole, shard = files(tmp_path), tmp_path / "train-00001-of-00003.safetensors"
    if harm == "deleted":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1] if harm == "truncated" else b"")
    encode(tmp_path)
    assert files(tmp_path) == whole


def test_no_room(tmp_path):
    """A limit on the size of files stands for a full disk: writing fails in the middle of a shard."""
    encode(tmp_path / "whole")
    encode(tmp_path / "full", share=Share(0, 2))
    before, limits = files(tmp_path / "full"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        refused("Cannot write .* Make room .*finished shards are kept", tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path / "full") == before, "nothing lost, nothing left"
    encode(tmp_path / "full")
    assert files(tmp_path / "full") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"data": lambda: images(seed=1)}, "source "),
        ({"data": lambda: images(num_classes=2)}, "source "),
        ({"data": lambda: images(held_out=6)}, "rows "),
        ({"autoencoder": lambda: tiny(seed=2)}, "autoencoder "),
        ({"dtype": lambda: "float32"}, "dtype float32 instead of float16"),
        ({"mirrored": lambda: False}, "mirrored False instead of True"),
        ({"shard_size": lambda: 7}, "shard_size 7 instead of 8"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_other_latents_is_refused(folder, other, said, finished):
    if not finished:
        (folder / "manifest.json").unlink()
    before = files(folder)
    refused(f"holds latents of another source or form.*{said}", folder, **{k: make() for k, make in other.items()})
    assert files(folder) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": lambda: images(shape=(3, 7, 12))}, r"shape \[3, 7, 12\] as \[3, 8, 12\]"),
        ({"data": lambda: images(shape=(1, 8, 12))}, r"cannot encode images of shape \[1, 8, 12\]"),
        ({"data": lambda: points()}, "holds no images"),
        ({"dtype": lambda: "int8"}, "dtype='int8' is not"),
        ({"batch_size": lambda: 0}, "batch_size=0 must"),
        ({"shard_size": lambda: 0}, "shard_size=0 must"),
        ({"autoencoder": lambda: Autoencoder(Large())}, "dtype=float32"),
        ({"autoencoder": lambda: Autoencoder(torch.nn.Identity())}, "Identity has no method encode"),
    ],
)
def test_refused_before_anything_is_written(tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        encode(tmp_path / "latents", **{name: make() for name, make in options.items()})
    assert not list(tmp_path.rglob("*.safetensors"))


def points():
    data = Toy2D()
    data.setup()
    return data


class Large(TinyNetwork):
    def encode(self, images):
        mean, std = super().encode(images)
        return mean * 1e6, std


def test_an_autoencoder_without_posterior(tmp_path):
    class Plain(TinyNetwork):
        def encode(self, images):
            return super().encode(images)[0]

    manifest = encode(tmp_path, autoencoder=Autoencoder(Plain()))
    stored = load_file(tmp_path / manifest.shards[0].file)
    assert not stored["std"].any()
    assert stored["mean"].any()
    assert (manifest.factor, manifest.shift) == (1.0, 0.0)
