"""CLIP and DINOv2 features from random weights in the published files' formats; nothing is downloaded."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.clip import ClipFeatures, CmmdFeatures
from fm_lightning.metrics.features.dinov2 import DinoFeatures

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
IMAGES = torch.randint(0, 256, (3, 3, 20, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


class Archive(nn.Module):
    """Parameters under given names: the published files are TorchScript archives, read for their state dict alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    archive = Archive()
    archive.visual = CLIPVisual(16, 64, vision_layers=1, vision_width=64, vision_patch_size=32).visual
    archive.text_projection = nn.Parameter(torch.randn(8, 16))
    # Tracing asks nothing of the submodules, which scripting would compile.
    path = tmp_path_factory.mktemp("clip") / "tiny.pt"
    torch.jit.trace(archive, torch.zeros(1)).save(str(path))
    return str(path)


def test_clip_is_torch_fidelitys(weights):
    features = ClipFeatures("clip-vit-b-32", weights, batch_size=2)
    theirs = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path=weights, verbose=False)
    torch.testing.assert_close(features(IMAGES), theirs(IMAGES)[0])
    assert features.key == "fd_clip"
    assert features(IMAGES[:, :1]).shape == (3, 16)


def test_cmmd_reads_unit_embeddings_behind_a_bicubic_resize(weights):
    features = CmmdFeatures(weights=weights)
    got = features(IMAGES)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(3))
    x = F.interpolate(IMAGES.float() / 255, (64, 64), mode="bicubic", antialias=True)
    x = (x - torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]) / torch.tensor(
        [0.26862954, 0.26130258, 0.27577711]
    )[:, None, None]
    torch.testing.assert_close(got, F.normalize(features.net.model.visual(x), dim=1))


def test_dinov2_is_torch_fidelitys_around_the_hubs_network(monkeypatch):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 7))
    asked = []
    monkeypatch.setattr(torch.hub, "load", lambda repository, name: asked.append((repository, name)) or net)
    features = DinoFeatures("dinov2-vit-s-14")
    assert features(IMAGES).shape == (3, 7)
    assert asked == [("facebookresearch/dinov2", "dinov2_vits14")]
    assert len(features.fingerprint) == 16


@pytest.mark.parametrize("make", [lambda: ClipFeatures("clip-huge"), lambda: DinoFeatures("dinov2-tiny")])
def test_unknown_models(make):
    with pytest.raises(UserError, match=r"There is no (CLIP|DINOv2) model"):
        make()


@pytest.mark.parametrize("extractor", [ClipFeatures(), CmmdFeatures(), DinoFeatures()])
def test_without_a_network_the_place_is_named(extractor, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match=r"Cannot download .*no network.*checkpoints") as caught:
        extractor.load()
    assert "\n" not in str(caught.value)


def test_a_foreign_file_is_no_clip(tmp_path):
    path = tmp_path / "foreign.pt"
    path.write_text("nothing")
    with pytest.raises(UserError, match="Download https"):
        ClipFeatures(weights=str(path)).load()


def test_the_download_lies_where_torch_fidelity_looks_for_it(tmp_path, monkeypatch, weights):
    """A file put at the named place is used, without asking any network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    features = ClipFeatures("clip-vit-b-32")
    place = features.source[1]
    place.parent.mkdir(parents=True)
    place.write_bytes(Path(weights).read_bytes())
    features.load()
    assert features(IMAGES).shape == (3, 16)
