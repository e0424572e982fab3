"""The cache of decoded images, and what is refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from image_files import arrays, loaded, pixels, png, refused, write_parquet

from fm_lightning.data import CIFAR10
from fm_lightning.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


# ---------------------------------------------------------------- the cache


def test_decoded_once(folder, tmp_path, monkeypatch):
    source, train = folder
    loaded(source)
    monkeypatch.setattr("fm_lightning.data.images.cache._write", None)
    assert (pixels(loaded(source).train_split) == train).all()
    with pytest.raises(TypeError):
        loaded(source, resize=4)
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_nothing_is_left_of_a_broken_attempt(folder, tmp_path, monkeypatch):
    import fm_lightning.data.images.cache as image_cache

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
import fm_lightning.data.images.cache as image_cache
real = image_cache._write
def counted(*args):
    print("decoding", args[1].part.split, flush=True)
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
    message = refused("Cannot write the image cache", folder[0], cache_dir=str(tmp_path / "file"))
    assert "cache_dir: DIRECTORY" in message


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
    assert "HF_HOME" in refused(f"Cannot write /there: {words}", folder[0])


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
        assert [image.place for _, image in data.unreadable] == [4, 7]
        assert (pixels(data.train_split) == arrays(10)[good]).all()
        assert data.train_split.y.tolist() == [i % 3 for i in good]
    refused("2 of 13", source)  # what was skipped once is no good the next time
    data = loaded(source, skip_unreadable=True, n=5)
    assert (pixels(data.train_split) == arrays(10)[:4]).all()


def test_not_one_readable_image(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path / "set" / f"{split}-0.parquet", [b"nothing", b""])
    refused("None of the 2 images of train", tmp_path / "set", skip_unreadable=True)


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
        rows = datasets.Dataset.from_dict({"text": ["a", "b"], "number": [1.5, 2.5]})
        rows.to_parquet(tmp_path / "words" / f"{split}-0.parquet")
    assert "text (string), number (float64)" in refused("no image column", tmp_path / "words")
    refused("holds no encoded images", tmp_path / "words", image_column="number")


def test_labels_that_are_none(folder, tmp_path):
    refused("not class labels", folder[0], label_column="picture", conditional=True)
    for split in ("train", "test"):
        write_parquet(tmp_path / "plain" / f"{split}-0.parquet", map(png, arrays(3)))
        write_parquet(tmp_path / "hidden" / f"{split}-0.parquet", map(png, arrays(3)), [0, -1, 1])
    refused("no class labels", tmp_path / "plain", conditional=True)
    refused("Row 1 of train has no class", tmp_path / "hidden", conditional=True)


def test_sizes_and_splits(folder):
    source, _ = folder
    assert "n: 30" in refused("n=31", source, n=31)
    refused("n=0", source, n=0)
    refused("resize=0", source, resize=0)
    assert "which has train (30), test (12)" in refused("train_part='training'", source, train_part="training")
    refused("train_part='train\\[5'", source, train_part="train[5")
    refused("has no rows", source, real_part="test[12:]")
    refused("shares rows with real_part", source, real_part="test")
    refused("shares rows with train_part", source, real_part="test[:6]", held_out_part="train[28:]")
    advice = refused("has one image", source, held_out_part="test[11:]")
    assert advice.endswith("train_part: 'train[:90%]', held_out_part: 'train[90%:]'")
    data = loaded(source, n=20, real_part="test", held_out_part="train[20:]")
    assert [len(split) for split in (data.train_split, data.real_split, data.held_out_split)] == [20, 12, 10]
    files = {"train": str(source / "train-0.parquet")}
    assert "'train[:90%]'" in refused("only train exists", files)


def test_images_of_unlike_shapes_in_the_splits(tmp_path):
    write_parquet(tmp_path / "set" / "train-0.parquet", map(png, arrays(3)))
    write_parquet(tmp_path / "set" / "test-0.parquet", map(png, arrays(3, shape=(4, 4, 3))))
    refused("have images of shapes", tmp_path / "set")


def test_sources_that_are_not_there(tmp_path):
    assert "Set source: PATH" in refused("does not exist", str(tmp_path / "nowhere"))
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
    with pytest.raises(UserError, match="Cannot get source='uoft-cs/cifar10' from the Hugging Face hub") as caught:
        CIFAR10().setup()
    assert "source: PATH" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_configurations(monkeypatch):
    def several(*args, **kwargs):
        raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['a', 'b']")

    monkeypatch.setattr("datasets.load_dataset", several)
    refused("config: NAME", "some/dataset")
