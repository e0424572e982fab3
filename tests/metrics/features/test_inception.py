"""FID and its company equal torch-fidelity's on the same 8-bit images and the same weights file."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from fm_lightning.callbacks import FIDMonitor
from fm_lightning.errors import UserError
from fm_lightning.flow import integrate
from fm_lightning.metrics import FrechetDistance, RawFeatures
from fm_lightning.metrics.features.extractor import ModuleFeatures
from fm_lightning.metrics.features.inception import InceptionFeatures, PytorchFIDFeatures, SpatialInceptionFeatures
from fm_lightning.metrics.features.named import named_extractor
from fm_lightning.metrics.precision_recall import precision_recall
from fm_lightning.metrics.real_features import kept_features, read_statistics
from fm_lightning.metrics.summaries import cmmd, inception_score, kid

N = 10


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file in torch-fidelity's format. Default initialisation would make every FID about 1e-13, and prove nothing."""
    patch = pytest.MonkeyPatch()
    patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    patch.setattr(torch, "load", lambda *args, **kwargs: {})
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    path.touch()
    net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    patch.undo()
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    torch.save(net.state_dict(), path)
    assert len(net.state_dict()) == 566
    return str(path)


def images(seed, shift):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(N, 3, 8, 8, generator=generator) + shift
    return (nn.functional.interpolate(coarse, (32, 32), mode="bilinear") * 150).clamp(0, 255).round().to(torch.uint8)


class Images(torch.utils.data.Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i]


@pytest.fixture(scope="module")
def pair():
    fake, real = images(0, 0.0), images(1, 0.5)
    noise = torch.randint(0, 256, (N // 2, 3, 32, 32), generator=torch.Generator().manual_seed(2))
    fake[: N // 2] = noise.to(torch.uint8)
    return fake, real


def torch_fidelity(pair, weights, **asked):
    return calculate_metrics(
        input1=Images(pair[0]),
        input2=Images(pair[1]),
        kid_subset_size=N,
        cuda=False,
        batch_size=8,
        feature_extractor_weights_path=weights,
        verbose=False,
        save_cpu_ram=True,
        **asked,
    )


@pytest.fixture(scope="module")
def measured(pair, weights):
    """(ours, theirs) for all metrics of one pair of image sets, and our features of both."""
    fake, real = pair
    extractor = InceptionFeatures(weights, batch_size=8)
    extractor.load()
    real_features, features = extractor(real), extractor(fake)
    metric = FrechetDistance(
        extractor, real_features, read=lambda x: ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    )
    # Through the metric as a run uses it: samples in [-1, 1], in two batches.
    for part in (fake / 127.5 - 1).split(8):
        metric.update(integrate(lambda x, t, y: torch.zeros_like(x), part))
    ours = metric.compute() | inception_score(extractor.logits(features)) | kid(features, real_features)
    ours |= precision_recall(features, real_features)
    return ours, torch_fidelity(pair, weights, isc=True, kid=True), (features, real_features)


@pytest.mark.slow
def test_fid_is_the_distance_of_torch_fidelitys_features(measured, pair, weights):
    """Their features, and the formula for few images: tr (S1 S2)^1/2 is the sum of singular values of C1 C2^T / (n - 1)."""
    net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=weights)
    fake, real = (net(x)[0].double() for x in pair)
    centred = [f - f.mean(0) for f in (fake, real)]
    cross = torch.linalg.svdvals(centred[0] @ centred[1].T).sum() / (N - 1)
    spread = sum(f.square().sum() / (N - 1) for f in centred)
    want = float((fake.mean(0) - real.mean(0)).square().sum() + spread - 2 * cross)
    assert want > 1
    assert measured[0]["fid"] == pytest.approx(want, abs=1e-3)


@pytest.mark.slow
def test_fid_equals_torch_fidelity(measured, pair, weights):
    """Its eigenvalues of a 2048 x 2048 product take a minute."""
    theirs = torch_fidelity(pair, weights, fid=True)["frechet_inception_distance"]
    assert theirs > 1
    assert measured[0]["fid"] == pytest.approx(theirs, abs=1e-3)


def test_features_are_torch_fidelitys(weights):
    net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=weights)
    extractor = InceptionFeatures(weights)
    extractor.load()
    x = images(4, 0.0)[:2]
    with torch.no_grad():
        torch.testing.assert_close(extractor(x), net(x)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mine", "name"),
    [
        ("isc_mean", "inception_score_mean"),
        ("isc_std", "inception_score_std"),
        ("kid_mean", "kernel_inception_distance_mean"),
    ],
)
def test_company_equals_torch_fidelity(measured, mine, name):
    ours, theirs, _ = measured
    assert ours[mine] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_precision_and_recall_by_brute_force(measured):
    ours, _, (fake, real) = measured

    def covered(points, centres):
        radius = torch.cdist(centres.double(), centres.double()).sort(1).values[:, 3]
        return float((torch.cdist(points.double(), centres.double()) <= radius).any(1).double().mean())

    assert ours["precision"] == pytest.approx(covered(fake, real))
    assert ours["recall"] == pytest.approx(covered(real, fake))


def test_precision_is_the_samples_share_and_recall_the_real_ones():
    real = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    narrow = real[:50] * 0.1
    found = precision_recall(narrow, real)
    assert found["precision"] > 0.9
    assert found["recall"] < 0.3
    with pytest.raises(UserError, match="more than 3"):
        precision_recall(real[:3], real)


def test_pytorch_fids_resize_is_another_number(weights):
    theirs, ours = InceptionFeatures(weights), PytorchFIDFeatures(weights)
    theirs.load()
    ours.load()
    x = images(2, 0.0)[:2]
    assert not torch.allclose(theirs(x), ours(x), rtol=1e-3)
    # At Inception's own size nothing is resized, and only the scaling differs: 2 x / 255 - 1 against (x - 128) / 128.
    x = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    y = 2 * x.float() / 255 - 1
    for layer in list(theirs.net.children())[:-1]:
        y = layer(y)
    torch.testing.assert_close(ours(x), y.flatten(1))


def test_gray_images_are_repeated_and_other_data_refused(weights):
    extractor = InceptionFeatures(weights)
    gray = images(3, 0.0)[:1, :1]
    torch.testing.assert_close(extractor(gray), extractor(gray.expand(-1, 3, -1, -1)))
    for wrong in (gray.float(), gray.expand(-1, 2, -1, -1), gray[0]):
        with pytest.raises(UserError, match="reads uint8 images"):
            extractor(wrong)


def test_missing_or_foreign_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        InceptionFeatures(str(tmp_path / "none.pth")).load()
    foreign = tmp_path / "foreign.pth"
    torch.save({"a": torch.zeros(1)}, foreign)
    with pytest.raises(UserError, match="Cannot load Inception weights"):
        InceptionFeatures(str(foreign)).load()


def test_weights_that_cannot_be_downloaded_are_named_with_their_place(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match=r"Cannot download weights.*put it at .*checkpoints") as caught:
        InceptionFeatures().load()
    assert "\n" not in str(caught.value)


def test_statistics_come_from_an_archive(tmp_path):
    x = torch.randn(50, 4).double()
    mean, cov = x.mean(0), x.T.cov()
    np.savez(tmp_path / "stats.npz", mu=mean, sigma=cov)
    reference = read_statistics(tmp_path / "stats.npz")
    assert reference.distance(mean, cov) == pytest.approx(0, abs=1e-9)
    np.savez(tmp_path / "half.npz", mu=mean)
    np.savez(tmp_path / "odd.npz", mu=mean, sigma=cov[:2])
    np.savez(tmp_path / "nan.npz", mu=mean, sigma=cov * float("nan"))
    np.savez(tmp_path / "words.npz", mu=np.array(list("four")), sigma=cov)
    np.save(tmp_path / "array.npy", cov)
    (tmp_path / "text.npz").write_text("nothing")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "truncated.npz").write_bytes((tmp_path / "stats.npz").read_bytes()[:200])
    bad = ("half", "odd", "nan", "words", "text", "empty", "truncated", "none")
    for name in (*(f"{name}.npz" for name in bad), "array.npy"):
        with pytest.raises(UserError, match=r"Use an .npz archive") as caught:
            read_statistics(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    np.savez(tmp_path / "big_endian.npz", mu=mean.numpy().astype(">f8"), sigma=cov.numpy().astype(">f4"))
    assert read_statistics(tmp_path / "big_endian.npz").distance(mean, cov) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_spatial_features_are_what_a_hook_sees(weights):
    """All of torch-fidelity's own forward pass runs; the hook reads mixed_6's 1x1 branch behind its rectifier."""
    net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=weights)
    seen = []
    net.Mixed_6d.branch1x1.register_forward_hook(lambda module, args, out: seen.append(out.detach().clone()))
    extractor = SpatialInceptionFeatures(weights, batch_size=2)
    extractor.load()
    for side in (32, 64):
        x = torch.randint(0, 256, (3, 3, side, side), generator=torch.Generator().manual_seed(side)).to(torch.uint8)
        found = extractor(x)
        net(x)
        want = seen.pop().numpy().transpose(0, 2, 3, 1)[..., :7].reshape(3, -1)
        assert found.shape == (3, 2023)
        assert found.std() > 0.01
        np.testing.assert_allclose(found.numpy(), want, rtol=1e-5, atol=1e-6)
    assert isinstance(named_extractor("sfid"), SpatialInceptionFeatures)
    with pytest.raises(UserError, match="Inception score cannot be computed"):
        FIDMonitor(extractor, inception_score=True)
    assert extractor.fingerprint != InceptionFeatures(weights).fingerprint


def test_features_are_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return torch.arange(6.0).reshape(3, 2)

    for _ in range(2):
        assert torch.equal(kept_features(tmp_path / "kept", ("a", "b"), compute), torch.arange(6.0).reshape(3, 2))
    kept_features(tmp_path / "kept", ("a", "c"), compute)
    assert len(calls) == 2


def test_features_that_are_there_are_read_where_nobody_may_write(tmp_path, monkeypatch):
    kept_features(tmp_path, ("a",), lambda: torch.ones(3, 2))

    def refuse(file):
        raise OSError(30, "Read-only file system", file)

    monkeypatch.setattr("fm_lightning.metrics.real_features.FileLock", refuse)
    assert torch.equal(kept_features(tmp_path, ("a",), lambda: torch.zeros(3, 2)), torch.ones(3, 2))
    with pytest.raises(UserError, match=r"Read-only file system.*FM_LIGHTNING_CACHE"):
        kept_features(tmp_path, ("b",), lambda: torch.ones(3, 2))


def test_extractors_by_name_and_any_module():
    assert isinstance(named_extractor("fid"), InceptionFeatures)
    with pytest.raises(UserError, match="fd_dinov2"):
        named_extractor("fid_mine")
    mine = ModuleFeatures(nn.Flatten(), key="fd_mine")
    assert torch.equal(mine(torch.ones(2, 3, 1)), torch.ones(2, 3))
    with pytest.raises(UserError, match="FID is Inception's"):
        ModuleFeatures(nn.Flatten(), key="fid_mine")


def test_options_that_need_what_is_not_there():
    with pytest.raises(UserError, match="Inception score cannot be computed"):
        FIDMonitor(RawFeatures(), inception_score=True)


def test_cmmd_by_brute_force():
    generator = torch.Generator().manual_seed(0)
    x, y = (nn.functional.normalize(torch.randn(n, 16, generator=generator), dim=1).double() for n in (30, 41))

    def k(a, b):
        return torch.exp(-torch.cdist(a, b).square() / 200).mean()

    assert cmmd(x.float(), y.float())["cmmd"] == pytest.approx(
        float(1000 * (k(x, x) + k(y, y) - 2 * k(x, y))), rel=1e-3
    )
    assert cmmd(x.float(), x.float())["cmmd"] == pytest.approx(0, abs=1e-6)
