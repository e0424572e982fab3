"""Images: decoded once and right, whatever they come from; bad ones named; the same batches for any number of devices."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PIL

from fm_lightning.data import CIFAR10, CelebA, ImageData
from fm_lightning.data.batches import Share, TrainBatch, TrainingBatches
from fm_lightning.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CIFAR = ROOT.parent / "shared" / "data" / "cifar10-jpeg"


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("FM_LIGHTNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


def arrays(n, seed=0, shape=(6, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def png(array):
    out = io.BytesIO()
    PIL.fromarray(array).save(out, "PNG")
    return out.getvalue()


def write_parquet(file, blobs, labels=None, column="picture"):
    """Encoded images as the hub keeps them; returns the file's name."""
    import datasets

    features = {column: datasets.Image()}
    rows = {column: [{"bytes": blob, "path": f"{i}.png"} for i, blob in enumerate(blobs)]}
    if labels is not None:
        features["kind"] = datasets.ClassLabel(names=["cat", "dog", "newt"])
        rows["kind"] = labels
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(file)
    return str(file)


@pytest.fixture
def folder(tmp_path):
    """Parquet files of 30 training and 12 test images with classes: the folder and the training pixels."""
    train, test = arrays(30), arrays(12, 1)
    write_parquet(tmp_path / "set" / "train-0.parquet", map(png, train), [i % 3 for i in range(30)])
    write_parquet(tmp_path / "set" / "test-0.parquet", map(png, test), [i % 3 for i in range(12)])
    return tmp_path / "set", train


def loaded(source, **options):
    data = ImageData(str(source) if isinstance(source, Path) else source, **options)
    data.setup()
    return data


def refused(match, source, **options):
    with pytest.raises(UserError, match=match) as caught:
        loaded(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels(split):
    return split.x.permute(0, 2, 3, 1).numpy()


# ---------------------------------------------------------------- sources


def test_parquet_files_pixel_by_pixel(folder):
    source, train = folder
    data = loaded(source, n=10, conditional=True)
    assert data.shape == (3, 6, 5)
    assert data.train_split.x.dtype == torch.uint8
    assert (pixels(data.train_split) == train[:10]).all()
    assert (pixels(data.real_split) == train).all()
    assert (pixels(data.held_out_split) == arrays(12, 1)).all()
    assert data.train_split.y.tolist() == [i % 3 for i in range(10)]
    assert (data.num_classes, data.class_names) == (3, ["cat", "dog", "newt"])
    x, y = data.train_split.fetch(torch.tensor([7, 0, 7]))
    assert (x.permute(0, 2, 3, 1).numpy() == train[[7, 0, 7]]).all()
    assert y.tolist() == [1, 0, 1]


def test_unconditional_by_default_and_all_images(folder):
    data = loaded(folder[0])
    assert (data.num_classes, len(data.train_split), data.train_split.y) == (0, 30, None)
    assert data.train_split.x.data_ptr() == data.real_split.x.data_ptr(), "one array, not two"


def test_files_per_split_and_one_file(folder):
    source, train = folder
    files = {"train": str(source / "train-*.parquet"), "test": str(source / "test-0.parquet")}
    assert (pixels(loaded(files, n=4).train_split) == train[:4]).all()
    data = loaded(str(source / "train-0.parquet"), train_part="train[:80%]", held_out_part="train[80%:]")
    assert [len(split) for split in (data.train_split, data.real_split, data.held_out_split)] == [24, 24, 6]
    assert (pixels(data.held_out_split) == train[24:]).all()


def test_folder_of_images(tmp_path):
    pictures = arrays(6)
    for i, picture in enumerate(pictures):
        place = tmp_path / "pets" / ("train" if i < 4 else "test") / ("ant" if i % 2 else "bee")
        place.mkdir(parents=True, exist_ok=True)
        PIL.fromarray(picture).save(place / f"{i}.png")
    data = loaded(tmp_path / "pets", conditional=True)
    assert data.class_names == ["ant", "bee"]
    order = [1, 3, 0, 2]  # class by class
    assert (pixels(data.train_split) == pictures[order]).all()
    assert data.train_split.y.tolist() == [0, 0, 1, 1]


def test_a_changed_image_is_decoded_anew(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        for i, picture in enumerate(arrays(3)):
            PIL.fromarray(picture).save(tmp_path / "set" / split / f"{i}.png")
    assert (pixels(loaded(tmp_path / "set").train_split) == arrays(3)).all()
    changed = tmp_path / "set" / "train" / "1.png"
    PIL.fromarray(arrays(1, 9)[0]).save(changed)
    os.utime(changed, (1e9, 1e9))
    assert (pixels(loaded(tmp_path / "set").train_split)[1] == arrays(1, 9)[0]).all()


def test_plain_binary_columns_by_name(tmp_path):
    import datasets

    train = arrays(4)
    for split in ("train", "test"):
        rows = datasets.Dataset.from_dict({"blob": [png(a) for a in train], "kind": [0, 4, 2, 2]})
        (tmp_path / "set").mkdir(exist_ok=True)
        rows.to_parquet(tmp_path / "set" / f"{split}-0.parquet")
    message = refused("no image column", tmp_path / "set")
    assert "blob (binary)" in message
    assert "kind (int64)" in message
    data = loaded(tmp_path / "set", image_column="blob", label_column="kind", conditional=True)
    assert (pixels(data.train_split) == train).all()
    assert data.num_classes == 5


# ---------------------------------------------------------------- preprocessing


def test_gray_images_stay_gray_unless_asked(tmp_path):
    gray = arrays(4, shape=(6, 5))
    for split in ("train", "test"):
        write_parquet(tmp_path / "set" / f"{split}-0.parquet", map(png, gray))
    data = loaded(tmp_path / "set")
    assert data.shape == (1, 6, 5)
    assert (data.train_split.x[:, 0].numpy() == gray).all()
    assert loaded(tmp_path / "set", grayscale=False).shape == (3, 6, 5)


def test_gray_and_coloured_images(tmp_path):
    mixed = [png(arrays(1, shape=(6, 5))[0]), png(arrays(1)[0])]
    for split in ("train", "test"):
        write_parquet(tmp_path / "gray_first" / f"{split}-0.parquet", mixed)
        write_parquet(tmp_path / "colour_first" / f"{split}-0.parquet", mixed[::-1])
    assert "grayscale" in refused("image 1 of train has colours", tmp_path / "gray_first")
    assert loaded(tmp_path / "gray_first", grayscale=True).shape == (1, 6, 5)
    data = loaded(tmp_path / "colour_first")
    assert data.shape == (3, 6, 5)
    assert (data.train_split.x[1, 0] == data.train_split.x[1, 2]).all()


def test_odd_sizes_need_resize_and_crop(tmp_path):
    odd = [png(arrays(1, shape=shape)[0]) for shape in ((20, 31, 3), (17, 9, 3), (8, 8, 3))]
    for split in ("train", "test"):
        write_parquet(tmp_path / "set" / f"{split}-0.parquet", odd)
    assert "image 1 of train is 9x17 and image 0 is 31x20" in refused("expected one size", tmp_path / "set")
    refused("crop=8", tmp_path / "set", resize=7, crop=8)
    data = loaded(tmp_path / "set", resize=8, crop=8)
    assert data.shape == (3, 8, 8)
    assert (pixels(data.train_split)[2] == arrays(1, shape=(8, 8, 3))[0]).all()


def test_preprocessing_is_torchvision_s(tmp_path):
    from torchvision import transforms

    pictures = [arrays(1, i, shape)[0] for i, shape in enumerate([(20, 31, 3), (40, 17, 3), (9, 9, 3)])]
    for split in ("train", "test", "valid"):
        write_parquet(tmp_path / "set" / f"{split}-0.parquet", map(png, pictures))
    usual = transforms.Compose([transforms.Resize(8), transforms.CenterCrop(8), transforms.Grayscale(1)])
    data = CelebA(str(tmp_path / "set"), n=3, resize=8, crop=8)
    data.setup()
    for got, picture in zip(data.train_split.x, pictures):
        assert (got[0].numpy() == np.asarray(usual(PIL.fromarray(picture)))).all()


def test_deep_images_are_refused(tmp_path):
    deep = [png(np.arange(30, dtype=np.uint16).reshape(6, 5) * 999)]
    for split in ("train", "test"):
        write_parquet(tmp_path / "set" / f"{split}-0.parquet", deep)
    refused("8 bits", tmp_path / "set")


# ---------------------------------------------------------------- the model's space


def test_pixels_survive_the_way_there_and_back(folder):
    data = loaded(folder[0])
    x = data.encode(data.train_split.x)
    assert (float(x.min()), float(x.max())) >= (-1.0, 0.9)
    assert torch.equal(data.to_uint8(x), data.train_split.x)
    assert torch.equal(data.reference(), x)
    blocks = list(data.encoded(data.real_split).split(7))
    assert [len(b) for b in blocks] == [7, 7, 7, 7, 2]
    assert torch.equal(torch.cat(blocks), data.real())


def test_celeba_is_zero_to_one_minus_the_subset_s_mean(folder, tmp_path):
    source, _ = folder
    write_parquet(source / "validation-0.parquet", map(png, arrays(5, 2)), [0] * 5)
    data = CelebA(str(source), n=8, resize=4, crop=4)
    data.setup()
    assert [len(split) for split in (data.train_split, data.real_split, data.held_out_split)] == [8, 12, 5]
    assert data.shape == (1, 4, 4)
    x = data.reference()
    assert data.mean == pytest.approx(data.train_split.x.double().mean().item() / 255, abs=1e-12)
    assert abs(float(x.double().mean())) < 1e-7
    everything = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    encoded = data.encode(everything)
    assert float(encoded.max() - encoded.min()) == pytest.approx(1)
    assert torch.equal(data.to_uint8(encoded), everything)
    assert torch.allclose(data.decode(encoded), everything / 127.5 - 1, atol=1e-6)
    assert torch.equal(data.to_uint8(encoded + 9), torch.full_like(everything, 255))
    assert data.space == "[0, 1] minus mean"


def global_batch(data, step, world, total=12, accumulate=1):
    parts = []
    for micro in range(accumulate):
        for rank in range(world):
            batches = TrainingBatches(
                data.train_split.fetch, len(data.train_split), total, accumulate, Share(rank, world), 5, lambda: step, 1
            )
            batch = list(batches)[micro]
            parts.append(data.on_after_batch_transfer(batch, 0).x)
    return torch.cat(parts)


def test_flips_are_the_same_for_any_number_of_devices(folder):
    data = loaded(folder[0], flip=True, base_seed=5)
    plain = loaded(folder[0], base_seed=5)
    flipped = set()
    for step in range(4):
        one = global_batch(data, step, 1)
        assert torch.equal(one, global_batch(data, step, 2))
        assert torch.equal(one, global_batch(data, step, 2, accumulate=3))
        straight = global_batch(plain, step, 1)
        mirrored = (one != straight).flatten(1).any(1)
        assert torch.equal(one[mirrored], straight[mirrored].flip(-1))
        flipped.add(tuple(mirrored.tolist()))
    assert len(flipped) == 4, "drawn anew at each step"
    assert 0.2 < np.mean(list(flipped)) < 0.8


def test_no_flips_for_held_out_images_or_by_default(folder):
    data = loaded(folder[0])
    batch = TrainBatch(data.train_split.x[:4], None, 0, 0, 4)
    assert torch.equal(data.on_after_batch_transfer(batch, 0).x, data.encode(batch.x))


# ---------------------------------------------------------------- the cache


def test_decoded_once(folder, tmp_path, monkeypatch):
    source, train = folder
    loaded(source)
    monkeypatch.setattr("fm_lightning.data.image_cache._write", None)
    assert (pixels(loaded(source).train_split) == train).all()
    with pytest.raises(TypeError):
        loaded(source, resize=4)
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_nothing_is_left_of_a_broken_attempt(folder, tmp_path, monkeypatch):
    import fm_lightning.data.image_cache as image_cache

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "_write", full)
        refused("No space left on device.*cache_dir", folder[0])
    assert [p for p in (tmp_path / "cache" / "images").iterdir() if p.suffix != ".lock"] == []
    loaded(folder[0])


def test_what_a_killed_process_left_is_removed(folder, tmp_path):
    loaded(folder[0])
    cache = tmp_path / "cache" / "images"
    for kept in [place for place in cache.iterdir() if place.is_dir()]:
        kept.rename(cache / f"{kept.name}.a1b2.tmp")
    loaded(folder[0])
    assert not list(cache.glob("*.tmp"))


LOAD = """
import sys, time
from fm_lightning.data import ImageData
import fm_lightning.data.image_cache as image_cache
real = image_cache._write
def counted(*args):
    print("decoding", args[3].split, flush=True)
    time.sleep(1)
    return real(*args)
image_cache._write = counted
print("ready", flush=True)
sys.stdin.readline()
data = ImageData(sys.argv[1])
data.setup()
print("sum", int(data.train_split.x.long().sum()), len(data.train_split))
"""


@pytest.mark.slow
def test_processes_that_start_together_decode_once(folder, tmp_path):
    source, train = folder
    env = os.environ | {"HF_HOME": str(tmp_path / "hf_home"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOAD, str(source)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, env=env, **pipes) for _ in range(2)]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    lines = [line for out, _ in outputs for line in out.splitlines()]
    assert sorted(line for line in lines if line.startswith("decoding")) == ["decoding test", "decoding train"]
    assert lines.count(f"sum {int(train.astype(int).sum())} 30") == 2


def test_a_cache_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused("cannot be written", folder[0], cache_dir=str(tmp_path / "file"))
    assert "--data.init_args.cache_dir" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_for_the_cache(folder, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    refused("Permission denied", folder[0], cache_dir=str(tmp_path / "locked"))


@pytest.mark.parametrize(
    ("number", "words"), [(13, "Permission denied"), (30, "Read-only file system"), (28, "No space")]
)
def test_a_cache_of_datasets_that_cannot_be_written(folder, monkeypatch, number, words):
    def denied(*args, **kwargs):
        raise OSError(number, os.strerror(number), "/there")

    monkeypatch.setattr("datasets.load_dataset", denied)
    assert "HF_HOME" in refused(f"cannot write /there .{words}", folder[0])


# ---------------------------------------------------------------- bad input


def broken(tmp_path):
    blobs = [png(a) for a in arrays(10)]
    blobs[4] = blobs[4][:60]  # truncated
    blobs[7] = b"no image at all"
    write_parquet(tmp_path / "set" / "train-0.parquet", blobs, [i % 3 for i in range(10)])
    write_parquet(tmp_path / "set" / "test-0.parquet", map(png, arrays(3, 1)), [0, 1, 2])
    return tmp_path / "set"


def test_unreadable_images_are_named_counted_and_stop_the_run(tmp_path):
    message = refused("2 of 13 images cannot be read", broken(tmp_path))
    assert "index 4 of train, 4.png" in message
    assert "truncated" in message.lower()
    assert "skip_unreadable" in message


def test_unreadable_images_are_left_out_if_asked(tmp_path, capsys):
    source = broken(tmp_path)
    good = [i for i in range(10) if i not in (4, 7)]
    for _ in range(2):  # decoded, then from the cache
        data = loaded(source, skip_unreadable=True, conditional=True)
        assert "2 of 13 images cannot be read" in capsys.readouterr().out
        assert data.skipped == 2
        assert [image.index for _, image in data.unreadable] == [4, 7]
        assert (pixels(data.train_split) == arrays(10)[good]).all()
        assert data.train_split.y.tolist() == [i % 3 for i in good]
    refused("2 of 13", source)  # what was skipped once is no good the next time
    data = loaded(source, skip_unreadable=True, n=5)
    assert (pixels(data.train_split) == arrays(10)[:4]).all()


def test_not_one_readable_image(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path / "set" / f"{split}-0.parquet", [b"nothing", b""])
    refused("none of the 2 images", tmp_path / "set", skip_unreadable=True)


def test_a_row_without_an_image(tmp_path):
    import datasets

    blob = {"bytes": png(arrays(1)[0]), "path": None}
    features = datasets.Features({"picture": datasets.Image()})
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        rows = datasets.Dataset.from_dict({"picture": [blob, None]}, features=features)
        rows.to_parquet(tmp_path / "set" / f"{split}-0.parquet")
    assert "index 1 of train" in refused("no image in this row", tmp_path / "set")


def test_columns_are_listed(folder, tmp_path):
    import datasets

    assert "picture (Image), kind (ClassLabel)" in refused("image_column='img'", folder[0], image_column="img")
    assert "picture (Image)" in refused("label_column='colour'", folder[0], label_column="colour", conditional=True)
    (tmp_path / "words").mkdir()
    for split in ("train", "test"):
        rows = datasets.Dataset.from_dict({"text": ["a"], "number": [1.5]})
        rows.to_parquet(tmp_path / "words" / f"{split}-0.parquet")
    assert "text (string), number (float64)" in refused("no image column", tmp_path / "words")
    refused("holds no encoded images", tmp_path / "words", image_column="number")


def test_labels_that_are_none(folder, tmp_path):
    refused("expected class labels", folder[0], label_column="picture", conditional=True)
    for split in ("train", "test"):
        write_parquet(tmp_path / "plain" / f"{split}-0.parquet", map(png, arrays(3)))
        write_parquet(tmp_path / "hidden" / f"{split}-0.parquet", map(png, arrays(3)), [0, -1, 1])
    refused("no class labels", tmp_path / "plain", conditional=True)
    refused("row 1 of train has the label -1", tmp_path / "hidden", conditional=True)


def test_sizes_and_splits(folder):
    source, _ = folder
    assert "--data.init_args.n 30" in refused("n=31", source, n=31)
    refused("n=0", source, n=0)
    refused("resize=0", source, resize=0)
    assert "splits train (30), test (12)" in refused("train_part='training'", source, train_part="training")
    refused("train_part='train\\[5'", source, train_part="train[5")
    refused("holds no rows", source, real_part="test[12:]")
    refused("shares rows with real_part", source, real_part="test")
    refused("shares rows with train_part", source, real_part="test[:6]", held_out_part="train[29:]")
    data = loaded(source, n=20, real_part="test", held_out_part="train[20:]")
    assert [len(split) for split in (data.train_split, data.real_split, data.held_out_split)] == [20, 12, 10]
    files = {"train": str(source / "train-0.parquet")}
    assert "'train[:90%]'" in refused("only the splits train", files)


def test_images_of_unlike_shapes_in_the_splits(tmp_path):
    write_parquet(tmp_path / "set" / "train-0.parquet", map(png, arrays(3)))
    write_parquet(tmp_path / "set" / "test-0.parquet", map(png, arrays(3, shape=(4, 4, 3))))
    refused("images of shapes", tmp_path / "set")


def test_sources_that_are_not_there(tmp_path):
    assert "--data.init_args.source" in refused("does not exist", str(tmp_path / "nowhere"))
    refused("no readable dataset", str(tmp_path / "no-*.parquet"))
    (tmp_path / "empty").mkdir()
    refused("no readable dataset", tmp_path / "empty")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a.parquet").write_text("no parquet")
    refused("no readable dataset", tmp_path / "junk")


def test_the_hub_out_of_reach(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'uoft-cs/cifar10' on the Hub\nmore")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(UserError, match="'uoft-cs/cifar10' cannot be had from the Hugging Face hub") as caught:
        CIFAR10().setup()
    assert "--data.init_args.source PATH" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_configurations(monkeypatch):
    def several(*args, **kwargs):
        raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['a', 'b']")

    monkeypatch.setattr("datasets.load_dataset", several)
    refused("--data.init_args.config", "some/dataset")


# ---------------------------------------------------------------- real images


@pytest.mark.skipif(not CIFAR.exists(), reason="CIFAR-10 (JPEG) is not in ../shared/data")
def test_cifar10_jpeg(tmp_path):
    import datasets

    parts = {"train_part": "train[:200]", "held_out_part": "test[:50]", "real_part": "train[:100]"}
    data = CIFAR10(str(CIFAR), conditional=True, **parts)
    data.setup()
    assert data.shape == (3, 32, 32)
    assert data.class_names[0] == "airplane"
    assert [len(split) for split in (data.train_split, data.real_split, data.held_out_split)] == [200, 100, 50]
    rows = datasets.load_dataset(str(CIFAR), split="train[:200]")
    assert data.train_split.y.tolist() == rows["label"]
    for got, image in zip(pixels(data.train_split), rows["img"]):
        assert (got == np.asarray(image)).all()
