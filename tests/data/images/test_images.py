"""Images: decoded right, from every source, and the same batches for any number of devices."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import arrays, loaded, pixels, png, refused, write_parquet
from PIL import Image as PIL

from fm_lightning.data import CIFAR10, CelebA
from fm_lightning.data.batches import Share, TrainBatch, TrainingBatches

ROOT = Path(__file__).resolve().parents[3]
CIFAR = Path(os.environ.get("FM_LIGHTNING_TEST_CIFAR10", "not given"))  # parquet files as on the hub


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
    data = loaded(tmp_path / "pets", conditional=True, order="source")
    assert data.class_names == ["ant", "bee"]
    order = [1, 3, 0, 2]  # class by class
    assert (pixels(data.train_split) == pictures[order]).all()
    assert data.train_split.y.tolist() == [0, 0, 1, 1]


def test_a_changed_image_is_decoded_anew(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        for i, picture in enumerate(arrays(3)):
            PIL.fromarray(picture).save(tmp_path / "set" / split / f"{i}.png")
    assert (pixels(loaded(tmp_path / "set", order="source").train_split) == arrays(3)).all()
    changed = tmp_path / "set" / "train" / "1.png"
    before = changed.stat()
    changed.write_bytes(png(arrays(1, 9)[0]).ljust(before.st_size, b"\0"))  # as `rsync -t` leaves it
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (changed.stat().st_size, changed.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert (pixels(loaded(tmp_path / "set", order="source").train_split)[1] == arrays(1, 9)[0]).all()


@pytest.mark.parametrize("whole", [True, False])
def test_a_changed_parquet_file_is_read_anew(tmp_path, whole):
    def write(seed):
        for split in ("train", "test"):
            file = tmp_path / "set" / f"{split}-0.parquet"
            write_parquet(file, map(png, arrays(3, seed)))
            os.utime(file, (1e9, 1e9))

    source = tmp_path / "set" if whole else {s: str(tmp_path / "set" / f"{s}-0.parquet") for s in ("train", "test")}
    write(0)
    assert (pixels(loaded(source).train_split) == arrays(3, 0)).all()
    sizes = {file: file.stat().st_size for file in (tmp_path / "set").iterdir()}
    write(7)
    assert {file: file.stat().st_size for file in (tmp_path / "set").iterdir()} == sizes, "random pixels compress alike"
    assert (pixels(loaded(source).train_split) == arrays(3, 7)).all()


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
    assert (data.num_classes, data.class_names) == (3, ["0", "2", "4"])
    assert data.train_split.y.tolist() == [0, 2, 1, 1]


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
    assert "grayscale" in refused("Image index 1 of train, 1.png has colours", tmp_path / "gray_first")
    assert loaded(tmp_path / "gray_first", grayscale=True).shape == (1, 6, 5)
    data = loaded(tmp_path / "colour_first")
    assert data.shape == (3, 6, 5)
    assert (data.train_split.x[1, 0] == data.train_split.x[1, 2]).all()


def test_odd_sizes_need_resize_and_crop(tmp_path):
    odd = [png(arrays(1, shape=shape)[0]) for shape in ((20, 31, 3), (17, 9, 3), (8, 8, 3))]
    for split in ("train", "test"):
        write_parquet(tmp_path / "set" / f"{split}-0.parquet", odd)
    assert "index 1 of train, 1.png is 9x17, and index 0 of train, 0.png is 31x20" in refused(
        "resize: 32 and crop: 32", tmp_path / "set"
    )
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
    deep = [png(np.arange(30, dtype=np.uint16).reshape(6, 5) * 999)] * 2
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
    assert len(flipped) == 4, "redrawn at each step"
    assert 0.2 < np.mean(list(flipped)) < 0.8


def test_no_flips_for_held_out_images_or_by_default(folder):
    data = loaded(folder[0])
    batch = TrainBatch(data.train_split.x[:4], None, 0, 0, 4)
    assert torch.equal(data.on_after_batch_transfer(batch, 0).x, data.encode(batch.x))


# ---------------------------------------------------------------- real images


@pytest.mark.skipif(not CIFAR.exists(), reason="FM_LIGHTNING_TEST_CIFAR10 names no CIFAR-10 in parquet files")
def test_cifar10_jpeg(tmp_path):
    import datasets

    parts = {"train_part": "train[:200]", "held_out_part": "test[:50]", "real_part": "train[:100]"}
    data = CIFAR10(str(CIFAR), conditional=True, **parts)
    data.setup()
    assert data.shape == (3, 32, 32)
    assert data.class_names[0] == "airplane"
    assert [len(split) for split in (data.train_split, data.real_split, data.held_out_split)] == [200, 100, 50]
    rows = datasets.load_dataset(str(CIFAR), split="train[:200]")  # their order is random, and stays
    assert data.train_split.y.tolist() == rows["label"]
    for got, image in zip(pixels(data.train_split), rows["img"]):
        assert (got == np.asarray(image)).all()
