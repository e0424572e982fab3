"""Folders that hold a network: read without running anything of theirs, and refused in one line where they do not fit."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch

from fm_lightning import UserError, load_network
from fm_lightning.adapters.data_space import DataSpace
from fm_lightning.adapters.model_folder import built, described, write_network
from fm_lightning.files import DamagedFile
from fm_lightning.hashes import weights_hash
from fm_lightning.nets import Guided, ResidualMLP, SiT, UNet

SPACE = DataSpace((2,), "the plane", num_classes=3, class_names=("a", "b", "c"))
NETS = {
    "mlp": {"class_path": "fm_lightning.nets.ResidualMLP", "init_args": {"shape": [2], "width": 8, "num_classes": 3}},
    "unet": {
        "class_path": "fm_lightning.nets.unet.UNet",
        "init_args": {
            "shape": [1, 8, 8],
            "num_channels": 8,
            "channel_mult": [1, 2],
            "attention_resolutions": [4],
            "groups": 4,
        },
    },
    "guided": {
        "class_path": "fm_lightning.nets.Guided",
        "init_args": {
            "net": {
                "class_path": "fm_lightning.nets.SiT",
                "init_args": {"shape": [4, 4, 4], "width": 16, "depth": 1, "heads": 2, "patch": 2, "num_classes": 3},
            },
            "scale": 1.5,
            "interval": [0.1, 0.9],
        },
    },
}


def write(folder, name="mlp", space=SPACE):
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    net = built(described(NETS[name]), folder).eval()
    for parameter in net.parameters():  # also those that begin at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    write_network(folder, net, described(NETS[name]), space, {"run": "tiny"})
    (folder / "results.json").write_text(json.dumps({"identity": {"weights": weights_hash(net)}}))
    (folder / "README.md").write_text(f"weights {weights_hash(net)}")
    return net


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "model")
    return tmp_path / "model"


@torch.no_grad()
@pytest.mark.parametrize(("name", "kind"), [("mlp", ResidualMLP), ("unet", UNet), ("guided", Guided)])
def test_every_network_comes_back(name, kind, tmp_path):
    shape = {"mlp": (2,), "unet": (1, 8, 8), "guided": (4, 4, 4)}[name]
    net = write(tmp_path / "f", name, DataSpace(shape))
    again = load_network(tmp_path / "f")
    assert type(again) is kind
    assert isinstance(again.net, SiT) if name == "guided" else True
    x, t, y = torch.randn(5, *shape), torch.rand(5), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(net(x, t, y), again(x, t, y))
    assert again.space == DataSpace(shape)
    assert not any(p.requires_grad for p in again.parameters())


def test_spaces_are_plain_data(folder):
    assert load_network(folder).space == SPACE
    latents = DataSpace((2, 1, 1), "latents", autoencoder="an/ae", shift=(1.0, 2.0), factor=(0.5, 4.0))
    assert DataSpace.from_dict(json.loads(json.dumps(latents.to_dict()))) == latents
    x = torch.tensor([[1.0, 8.0]])[..., None, None]
    assert latents.latents(x).flatten().tolist() == [3.0, 4.0]
    with pytest.raises(UserError, match="latents of an/ae, not images"):
        latents.to_uint8(x)
    with pytest.raises(UserError, match="no pixels"):
        SPACE.to_uint8(x)
    with pytest.raises(UserError, match="no latents"):
        SPACE.latents(x)
    assert DataSpace((2,)).labels(3) is None


def test_no_code_of_a_file_runs(folder, tmp_path, monkeypatch):
    """A class path, a pickle next to the weights, a module next to the configuration: nothing of it is imported."""
    monkeypatch.chdir(folder)
    (folder / "evil.py").write_text("raise SystemExit('it ran')")

    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('it ran')",))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    load_network(folder)
    for name in ("evil.Net", "evil", "torch.nn.Linear", "Velocity", "__import__"):
        change(folder, net={"class": name, "init_args": {}})
        with pytest.raises(UserError, match=f"names the class {name}, which is not among Guided"):
            load_network(folder)
    change(folder, net={"class": "Guided", "init_args": {"net": {"class": "evil.Net", "init_args": {}}, "scale": 1.5}})
    with pytest.raises(UserError, match=r"names the class evil\.Net"):
        load_network(folder)


def change(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def without_config(folder):
    (folder / "config.json").unlink()


def only_pickles(folder):
    without_config(folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def a_run(folder):
    without_config(folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.ckpt").write_bytes(b"")


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flipped(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (without_config, r"model holds no config\.json\. Copy the whole exported folder again\."),
        (
            only_pickles,
            r"holds only pickles \(pytorch_model\.bin\), which can run code.*load_weights\(net, '.*\.bin'\)",
        ),
        (a_run, r"is a run\. Pass its checkpoint .*last\.ckpt, or export it: fm-lightning export"),
        (truncated, r"Cannot read .*model\.safetensors"),
        (flipped, r"model\.safetensors is not the file that config\.json was written with"),
        (lambda f: (f / "model.safetensors").unlink(), r"holds no model\.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), r"Cannot read .*config\.json"),
        (lambda f: (f / "config.json").write_text("[]"), "was not written by fm-lightning export"),
        (
            lambda f: (f / "config.json").write_text('{"_class_name": "UNet2DModel"}'),
            r"UNet2DModel with diffusers.*FromDiff",
        ),
        (lambda f: change(f, format=2), r"has format 2, and this program reads format 1\. Update it"),
        (lambda f: change(f, format="1"), "has format 1, and this"),
        (lambda f: change(f, net={"class": "SiTs", "init_args": {}}), r"names the class SiTs, which is not among"),
        (lambda f: change(f, net=None), "names the class None"),
        (lambda f: change(f, net={"class": "ResidualMLP"}), "no arguments of the network"),
        (
            lambda f: change(f, net={"class": "ResidualMLP", "init_args": {"shape": [2], "colour": 3}}),
            r"config\.json: ResidualMLP does not take colour",
        ),
        (lambda f: change(f, net={"class": "ResidualMLP", "init_args": {}}), r"config\.json: ResidualMLP needs shape"),
        (
            lambda f: change(f, net={"class": "ResidualMLP", "init_args": {"shape": "2"}}),
            r"Cannot read .*config\.json: ResidualMLP cannot be built",
        ),
        (
            lambda f: change(f, net={"class": "ResidualMLP", "init_args": {"shape": [2], "width": 9}}),
            "does not fit the configured network",
        ),
        (lambda f: change(f, weights={}), "says nothing of the weights"),
        (lambda f: change(f, space={"colour": 1}), r"Cannot read .*config\.json: the space has colour"),
        (lambda f: change(f, space={"name": "x"}), r"Cannot read .*config\.json"),
        (
            lambda f: (f / "results.json").write_text('{"identity": {"weights": "0123"}}'),
            r"results\.json holds results of other weights \(0123, not",
        ),
        (lambda f: (f / "results.json").write_text("{}"), r"results\.json: it does not say of which weights it is"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_in_one_line(harm, message, folder):
    harm(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_network(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_folder_without_results_is_a_network_all_the_same(folder):
    (folder / "results.json").unlink()
    (folder / "README.md").unlink()
    assert load_network(folder)


@pytest.mark.parametrize("path", ["nowhere", "no/where/at/all", "/no/where"])
def test_nothing_there(path):
    with pytest.raises(UserError, match="There is no"):
        load_network(path)


def test_no_module_of_others_can_be_described():
    for path in ("my_nets.UNet", "fm_lightning.nets.Velocity", "fm_lightning.netsx.UNet", "torch.nn.Linear"):
        with pytest.raises(UserError, match=f"The network {path} cannot be rebuilt"):
            described({"class_path": path, "init_args": {}})


def test_a_truncated_header_is_named(folder):
    (folder / "model.safetensors").write_bytes(b"\x00" * 4)
    with pytest.raises(DamagedFile):
        load_network(folder)
    shutil.rmtree(folder)
