"""FIDMonitor on data, without a training: what it reads, what it logs, and what it refuses before training begins."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fm_lightning.callbacks import FIDMonitor, KPEDistribution
from fm_lightning.comparison.rows import BASE, Row
from fm_lightning.data import Digits, Toy2D
from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule, integrate
from fm_lightning.metrics import GaussianReference, moments
from fm_lightning.metrics.features.extractor import ModuleFeatures
from fm_lightning.metrics.precision_recall import precision_recall
from fm_lightning.metrics.summaries import kid

N = 60


class Pixels(nn.Module):
    """8-bit images as features, and a record of what came."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return x[:, :, ::2, ::2].float()


def loaded(data):
    data.setup()
    return data


def prepared(monitor, data, callbacks=()):
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(strategy=strategy, world_size=1, callbacks=callbacks)
    module = SimpleNamespace(
        data=data,
        device=torch.device("cpu"),
        rows={name: Row(kind, Schedule()) for name, kind in ((BASE, "base"), ("kts", "schedule"))},
        log_dict=lambda values, **kwargs: logged.update(values),
    )
    logged = {}
    monitor.setup(trainer, module, "fit")
    return trainer, module, logged


def still(x, start=0):
    return integrate(lambda x, t, y: torch.zeros_like(x), x, seeds=torch.arange(start, start + len(x)))


def test_eight_bit_extractors_read_what_the_datamodule_makes_of_samples():
    data, pixels = loaded(Digits()), Pixels()
    monitor = FIDMonitor(ModuleFeatures(pixels, "fd_pixels", space="uint8"), kid=True, precision_recall=True)
    trainer, module, logged = prepared(monitor, data)
    base = 0.8 * torch.randn(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    other = base + 0.3
    (metric,) = monitor.measures
    monitor.begin(trainer, module)
    for i in range(0, N, 25):
        monitor.update(trainer, module, {BASE: still(base[i : i + 25], i), "kts": still(other[i : i + 25], i)})
    calls = len(pixels.seen)
    monitor.finish(trainer, module)
    assert len(pixels.seen) == calls  # for any set of numbers, an image goes through the extractor once
    assert all(x.dtype == torch.uint8 for x in pixels.seen)
    assert torch.equal(pixels.seen[-1], data.to_uint8(other[50:]))

    def features(x):
        return data.to_uint8(x)[:, :, ::2, ::2].float().flatten(1)

    real = features(data.real())
    reference = GaussianReference(*moments(real))
    for row, x in ((BASE, base), ("kts", other)):
        want = {"fd_pixels": reference.distance(*moments(features(x)))} | precision_recall(features(x), real)
        for name, value in want.items():
            assert logged[f"val/{row}/{name}"] == pytest.approx(value, rel=1e-9)
        assert logged[f"val/{row}/kid_mean"] > 0
    change = logged["val/kts/fd_pixels"] - logged[f"val/{BASE}/fd_pixels"]
    assert logged["val/kts/fd_pixels_change"] == pytest.approx(change, rel=1e-6)
    assert metric.facts()["quality"]["reference"] == len(real)


def test_a_floor_of_few_images_leaves_out_what_they_do_not_define():
    data = loaded(Digits())
    monitor = FIDMonitor("fd_digits", kid=True, precision_recall=True)
    prepared(monitor, data)
    images = {"held_out": data.held_out()[:40], "few": data.held_out()[:3], "one": data.held_out()[:1]}
    (metric,) = monitor.measures
    found = {name: metric.summarize(metric.measure(still(x))) for name, x in images.items()}
    with torch.no_grad():
        want = precision_recall(metric.extractor(images["held_out"]), metric.extractor(data.real()))
    assert want["recall"] > 0.1
    for name, value in want.items():
        assert found["held_out"][name] == pytest.approx(value)
    assert "fd_digits" in found["few"]
    assert "recall" not in found["few"]  # not defined
    assert found["one"] == {}


@pytest.mark.parametrize("extractors", [["fd_raw", "fd_digits", "fd_raw"], []])
def test_each_extractor_is_listed_once(extractors):
    with pytest.raises(UserError, match="must name each extractor once"):
        FIDMonitor(extractors)


@pytest.mark.parametrize("monitors", [[FIDMonitor("fd_raw"), FIDMonitor("fd_digits")], [KPEDistribution()] * 2])
def test_two_monitors_of_one_kind_are_refused_before_training(monitors):
    with pytest.raises(UserError, match=f"Only one {type(monitors[0]).__name__} is allowed"):
        prepared(monitors[1], loaded(Digits()), callbacks=monitors)
    prepared(monitors[0], loaded(Digits()), callbacks=monitors[:1])


def test_several_extractors_read_one_conversion_and_log_each_its_distance(monkeypatch):
    """Summaries are of the first extractor's features."""
    data, pixels, conversions = loaded(Digits()), Pixels(), []
    half = ModuleFeatures(nn.AvgPool2d(4), "fd_model_space")
    other = ModuleFeatures(Pixels(), "fd_other", space="uint8")
    monitor = FIDMonitor([ModuleFeatures(pixels, "fd_pixels", space="uint8"), half, other], kid=True)
    to_uint8 = data.to_uint8
    monkeypatch.setattr(data, "to_uint8", lambda x: conversions.append(len(x)) or to_uint8(x))
    trainer, module, logged = prepared(monitor, data)
    conversions.clear()
    x = torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    monitor.begin(trainer, module)
    monitor.update(trainer, module, {BASE: still(x), "kts": still(x + 0.1)})
    monitor.finish(trainer, module)
    assert conversions == [N, N], "one conversion per row"
    real = data.real()
    want = {"fd_model_space": GaussianReference(*moments(half(real))).distance(*moments(half(x)))}
    eight = [to_uint8(v)[:, :, ::2, ::2].float().flatten(1) for v in (real, x)]
    want["fd_pixels"] = want["fd_other"] = GaussianReference(*moments(eight[0])).distance(*moments(eight[1]))
    want |= kid(eight[1], eight[0])
    assert {name: logged[f"val/{BASE}/{name}"] for name in want} == pytest.approx(want, rel=1e-6)
    assert all(f"val/kts/{key}_change" in logged for key in ("fd_pixels", "fd_model_space", "fd_other"))


def test_points_are_no_images():
    with pytest.raises(UserError, match="has no pixels"):
        prepared(FIDMonitor(ModuleFeatures(Pixels(), "fd_pixels", space="uint8")), loaded(Toy2D()))


def test_statistics_of_another_extractor_are_refused_before_training(tmp_path):
    path = str(tmp_path / "five.npz")
    np.savez(path, mu=np.zeros(5), sigma=np.eye(5))
    with pytest.raises(UserError, match="have 5 features and fd_digits has 64"):
        prepared(FIDMonitor("fd_digits", statistics=path), loaded(Digits()))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ({"val_seeds": 1}, {}, "val_seeds=1 is too few: FIDMonitor needs 2"),
        ({"test_seeds": 3}, {"precision_recall": True}, "test_seeds=3 is too few: FIDMonitor needs 4"),
    ],
)
def test_too_few_samples_are_refused_before_training(data, options, message):
    with pytest.raises(UserError, match=message):
        prepared(FIDMonitor("fd_digits", **options), loaded(Digits(**data)))


def test_precision_and_recall_from_an_archive_s_images(tmp_path, monkeypatch):
    """As ADM's evaluator: statistics from mu and sigma, support from the images."""
    monkeypatch.setenv("FM_LIGHTNING_CACHE", str(tmp_path / "cache"))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 200, (50, 8, 8, 1), generator=generator).to(torch.uint8)
    features = images.permute(0, 3, 1, 2)[:, :, ::2, ::2].float().flatten(1)
    mean, cov = moments(features)
    np.savez(tmp_path / "adm.npz", images.numpy(), mu=mean, sigma=cov)
    data = loaded(Digits())
    extractor = ModuleFeatures(Pixels(), "fd_pixels", space="uint8")
    monitor = FIDMonitor(extractor, precision_recall=True, statistics=str(tmp_path / "adm.npz"))
    trainer, module, logged = prepared(monitor, data)
    monitor.begin(trainer, module)
    x = torch.rand(40, 1, 8, 8, generator=generator) * 1.2 - 0.9
    monitor.update(trainer, module, {BASE: still(x), "kts": still(x + 0.2)})
    monitor.finish(trainer, module)
    mine = data.to_uint8(x)[:, :, ::2, ::2].float().flatten(1)
    want = precision_recall(mine, features) | {"fd_pixels": GaussianReference(mean, cov).distance(*moments(mine))}
    assert want["recall"] > 0
    assert {name: logged[f"val/{BASE}/{name}"] for name in want} == pytest.approx(want)
    np.savez(tmp_path / "no_images.npz", mu=mean, sigma=cov)
    np.savez(tmp_path / "no_statistics.npz", images.numpy())
    for name, message in (("no_images", "images in"), ("no_statistics", "mu is not a file")):
        monitor = FIDMonitor(extractor, precision_recall=True, statistics=str(tmp_path / f"{name}.npz"))
        with pytest.raises(UserError, match=message):
            prepared(monitor, data)
    monitor = FIDMonitor("fd_digits", precision_recall=True, statistics=str(tmp_path / "adm.npz"))
    np.savez(tmp_path / "adm.npz", images.numpy(), mu=np.zeros(64), sigma=np.eye(64))
    with pytest.raises(UserError, match="8-bit"):
        prepared(monitor, data)
