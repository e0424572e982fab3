"""Exported networks on the Hub: loaded at a commit, uploaded by one's own login, and one line for everything else.

The Hub is a server on this machine that speaks its protocol; the client is huggingface_hub itself.
"""

from __future__ import annotations

import json

import pytest
import torch
from hub_server import TOKEN, serving

from fm_lightning import UserError, load_network
from fm_lightning.adapters import push_to_hub
from fm_lightning.adapters.data_space import DataSpace
from fm_lightning.adapters.model_folder import built, described, write_network
from fm_lightning.hashes import weights_hash

NET = {"class_path": "fm_lightning.nets.ResidualMLP", "init_args": {"shape": [2], "width": 8}}
WRONG = "0123456789" * 4


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    net = built(described(NET), path)
    write_network(path, net, described(NET), DataSpace((2,), "the plane"), {})
    (path / "results.json").write_text(json.dumps({"identity": {"weights": weights_hash(net)}}))
    (path / "README.md").write_text(f"---\nlicense: mit\n---\nweights {weights_hash(net)}")
    return path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import HfApi, constants
    from huggingface_hub.hf_api import api

    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(api, "endpoint", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.chdir(tmp_path)
        assert HfApi().endpoint == hub.url
        yield hub


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@torch.no_grad()
def test_a_pinned_model_is_downloaded_once(hub, folder):
    commit = hub.commit("user/flow", contents(folder))
    x, t = torch.randn(4, 2), torch.rand(4)
    wanted = load_network(folder)(x, t)
    net = load_network("user/flow", revision=commit)
    assert torch.equal(net(x, t), wanted)
    assert net.space.name == "the plane"
    asked = len(hub.asked)
    assert torch.equal(load_network("user/flow", revision=commit)(x, t), wanted)
    assert not [line for line in hub.asked[asked:] if line.startswith("GET")]


def test_a_model_without_results_is_one(hub, folder):
    (folder / "results.json").unlink()
    assert load_network("user/flow", revision=hub.commit("user/flow", contents(folder)))


def test_results_of_other_weights_are_refused_from_the_hub_too(hub, folder):
    (folder / "results.json").write_text('{"identity": {"weights": "0123"}}')
    with pytest.raises(UserError, match="results of other weights"):
        load_network("user/flow", revision=hub.commit("user/flow", contents(folder)))


def test_one_that_moves_is_not_loaded(hub, folder):
    hub.commit("user/flow", contents(folder))
    for revision in (None, "main", "v1.0", "0123"):
        with pytest.raises(
            UserError, match=r"loaded at a commit of 40 digits.*https://huggingface.co/user/flow/commits"
        ):
            load_network("user/flow", revision=revision)
    with pytest.raises(UserError, match=r"no model on the Hub, and only those have a revision"):
        load_network(folder, revision=WRONG)
    (folder.parent / "user").mkdir()
    with pytest.raises(UserError, match=r"There is no file or folder user/flow"):
        load_network("user/flow")
    assert not hub.asked


def test_what_the_hub_does_not_have(hub, folder):
    commit = hub.commit("user/flow", contents(folder))
    hub.gated.add("user/gated")
    other = hub.commit("user/other", {"config.json": b"{}", "pytorch_model.bin": b""})
    for name, revision, message in (
        ("user/nothing", commit, "The Hub shows no model user/nothing to this login"),
        ("user/flow", WRONG, f"user/flow has no commit {WRONG}"),
        ("user/gated", commit, "shared only with people whom its author has admitted"),
        ("user/other", other, "was not exported by fm-lightning"),
        ("user/-x-.", commit, "The Hub refuses user/-x-"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            load_network(name, revision=revision)
        assert "\n" not in str(caught.value)


def test_no_connection(hub, folder, monkeypatch):
    from huggingface_hub import constants

    commit = hub.commit("user/flow", contents(folder))
    load_network("user/flow", revision=commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_network("user/flow", revision=commit), "from the cache"
    with pytest.raises(
        UserError, match=r"The Hub cannot be reached, and user/other at 012345678901 is not in the cache"
    ):
        load_network("user/other", revision=WRONG)
    with pytest.raises(UserError, match=r"The Hub cannot be reached\. Connect"):
        push_to_hub(folder, "user/flow")


@pytest.mark.slow
def test_no_answer(hub, folder, monkeypatch):
    from huggingface_hub import constants
    from huggingface_hub.hf_api import api

    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(api, "endpoint", nowhere)
    for use in (lambda: load_network("user/flow", revision=WRONG), lambda: push_to_hub(folder, "user/flow")):
        with pytest.raises(UserError, match="The Hub cannot be reached") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_upload_is_by_ones_own_login(hub, folder):
    with pytest.raises(UserError, match=r"does not let this login write to user/flow\. Run hf auth login"):
        push_to_hub(folder, "user/flow")
    assert not hub.repos
    from huggingface_hub import constants

    with open(constants.HF_TOKEN_PATH, "w") as file:
        file.write(TOKEN)
    (folder / ".hidden").write_text("mine")
    commit = push_to_hub(folder, "user/flow")
    (folder / ".hidden").unlink()
    assert hub.repos["user/flow"][commit] == contents(folder)
    assert load_network("user/flow", revision=commit)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "README.md").write_text("weights 0123"), r"README\.md is the card of other weights"),
        (lambda f: (f / "README.md").unlink(), r"holds no README\.md"),
        (lambda f: (f / "results.json").unlink(), r"holds no results\.json"),
        (lambda f: (f / "results.json").write_text('{"identity": {"weights": "1"}}'), "results of other weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"12345678"), "Cannot read"),
    ],
)
def test_a_folder_that_contradicts_itself_is_not_uploaded(hub, folder, harm, message):
    harm(folder)
    with pytest.raises(UserError, match=message):
        push_to_hub(folder, "user/flow")
    with pytest.raises(UserError, match="'flow' is no name on the Hub"):
        push_to_hub(folder, "flow")
    assert not hub.asked
