"""Archives of statistics and of images: what is no covariance is refused in one line that says why."""

from __future__ import annotations

import re
import zipfile

import numpy as np
import pytest
import torch

from fm_lightning.errors import UserError
from fm_lightning.metrics import GaussianReference, frechet_distance, moments
from fm_lightning.metrics.archive_images import ArchiveImages
from fm_lightning.metrics.real_features import read_statistics

D = 6
X = np.random.default_rng(0).standard_normal((50, D)) @ np.random.default_rng(1).standard_normal((D, D)) + 3
MEAN, COV = X.mean(0), np.cov(X.T)
VALUES, VECTORS = np.linalg.eigh(COV)


def with_eigenvalue(value):
    return (VECTORS * np.concatenate([[value], VALUES[1:]])) @ VECTORS.T


WRONG = {
    "upper triangle": (MEAN, np.triu(COV), r"\[0, 1\] is .* and entry \[1, 0\] is 0"),
    "Cholesky factor": (MEAN, np.linalg.cholesky(COV), r"\[0, 1\]"),
    "asymmetric": (MEAN, COV + 0.01 * np.eye(D, k=2), r"\[2, 0\]"),
    "indefinite": (MEAN, with_eigenvalue(-0.01 * VALUES[-1]), "Eigenvalues reach from -"),
    "negated": (MEAN, -COV, "variance is -.* is no covariance"),
    "negative": (MEAN, -np.eye(D), "variance is -1"),
    "complex": (MEAN, COV.astype(complex), "sigma has type complex128"),
    "complex mean": (MEAN + 1j, COV, "mu has type complex128"),
    "not square": (MEAN, COV[:, :-1], r"\[6, 5\]"),
    "another size": (MEAN[:-1], COV, r"\[5\]"),
    "vector": (MEAN, COV[0], r"covariance of shape \[6\]"),
    "matrix as mean": (MEAN[None], COV, r"mean of shape \[1, 6\]"),
    "NaN": (MEAN, np.where(np.eye(D), np.nan, COV), "covariance contains NaN or infinity"),
    "NaN mean": (MEAN * np.nan, COV, "NaN"),
    "infinite": (MEAN, COV + np.inf, "infinity"),
    "words": (MEAN, COV.astype(str), "sigma has type <U"),
    "truths": (MEAN, COV > 0, "sigma has type bool"),
    "objects": (MEAN, COV.astype(object), "Cannot read"),
    "bytes": (MEAN, COV.astype("S8"), "sigma has type"),
    "nothing": (MEAN[:0], COV[:0, :0], "do not match"),
    "scalar": (np.float64(1), np.float64(1), "do not match"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_covariance_is_refused(name, tmp_path):
    mu, sigma, message = WRONG[name]
    np.savez(tmp_path / "wrong.npz", mu=mu, sigma=sigma)
    with pytest.raises(UserError, match=message) as error:
        read_statistics(tmp_path / "wrong.npz")
    assert "\n" not in str(error.value)
    assert "wrong.npz" in error.value.problem


@pytest.mark.parametrize(
    "name", ["upper triangle", "asymmetric", "indefinite", "negated", "negative", "NaN", "not square"]
)
def test_neither_side_of_a_distance_may_be_wrong(name):
    mu, sigma, _ = (torch.from_numpy(np.asarray(part)) if not isinstance(part, str) else part for part in WRONG[name])
    right = torch.from_numpy(MEAN), torch.from_numpy(COV)
    for sides in ((mu, sigma, *right), (*right, mu, sigma)):
        with pytest.raises(UserError, match="covariance"):
            frechet_distance(*sides)
    if name != "indefinite":  # which costs a further eigenproblem: seen only where it shows
        with pytest.raises(UserError, match="covariance"):
            GaussianReference(*right).distance(mu, sigma)


def test_no_distance_is_negative():
    """Of an indefinite matrix whose negative direction the reference cannot see."""
    seen = torch.diag(torch.tensor([1.0, 0.0, 0.0]))
    indefinite = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.1, -0.5], [0.0, -0.5, 0.1]])
    reference = GaussianReference(torch.zeros(3), seen)
    assert reference.distance(torch.zeros(3), indefinite) == pytest.approx(0.2)  # not seen, and not below 0
    with pytest.raises(UserError, match=r"variance is -0\.1"):
        reference.distance(torch.zeros(3), indefinite - 0.2 * torch.diag(torch.tensor([0.0, 1.0, 1.0])))
    for seed in range(20):
        x = torch.randn(9, 30, generator=torch.Generator().manual_seed(seed))
        assert GaussianReference(*moments(x)).distance(*moments(x)) >= 0


@pytest.mark.parametrize(("dtype", "noise"), [(np.float64, 0), (np.float32, 0), (">f4", 0), (np.float64, 1e-7)])
def test_rounding_is_no_fault(dtype, noise, tmp_path):
    """Few images (most eigenvalues 0), constant features, other scales; the halves as products in float32 leave them."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((20, 40)) * np.logspace(-3, 2, 40)
    x[:, 7] = 0.25
    cov = np.cov(x.T)
    cov *= 1 + noise * rng.standard_normal(cov.shape)
    np.savez(tmp_path / "right.npz", mu=x.mean(0).astype(dtype), sigma=cov.astype(dtype))
    reference = read_statistics(tmp_path / "right.npz")
    assert reference.distance(*moments(torch.from_numpy(x))) < 1e-3 * np.trace(cov)


def test_spatial_statistics_have_their_own_names(tmp_path):
    np.savez(tmp_path / "adm.npz", mu=MEAN, sigma=COV, mu_s=2 * MEAN[:3], sigma_s=COV[:3, :3])
    reference = read_statistics(tmp_path / "adm.npz", ("mu_s", "sigma_s"))
    assert torch.equal(reference.mean, torch.from_numpy(2 * MEAN[:3]))
    assert len(read_statistics(tmp_path / "adm.npz").mean) == D
    np.savez(tmp_path / "plain.npz", mu=MEAN, sigma=COV)
    with pytest.raises(UserError, match="mu_s"):
        read_statistics(tmp_path / "plain.npz", ("mu_s", "sigma_s"))


IMAGES = np.random.default_rng(3).integers(0, 256, (11, 8, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("size", [1, 4, 11, 50])
def test_images_are_read_in_batches(save, size, tmp_path):
    save(tmp_path / "adm.npz", IMAGES, mu=MEAN, sigma=COV)
    images = ArchiveImages(tmp_path / "adm.npz")
    assert len(images) == 11
    batches = list(images.batches(size))
    assert all(len(batch) == size for batch in batches[:-1])
    assert torch.equal(torch.cat(batches), torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    np.savez(tmp_path / "other.npz", 255 - IMAGES)
    assert ArchiveImages(tmp_path / "other.npz").fingerprint != images.fingerprint


def test_images_that_are_not_there_or_are_none(tmp_path):
    faults = {
        "none": {"mu": MEAN, "sigma": COV},
        "floats": {"arr_0": IMAGES / 255},
        "labels": {"arr_0": np.arange(5, dtype=np.uint8)},
        "channels": {"arr_0": IMAGES.transpose(0, 3, 1, 2)},
        "empty": {"arr_0": IMAGES[:0]},
        "fortran": {"arr_0": np.asfortranarray(IMAGES)},
    }
    for name, arrays in faults.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "text.npz").write_text("nothing")
    with zipfile.ZipFile(tmp_path / "member.npz", "w") as archive:
        archive.writestr("arr_0.npy", b"nothing")
    for name in (*faults, "text", "member", "absent"):
        with pytest.raises(UserError, match=re.escape(f"{name}.npz")) as error:
            ArchiveImages(tmp_path / f"{name}.npz")
        assert "\n" not in str(error.value)


def test_a_short_or_damaged_archive_says_where(tmp_path):
    np.savez(tmp_path / "right.npz", np.tile(IMAGES, (100, 1, 1, 1)))
    with zipfile.ZipFile(tmp_path / "right.npz") as archive:
        stored = archive.read("arr_0.npy")
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("arr_0.npy", stored[: -3 * 8 * 9 * 3 + 5])
    with pytest.raises(UserError, match="end after image 1097"):
        list(ArchiveImages(tmp_path / "short.npz").batches(4))
    whole = bytearray((tmp_path / "right.npz").read_bytes())
    whole[len(whole) // 2] ^= 255
    (tmp_path / "damaged.npz").write_bytes(whole)
    with pytest.raises(UserError, match=r"damaged after image .*CRC"):
        list(ArchiveImages(tmp_path / "damaged.npz").batches(4))
