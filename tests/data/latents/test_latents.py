"""Training on latents: what is drawn, what is compared with, and how little is held in memory."""

from __future__ import annotations

import json
import re

import pytest
import torch
from latent_images import SHARD, TinyNetwork, images, tiny
from safetensors.torch import load_file, save_file

from fm_lightning.data import Latents
from fm_lightning.data.batches import TrainBatch
from fm_lightning.data.latents import Autoencoder, encode_images
from fm_lightning.errors import UserError
from fm_lightning.files import read_json, write_json

SHIFT = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None]


def stored(folder, split="train"):
    shards = [load_file(path) for path in sorted(folder.glob(f"{split}-*.safetensors"))]
    return {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}


def trained_on(data, index, step=3, offset=0, total=None):
    """What the network sees of these rows."""
    batch = TrainBatch(*data.train_split.fetch(index), step, offset, total or len(index))
    return data.on_after_batch_transfer(batch, 0).x


def test_splits(folder, opened):
    data, kept = opened(conditional=True), stored(folder)
    assert data.shape == (4, 4, 6)
    assert (data.num_classes, data.class_names) == (3, ["a", "b", "c"])
    assert [len(split) for split in (data.train_split, data.real_split, data.held_out_split)] == [21, 21, 5]
    x, y = data.real_split.fetch(torch.tensor([20, 0, 8]))
    assert torch.equal(x, kept["mean"][[20, 0, 8]])
    assert torch.equal(y, kept["labels"][[20, 0, 8]])
    assert torch.equal(data.real(), (kept["mean"].float() - SHIFT) * 0.5)
    assert torch.equal(data.reference(), data.real())
    assert torch.equal(data.reference(torch.tensor([9, 2])), data.real()[[9, 2]])
    assert torch.equal(data.held_out(), (stored(folder, "held_out")["mean"].float() - SHIFT) * 0.5)
    assert torch.equal(data.encoded(data.real_split)[3:5], data.real()[3:5])


def test_parts(folder, opened):
    kept = stored(folder)["mean"]
    data = opened(train_part="train[2:12]", n=7, held_out_part="train[12:]")
    assert torch.equal(data.memorized[:], kept[2:9])
    assert torch.equal(data.real_split.x[:], kept[2:12])
    assert torch.equal(data.held_out_split.x[:], kept[12:])
    assert data.train_split.y is None
    assert data.num_classes == 0


def test_real_images_of_their_own(tmp_path):
    encode_images(images(real=6), tiny(), tmp_path, shard_size=SHARD)
    data = Latents(str(tmp_path))
    data.setup()
    assert torch.equal(data.real_split.x[:], stored(tmp_path, "real")["mean"])


def test_each_step_draws_from_the_posterior(folder, opened):
    data, kept = opened(base_seed=4), stored(folder)
    index = torch.arange(21)
    draws = torch.stack([trained_on(data, index, step) for step in range(400)]) / 0.5 + SHIFT
    z = (draws - kept["mean"].float()) / kept["std"].float()
    assert z.mean().abs() < 4 / z.numel() ** 0.5
    assert abs(z.std() - 1) < 4 / (2 * z.numel()) ** 0.5
    assert z.abs().max() > 4, "unbounded, as a normal is"
    correlation = torch.corrcoef(z.flatten(1)[:2])[0, 1]
    assert abs(correlation) < 5 / z[0].numel() ** 0.5, "steps draw independently"
    assert torch.equal(trained_on(data, index, 7), trained_on(opened(base_seed=4), index, 7))
    assert not torch.equal(trained_on(data, index, 7), trained_on(opened(base_seed=5), index, 7))


@pytest.mark.parametrize("flip", [False, True])
def test_draws_do_not_depend_on_the_number_of_devices(opened, flip):
    data, index = opened(flip=flip), torch.tensor([3, 20, 3, 7, 0, 11])
    for step in range(8):
        whole = trained_on(data, index, step)
        parts = [trained_on(data, index[i : i + 2], step, offset=i, total=6) for i in (0, 2, 4)]
        assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole[0], whole[2]), "the same image twice in a batch is drawn twice"


def test_mirror_images_take_turns(folder, opened):
    data, kept = opened(flip=True), stored(folder)
    index, mirrored = torch.arange(21), 0
    for step in range(100):
        z = trained_on(data, index, step) / 0.5 + SHIFT
        errors = [
            ((z - kept[f"{name}mean"].float()) / kept[f"{name}std"].float()).square().mean((1, 2, 3))
            for name in ("", "mirrored_")
        ]
        assert (torch.minimum(*errors) < 2).all(), "each is a sample of one of the two"
        mirrored += int((errors[1] < errors[0]).sum())
    assert abs(mirrored - 1050) < 4 * (2100 / 4) ** 0.5
    assert data.flip is False, "the latent of a mirror image is not the mirrored latent"
    assert torch.equal(data.memorized[:], torch.cat([kept["mean"], kept["mirrored_mean"]]))


def test_scaling_by_channels(folder, opened):
    data, kept = opened(scaling="channels", autoencoder=TinyNetwork()), stored(folder)
    manifest = read_json(folder / "manifest.json")
    mean, std = (torch.tensor(manifest[f"channel_{key}"])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close(data.real(), (kept["mean"].float() - mean) / std)
    draws = torch.cat([trained_on(opened(scaling="channels", flip=True), torch.arange(21), step) for step in range(50)])
    assert draws.mean((0, 2, 3)).abs().max() < 0.05
    assert (draws.std((0, 2, 3)) - 1).abs().max() < 0.05
    with torch.no_grad():
        torch.testing.assert_close(data.decode(data.real()), TinyNetwork().decode(kept["mean"].float()))


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_pixels_are_decoded_in_bounded_batches(folder, opened, count):
    network = TinyNetwork()
    data = opened(autoencoder=network, decode_batch=4)
    assert data.has_pixels
    network.decoded.clear()
    x = data.real()[:count]
    with torch.no_grad():
        expected = TinyNetwork().decode(stored(folder)["mean"][:count].float())
    torch.testing.assert_close(data.decode(x), expected)
    whole = data.to_uint8(x)
    assert whole.dtype == torch.uint8
    assert (whole.float() - (expected + 1) * 127.5).abs().le(0.501).all()
    assert max(network.decoded, default=0) <= 4
    assert whole.shape == (count, 3, 8, 12)


def test_without_autoencoder_there_are_no_pixels(opened):
    data = opened()
    assert not data.has_pixels
    assert torch.equal(data.decode(data.real()), data.real())
    with pytest.raises(TypeError, match="no images"):
        data.to_uint8(data.real())


def anonymous():
    """Bytes of this process that no file backs."""
    with open("/proc/self/status") as status:
        return int(re.search(r"RssAnon:\s+(\d+)", status.read())[1]) * 1024


def test_nothing_is_loaded_as_a_whole(folder):
    """128 MB of latents, of which batches, neighbours' blocks and the reference take a few."""
    shard = folder / "train-00000-of-00003.safetensors"
    identity = json.loads((folder / "manifest.json").read_text())["identity"]
    size = {"train": 16384, "held_out": 5}
    manifest = read_json(folder / "manifest.json")
    manifest |= {"shape": [4, 16, 16], "identity": {**identity, "rows": size, "mirrored": False}, "num_classes": 0}
    shards = []
    for split, n in size.items():
        tensors = {key: torch.ones(n, 4, 16, 16, dtype=torch.float16) for key in ("mean", "std")}
        file = shard.with_name(f"{split}.safetensors")
        save_file(tensors, file, metadata={"identity": json.dumps(manifest["identity"])})
        shards.append({"split": split, "start": 0, "stop": n, "file": file.name, "bytes": file.stat().st_size})
    del tensors
    write_json(folder / "manifest.json", {**manifest, "shards": shards})
    before = anonymous()
    data = Latents(str(folder))
    data.setup()
    for step in range(5):
        trained_on(data, torch.randperm(16384)[:64], step)
    assert data.encoded(data.real_split)[:100].shape == (100, 4, 16, 16)
    assert anonymous() - before < 16e6
    assert data.train_split.moments[0][:].nbytes == 16384 * 2048, "there is something to load"


# Bad input.


def refused(match, folder, **options):
    with pytest.raises(UserError, match=match) as caught:
        Latents(str(folder), **options).setup()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 22}, "n=22 is more than the 21"),
        ({"n": 0}, "n=0 must"),
        ({"decode_batch": 0}, "decode_batch=0 must"),
        ({"scaling": "none"}, "scaling='none' is not"),
        ({"verify": "all"}, "verify='all' is not"),
        ({"train_part": "test"}, r"'test' is not in the dataset, which has train \(21\), held_out \(5\)"),
        ({"held_out_part": "train[20:]"}, "shares rows with train_part"),
        (
            {"train_part": "train[:10]", "real_part": "train", "held_out_part": "train[10:]"},
            "shares rows with real_part",
        ),
        ({"autoencoder": "./nowhere"}, "Cannot load autoencoder='./nowhere' .*a folder"),
        ({"autoencoder": TinyNetwork(channels=3)}, r"cannot decode latents of \[4, 4, 6\] .*which encoded them"),
        ({"autoencoder": torch.nn.Identity()}, "Identity has no method encode"),
    ],
)
def test_options_that_the_folder_does_not_have(folder, options, said):
    if "./nowhere" in str(options):
        pytest.importorskip("diffusers")
    refused(said, folder, **options)


def test_an_autoencoder_of_another_size(folder):
    class Quarter(TinyNetwork):
        def decode(self, latents):
            return super().decode(latents).repeat(1, 1, 2, 2)

    refused(r"images of \[3, 16, 24\], not \[3, 8, 12\]", folder, autoencoder=Quarter())


def test_neither_labels_nor_mirror_images(tmp_path):
    encode_images(images(num_classes=0), tiny(), tmp_path, mirrored=False)
    refused("conditional=True needs labels", tmp_path, conditional=True)
    refused("flip=True needs mirror images", tmp_path, flip=True)


def test_damaged_shards_are_named(folder):
    shard = folder / "train-00001-of-00003.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    refused(rf"Shard {shard} has [\d,]+ bytes, not [\d,]+", folder)
    shard.unlink()
    refused(f"Shard {shard} is missing", folder)
    changed = bytearray(whole)
    changed[-5] ^= 1
    shard.write_bytes(changed)
    Latents(str(folder)).setup()  # sizes do not show it
    refused(f"Shard {shard} has the checksum", folder, verify="checksums")
    shard.write_bytes(b"x" * len(whole))
    refused(f"Cannot read shard {shard}", folder)
    shard.write_bytes(whole)
    Latents(str(folder), verify="checksums").setup()


def test_a_shard_of_other_latents(folder, tmp_path):
    other = tmp_path / "other"
    encode_images(images(seed=1), tiny(), other, shard_size=SHARD)
    name = "train-00001-of-00003.safetensors"
    (folder / name).write_bytes((other / name).read_bytes())
    refused(f"Shard .*{name} does not belong", folder)


def test_labels_outside_the_classes(folder):
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "num_classes": 2})
    refused("Row 2 of shard .*train-00000.* has the label 2; labels are 0 to 1", folder, conditional=True)
    Latents(str(folder)).setup()


@pytest.mark.parametrize("content", ["", "{}", '{"format": "fm_lightning.latents"}', "[]", None])
def test_manifests_that_are_none(folder, content):
    if content is None:
        manifest = read_json(folder / "manifest.json")
        manifest["identity"]["version"] = 99
        content = json.dumps(manifest)
    (folder / "manifest.json").write_text(content)
    refused("Cannot read .*manifest.json", folder)


def test_folders_without_manifest(folder, tmp_path):
    (folder / "manifest.json").unlink()
    refused("unfinished latents", folder)
    refused("does not exist", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused("no latents", tmp_path / "empty")


def test_fingerprints_follow_what_is_trained_on_and_compared_with(folder, opened, tmp_path):
    encode_images(images(seed=1), tiny(), tmp_path / "other", shard_size=SHARD)
    other = Latents(str(tmp_path / "other"))
    other.setup()
    first = opened()
    for change, trained, compared in [
        ({}, False, False),
        ({"decode_batch": 3}, False, False),
        ({"n": 20}, True, False),
        ({"flip": True}, True, False),
        ({"scaling": "channels"}, True, True),
        ({"conditional": True}, True, True),
        ({"held_out_part": "held_out[:4]"}, False, True),
        ({"real_part": "train[:9]"}, False, True),
    ]:
        changed = opened(**change)
        assert (changed.fingerprint != first.fingerprint) == trained, change
        assert (changed.comparison_fingerprint != first.comparison_fingerprint) == compared, change
    assert other.fingerprint != first.fingerprint
    assert other.comparison_fingerprint != first.comparison_fingerprint


def test_the_same_autoencoder_again(folder, opened):
    wrapped = Autoencoder(TinyNetwork(), name="mine")
    assert torch.equal(
        opened(autoencoder=wrapped).to_uint8(opened().real()),
        opened(autoencoder=TinyNetwork()).to_uint8(opened().real()),
    )
