"""What becomes of every kind of image file that Pillow writes: decided, and held."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from image_files import arrays, loaded, pixels, refused
from PIL import Image as PIL

NOISE = arrays(1, 3, (8, 8, 3))[0]
HALF = np.zeros((8, 8), np.uint8)
HALF[:, 4:] = 255  # the right half can be seen
BLACK = np.zeros((8, 8, 3), np.uint8)


def stored(tmp_path, image, suffix, **options):
    """A data set of one image, twice in either split, read back ``[H, W, C]``."""
    for part in ("train", "test"):
        (tmp_path / "set" / part).mkdir(parents=True, exist_ok=True)
        for i in range(2):
            image.save(tmp_path / "set" / part / f"{i}{suffix}", **options)
    return tmp_path / "set"


def read(tmp_path, image, suffix=".png", save=None, **options):
    return pixels(loaded(stored(tmp_path, image, suffix, **(save or {})), **options).train_split)[0]


def rgba(alpha, colours=NOISE):
    return PIL.fromarray(np.dstack([colours, alpha]))


# ---------------------------------------------------------------- transparency


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".tga"])
def test_noise_under_alpha_zero_is_the_background(tmp_path, suffix):
    save = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    file = stored(tmp_path, rgba(HALF), suffix, **save)
    with PIL.open(file / "train" / f"0{suffix}") as again:
        assert (np.asarray(again.convert("RGBA"))[:, :4, :3] == NOISE[:, :4]).all(), "the file holds noise there"
    data = loaded(file)
    assert data.shape == (3, 8, 8)
    got = pixels(data.train_split)[0]
    assert (got[:, :4] == 255).all()
    assert (got[:, 4:] == NOISE[:, 4:]).all()


@pytest.mark.parametrize(("background", "value"), [("white", [255] * 3), ("black", [0] * 3), ("#102030", [16, 32, 48])])
def test_the_background_is_an_option(tmp_path, background, value):
    got = read(tmp_path, rgba(HALF), background=background)
    assert (got[:, :4] == value).all()
    assert (got[:, 4:] == NOISE[:, 4:]).all()


def test_half_transparent_pixels_are_blended(tmp_path):
    alpha = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    got = read(tmp_path, rgba(alpha)).astype(float)
    share = alpha[..., None] / 255
    assert np.abs(got - (NOISE * share + 255 * (1 - share))).max() <= 1


def test_a_background_that_is_no_colour(tmp_path):
    source = stored(tmp_path, rgba(HALF), ".png")
    for name in ("whitish", "", "#12345", "#11223344"):
        assert "background: white" in refused("background=", source, background=name)


def test_transparency_before_resizing(tmp_path):
    """Averaged first, noise from under alpha 0 would bleed into the edge."""
    black = rgba(HALF, np.where(HALF[..., None] > 0, BLACK, NOISE))
    clean = rgba(HALF, BLACK)
    assert (read(tmp_path / "a", black, resize=4) == read(tmp_path / "b", clean, resize=4)).all()


def test_gray_with_alpha_stays_gray(tmp_path):
    image = PIL.fromarray(np.dstack([NOISE[..., 0], HALF]), mode="LA")
    got = read(tmp_path / "one", image)
    assert got.shape == (8, 8, 1)
    assert (got[:, :4] == 255).all()
    assert (got[:, 4:, 0] == NOISE[:, 4:, 0]).all()
    assert read(tmp_path / "three", image, grayscale=False).shape == (8, 8, 3)


def test_palettes_with_transparency(tmp_path):
    for suffix in (".png", ".gif"):
        image = PIL.fromarray((np.arange(64, dtype=np.uint8) % 3).reshape(8, 8), mode="P")
        image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
        got = read(tmp_path / suffix[1:], image, suffix, {"transparency": 1})
        index = (np.arange(64) % 3).reshape(8, 8)
        assert (got[index == 1] == 255).all()
        assert (got[index == 0] == [10, 20, 30]).all()
        assert (got[index == 2] == [1, 2, 3]).all()


def test_one_transparent_colour_of_an_rgb_file(tmp_path):
    colours = NOISE.copy()
    colours[0] = [9, 8, 7]
    got = read(tmp_path, PIL.fromarray(colours), ".png", {"transparency": (9, 8, 7)})
    assert (got[0] == 255).all()
    assert (got[1:] == colours[1:]).all()


def test_files_without_transparency_do_not_know_the_background(tmp_path):
    for i, (image, suffix) in enumerate([(PIL.fromarray(NOISE), ".png"), (PIL.fromarray(NOISE[..., 0]), ".png")]):
        a = read(tmp_path / str(i), image, suffix, background="black")
        assert (a == read(tmp_path / str(i), image, suffix, background="white")).all()
        assert (a[..., 0] == NOISE[..., 0]).all()
    assert (read(tmp_path / "opaque", rgba(np.full((8, 8), 255, np.uint8))) == NOISE).all()


# ---------------------------------------------------------------- modes and depths


def test_palettes_without_transparency_show_their_colours(tmp_path):
    image = PIL.fromarray(NOISE).quantize(16)
    assert (read(tmp_path, image) == np.asarray(image.convert("RGB"))).all()


def test_cmyk_as_pillow_converts_it(tmp_path):
    image = PIL.fromarray(arrays(1, 4, (8, 8, 4))[0], mode="CMYK")
    got = read(tmp_path, image, ".tif")
    cmyk = np.asarray(image).astype(int)
    formula = (255 - cmyk[..., :3]) * (255 - cmyk[..., 3:]) / 255
    assert np.abs(got - formula).max() <= 1
    assert got.shape == (8, 8, 3)


def test_sixteen_bits(tmp_path):
    gray = PIL.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    refused("Image index . of train, .*png has more than 8 bits", stored(tmp_path / "gray", gray, ".png"))
    refused("8 bits", stored(tmp_path / "tif", gray, ".tif"))
    refused(
        "8 bits",
        stored(tmp_path / "float", PIL.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), ".tif"),
    )


def test_sixteen_bits_among_eight(tmp_path):
    source = stored(tmp_path, PIL.fromarray(NOISE[..., 0]), ".png")
    PIL.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(source / "train" / "1.png")
    refused("1.png has more than 8 bits", source)


@pytest.mark.parametrize("form", ["png", "ppm"])
def test_sixteen_bit_colours_are_refused_too(tmp_path, form):
    """Pillow would keep the high byte of each."""
    source = stored(tmp_path, PIL.fromarray(NOISE), f".{form}")
    deep = np.random.default_rng(0).integers(0, 4096, (8, 8, 3), dtype=np.uint16)
    for part in ("train", "test"):
        for i in range(2):
            (source / part / f"{i}.{form}").write_bytes(deep_png(deep) if form == "png" else deep_ppm(deep))
    refused(f"{form} has more than 8 bits", source)


def deep_ppm(array):
    return b"P6\n8 8\n65535\n" + array.astype(">u2").tobytes()


def deep_png(array):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def test_black_and_white_is_gray(tmp_path):
    got = read(tmp_path, PIL.fromarray(HALF).convert("1"))
    assert (got[..., 0] == HALF).all()


@pytest.mark.parametrize("mode", ["LAB", "YCbCr"])
def test_other_colour_spaces_become_rgb(tmp_path, mode):
    image = PIL.fromarray(NOISE, mode=mode)
    assert (read(tmp_path, image, ".tif") == np.asarray(image.convert("RGB"))).all()


# ---------------------------------------------------------------- orientation and time


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path, orientation):
    picture = PIL.fromarray(arrays(1, 5, (6, 4, 3))[0])
    exif = PIL.Exif()
    exif[0x0112] = orientation
    got = read(tmp_path, picture, ".png", {"exif": exif})
    turn = {2: PIL.FLIP_LEFT_RIGHT, 3: PIL.ROTATE_180, 4: PIL.FLIP_TOP_BOTTOM, 5: PIL.TRANSPOSE}
    turn |= {6: PIL.ROTATE_270, 7: PIL.TRANSVERSE, 8: PIL.ROTATE_90}
    upright = picture.transpose(turn[orientation]) if orientation > 1 else picture
    assert (got == np.asarray(upright)).all()


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_animations_the_first_frame_is_taken(tmp_path, suffix):
    frames = [PIL.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (200, 30, 90)]
    save = {"save_all": True, "append_images": frames[1:]} | ({"lossless": True} if suffix == ".webp" else {})
    got = read(tmp_path, frames[0], suffix, save)
    assert np.abs(got.astype(int) - 200).max() <= 1


def test_an_animation_s_first_frame_with_transparency(tmp_path):
    frames = [rgba(HALF, BLACK), rgba(255 - HALF, BLACK)]
    got = read(tmp_path, frames[0], ".gif", {"save_all": True, "append_images": frames[1:], "disposal": 2})
    assert (got[:, :4] == 255).all()
    assert (got[:, 4:] == 0).all()


def test_the_cache_knows_the_background(tmp_path):
    source = stored(tmp_path, rgba(HALF), ".png")
    white, black = (loaded(source, background=name).train_split.x for name in ("white", "black"))
    assert not torch.equal(white, black)
