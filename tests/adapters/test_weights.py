"""Weights from real files in the formats that people publish, each made here from a tiny random network."""

from __future__ import annotations

import argparse
import copy
import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import tiny_config
from torch import Tensor, nn

from fm_lightning.adapters import MetaVelocity, Reversed, load_network, load_repa, load_sit, load_torchcfm, load_weights
from fm_lightning.adapters.state_dicts import read_weights
from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule, integrate
from fm_lightning.nets import Guided, ResidualMLP, SiT, UNet, Velocity

SIZES = {"width": 32, "depth": 2, "heads": 2, "patch": 2}
SMALL = {
    "dim": (3, 8, 8),
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": (1, 2),
    "attention_resolutions": "4",
}


def sit(seed: int = 0, **changes) -> SiT:
    return random(SiT(**({"shape": (4, 8, 8), "num_classes": 5, "learn_sigma": True} | SIZES | changes)), seed)


def mlp(seed: int = 0) -> ResidualMLP:
    return random(ResidualMLP([2], width=8, depth=1), seed)


def random(net, seed: int):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.2, generator=generator)
    return net.eval()


def same(a: nn.Module, b: nn.Module) -> bool:
    """Equal weights, name by name."""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def prefixed(net: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in net.state_dict().items()}


# Weights in a file of any form


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "net.", "module._orig_mod.", "net._orig_mod.", "model."]
)
@pytest.mark.parametrize(
    ("form", "nesting"),
    [
        ("safetensors", ""),  # which hold no nesting
        *itertools.product(
            ("memory", "torch", "old torch"), ("", "ema", "ema_model", "state_dict", "model", "net_model")
        ),
    ],
)
def test_forms_nestings_and_prefixes(form: str, nesting: str, prefix: str, tmp_path: Path) -> None:
    net, other = mlp(1), mlp(2)
    state = prefixed(net, prefix)
    content = {nesting: state, "step": 7, "optim": {"state": {0: {"step": torch.tensor(7.0)}}}} if nesting else state
    file = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_file(state, file)
    elif form != "memory":
        torch.save(content, file, _use_new_zipfile_serialization=form == "torch")
    source = load_weights(other, content if form == "memory" else file)
    assert same(other, net)
    where = f" ({nesting})" if nesting else ""
    assert source == ("the state dict" if form == "memory" else str(file)) + where


def test_the_average_is_preferred_wherever_it_stands() -> None:
    raw, average, other = mlp(1), mlp(2), mlp(3)
    for checkpoint in (
        {"model": raw.state_dict(), "ema": average.state_dict()},
        {"net_model": prefixed(raw, "module."), "ema_model": average.state_dict(), "step": 1},
        {"state_dict": {"x": torch.zeros(1)}, "ema": {"state_dict": prefixed(average, "net.")}},
        {"ema": 0.9999, "ema_model": average.state_dict(), "model": raw.state_dict()},
        {"model": raw.state_dict(), "model_ema": average.state_dict()},
        {
            "state_dict": raw.state_dict(),
            "state_dict_ema": prefixed(average, "module."),
            "ema_updates": torch.tensor(7),
        },
        {"net": raw.state_dict(), "averaged_model": {"n_averaged": torch.tensor(3), **prefixed(average, "module.")}},
        {"model": raw.state_dict(), "modelEMA": average.state_dict()},
        {"state_dict": prefixed(raw, "net.") | prefixed(average, "net_ema.") | {"loss.weight": torch.ones(2)}},
        {"state_dict": prefixed(raw, "model.") | prefixed(average, "ema.module.")},
        {"n_averaged": torch.tensor(3), **prefixed(average, "module.")},
        # Lightning's: the raw weights stand next to the average.
        {"state_dict": prefixed(average, "net."), "current_model_state": prefixed(raw, "net.")},
    ):
        load_weights(other, checkpoint)
        assert same(other, average)


def test_other_weights_beside_the_network_are_left() -> None:
    """A training module's state: the network under ``net.``, and a loss's or a metric's tensors."""
    net, other = mlp(1), mlp(2)
    assert load_weights(other, {"state_dict": {"loss.weight": torch.ones(2), **prefixed(net, "net.")}}).endswith(
        "(state_dict)"
    )
    assert same(other, net)


def test_weights_are_copied_not_shared_and_take_the_networks_dtype(tmp_path: Path) -> None:
    net, other = mlp(1), mlp(2)
    torch.save({key: value.to(torch.bfloat16) for key, value in net.state_dict().items()}, tmp_path / "half.pt")
    load_weights(other, tmp_path / "half.pt")
    (tmp_path / "half.pt").write_bytes(b"")  # nothing is read later
    assert all(p.dtype == torch.float32 for p in other.parameters())
    torch.testing.assert_close(dict(other.named_parameters()), dict(net.named_parameters()), rtol=0.01, atol=0)
    state = net.state_dict()
    load_weights(other, state)
    with torch.no_grad():
        other.inlet.weight.zero_()
    assert net.inlet.weight.any()


@pytest.mark.parametrize("name", ["net", "model", "module"])
def test_a_networks_own_names_are_not_taken_for_a_wrappers(name: str) -> None:
    """torchcfm's MLP keeps all its layers under ``net``."""

    def network(seed: int) -> nn.Module:
        module = nn.Module()
        setattr(module, name, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
        return random(module, seed)

    net, other = network(1), network(2)
    for state in (net.state_dict(), {"ema": net.state_dict()}, {"state_dict": prefixed(net, "module._orig_mod.")}):
        load_weights(other := network(3), state)
        assert same(other, net)
    inner = getattr(other, name)
    load_weights(inner, net.state_dict())  # the same file for the network inside
    assert same(inner, getattr(net, name))


# What is refused


@pytest.mark.parametrize(
    ("keys", "choose"),
    [
        (("model", "second"), "second"),  # equal names, of which nothing says that one is an average
        (("ema_0.999", "ema_0.9999"), "ema_0.9999"),
        (("ema", "model_ema"), "model_ema"),
    ],
)
def test_several_sets_of_weights_are_named(keys: tuple[str, str], choose: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    nets = {key: mlp(i) for i, key in enumerate(keys)}
    torch.save({key: net.state_dict() for key, net in nets.items()} | {"step": 3}, "two.pt")
    with pytest.raises(UserError, match=f"two.pt holds several sets of weights: {', '.join(keys)}.") as refused:
        load_weights(mlp(5), "two.pt")
    exec(refused.value.fix.partition(": ")[2], {"torch": torch})  # the fix works as it is printed
    load_weights(other := mlp(6), "weights.pt")
    assert same(other, nets[choose])


def test_an_average_in_a_callbacks_state_is_named() -> None:
    content = {"state_dict": prefixed(mlp(1), "net."), "callbacks": {"Average": {"ema_weights": mlp(2).state_dict()}}}
    with pytest.raises(UserError, match="weights: state_dict, callbacks/Average/ema_weights"):
        load_weights(mlp(3), content)
    # Names that lost their dots cannot be matched.
    flat = {"model_ema." + key.replace(".", ""): value for key, value in mlp(2).state_dict().items()}
    with pytest.raises(UserError, match=r"holds model.\* and model_ema.\*"):
        load_weights(mlp(3), {"state_dict": prefixed(mlp(1), "model.") | flat})


def test_wrappers_inside_the_names_are_named() -> None:
    """As ``torch.compile`` of a layer alone leaves them."""
    for infix in ("_orig_mod.", "_checkpoint_wrapped_module."):
        state = {key.replace("layers.", f"layers.{infix}"): value for key, value in mlp(1).state_dict().items()}
        with pytest.raises(UserError, match=rf"contain '{infix}', for example time.layers.{infix}0.weight") as refused:
            load_weights(mlp(2), state)
        assert refused.value.fix == f"Pass the state dict with k.replace('{infix}', '') for each of its names k."


def damaged(folder: Path) -> dict[str, Path]:
    torch.save(mlp().state_dict(), folder / "whole.pt")
    save_file(mlp().state_dict(), folder / "whole.safetensors")
    files = {}
    for name in ("whole.pt", "whole.safetensors"):
        content = (folder / name).read_bytes()
        for kind, some in {
            "half": content[: len(content) // 2],
            "empty": b"",
            "text": b"version https://git-lfs",
        }.items():
            files[f"{kind} {name}"] = folder / f"{kind}-{name}"
            files[f"{kind} {name}"].write_bytes(some)
    return files


@pytest.mark.parametrize("kind", ["half", "empty", "text"])
@pytest.mark.parametrize("name", ["whole.pt", "whole.safetensors"])
def test_damaged_files(kind: str, name: str, tmp_path: Path) -> None:
    file = damaged(tmp_path)[f"{kind} {name}"]
    with pytest.raises(
        UserError, match=r"cannot be read as weights: it is truncated or foreign. Copy the file again"
    ) as said:
        load_weights(mlp(), file)
    assert str(file) in str(said.value)
    assert "\n" not in str(said.value)


def test_files_that_are_not_there_or_hold_code(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pt", tmp_path):
        with pytest.raises(UserError, match="There is no file"):
            load_weights(mlp(), path)
    torch.save(mlp(), tmp_path / "module.pt")
    with pytest.raises(UserError, match="holds more than plain data"):
        load_weights(mlp(), tmp_path / "module.pt")
    with pytest.raises(UserError, match=r"A int holds no weights. Pass a file or a state dict"):
        load_weights(mlp(), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"shadow_params": [torch.ones(1)], "decay": 0.9},
            r"\(shadow_params\) holds a list. Pass a state dict",
        ),
        (
            {"ema": {"decay": 0.9, "shadow_params": [torch.ones(2)]}, "model": {"a": torch.ones(2)}},
            r"\(ema/shadow_params\) holds a list",
        ),
        ({}, "its keys are none"),
        ({f"k{i}": i for i in range(20)}, r"its keys are k0, k1, .*k7, \.\.\."),
    ],
)
def test_unknown_nestings_list_the_keys_found(content: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_weights(mlp(), content)


def test_a_list_of_tensors(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list.pt holds a list. Pass a state dict: tensors by name"):
        load_weights(mlp(), tmp_path / "list.pt")


def test_the_first_key_that_does_not_fit_is_named_with_both_shapes() -> None:
    wider = ResidualMLP([2], width=16, depth=1).state_dict()
    with pytest.raises(UserError, match=r"^time.layers.0.weight of the state dict has shape \[16, 64\], not \[8, 64\]"):
        load_weights(mlp(), wider)
    state = mlp().state_dict()
    last = next(reversed(state))
    with pytest.raises(UserError, match=rf"the state dict lacks {last} \(of shape \[2\]\)"):
        load_weights(mlp(), {key: value for key, value in state.items() if key != last})
    with pytest.raises(UserError, match=r"^label.weight of the state dict has no place in the network"):
        load_weights(mlp(), state | {"label.weight": torch.ones(3, 8)})
    with pytest.raises(UserError, match=r"of the state dict is torch.int8, not torch.float32"):
        load_weights(mlp(), {key: value.to(torch.int8) for key, value in state.items()})


def test_nothing_is_changed_when_something_does_not_fit() -> None:
    net = mlp(1)
    kept = copy.deepcopy(net)
    state = mlp(2).state_dict()
    state.popitem()
    with pytest.raises(UserError):
        load_weights(net, state)
    assert same(net, kept)


# SiT


@pytest.mark.parametrize(
    "changes", [{}, {"learn_sigma": False}, {"num_classes": 0}, {"patch": 4}, {"shape": (3, 12, 12)}]
)
def test_load_sit_reads_all_but_the_heads_off_the_file(changes: dict, tmp_path: Path) -> None:
    net = sit(**changes)
    torch.save(net.state_dict(), tmp_path / "sit.pt")
    loaded = load_sit(tmp_path / "sit.pt", **(SIZES | {k: v for k, v in changes.items() if k in SIZES}))
    assert same(loaded, net)
    assert not loaded.training
    assert loaded.shape == net.shape
    assert (loaded.num_classes, loaded.null_label) == (net.num_classes, net.null_label)
    assert not loaded.pos_embed.requires_grad
    x, t, y = torch.randn(2, *net.shape), torch.rand(2), torch.zeros(2, dtype=torch.int64)
    assert torch.equal(loaded(x, t, y), net(x, t, y))


def test_the_checkpoint_of_sits_own_training_script(tmp_path: Path) -> None:
    """``model``, ``ema``, ``opt`` and ``args``, a Namespace: it opens, and the average is taken."""
    net, average = sit(1), sit(2)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 1e-4)
    x, y = torch.randn(2, 4, 8, 8), torch.tensor([0, 5])
    net(x, torch.rand(2), y).sum().backward()
    optimizer.step()
    args = argparse.Namespace(model="SiT-XL/2", global_batch_size=256, cfg_scale=4.0)
    checkpoint = {"model": net.state_dict(), "ema": average.state_dict(), "opt": optimizer.state_dict(), "args": args}
    torch.save(checkpoint, tmp_path / "0400000.pt")
    loaded = load_sit(tmp_path / "0400000.pt", **SIZES)
    assert same(loaded, average)
    trajectory = integrate(Guided(loaded, 1.5), x, Schedule(steps=4), labels=torch.tensor([0, 1]))
    assert trajectory.x1.isfinite().all()
    assert (trajectory.kpe > 0).all()


def test_a_sit_that_is_not_square() -> None:
    net = sit(shape=(4, 4, 8))
    assert same(load_sit(net.state_dict(), **SIZES, shape=(4, 4, 8)), net)
    with pytest.raises(UserError, match=r"pos_embed of the state dict has shape \[1, 8, 32\], not \[1, 4, 32\]"):
        load_sit(net.state_dict(), **SIZES)


def test_a_published_size_is_named(tmp_path: Path) -> None:
    small = SiT(model="S/8")
    save_file(small.state_dict(), tmp_path / "s8.safetensors")
    assert same(load_sit(tmp_path / "s8.safetensors", "S/8"), small)
    for wrong in ("XL/2", "S/2", "B/8"):
        with pytest.raises(UserError, match=rf"s8.safetensors holds SiT-S/8, not SiT-{wrong}\."):
            load_sit(tmp_path / "s8.safetensors", wrong)
    with pytest.raises(UserError, match="holds SiT-S/8, not SiT-S/4"):
        load_weights(SiT(model="S/4"), tmp_path / "s8.safetensors")
    with pytest.raises(UserError, match="holds a SiT of width 32, depth 2 and patch 2, not SiT-S/8"):
        load_sit(sit().state_dict(), "S/8")
    with pytest.raises(UserError, match="model='S/3' is unknown"):
        load_sit(small.state_dict(), "S/3")
    with pytest.raises(
        UserError, match=r"y_embedder.embedding_table.weight .* has shape \[1001, 384\], not \[11, 384\]"
    ):
        load_weights(SiT(model="S/8", num_classes=10), small.state_dict())


def test_misspelt_keywords_are_named() -> None:
    for load in (load_sit, load_repa):
        with pytest.raises(UserError, match=r"load_sit does not take widht. Did you mean width?"):
            load(sit().state_dict(), "S/2", widht=3)
    with pytest.raises(UserError, match=r"load_torchcfm does not take num_chanels. Did you mean num_channels?"):
        load_torchcfm({}, **{"num_chanels" if key == "num_channels" else key: value for key, value in SMALL.items()})
    with pytest.raises(UserError, match=r"load_torchcfm needs dim, num_res_blocks."):
        load_torchcfm({}, num_channels=32)


def test_what_is_no_sit_is_refused() -> None:
    for call in (load_sit, lambda state: load_weights(sit(), state)):
        with pytest.raises(UserError, match=r"holds no SiT; its keys are time.layers.0.weight, "):
            call(mlp().state_dict())
    part = {key: value for key, value in SiT(model="S/8").state_dict().items() if key != "pos_embed"}
    with pytest.raises(UserError, match="lacks 'pos_embed'"):
        load_sit(part, "S/8")


# REPA and flow_matching


def repa_checkpoint(net: SiT) -> dict[str, dict[str, Tensor]]:
    return {
        "ema": net.state_dict() | {"projectors.0.0.weight": torch.randn(4, 32), "projectors.0.0.bias": torch.randn(4)}
    }


@torch.no_grad()
def test_repas_clock_and_sign_are_turned() -> None:
    net = sit(learn_sigma=False)
    x, t, y = torch.randn(3, 4, 8, 8), torch.tensor([0.0, 0.3, 1.0]), torch.tensor([0, 2, 5])
    turned = load_repa(repa_checkpoint(net), **SIZES)
    torch.testing.assert_close(turned(x, t, y), -net(x, 1 - t, y))
    assert (turned.num_classes, turned.null_label, turned.evaluations(0.2)) == (5, 5, 1)
    assert not turned.training
    into = Reversed(sit(3, learn_sigma=False))
    load_weights(into, repa_checkpoint(net))
    assert torch.equal(into(x, t, y), turned(x, t, y))
    for call in (lambda s: load_sit(s, **SIZES), lambda s: load_weights(sit(learn_sigma=False), s)):
        with pytest.raises(UserError, match=r"projectors\.\*: it is of REPA, .*load_repa.*Reversed"):
            call(repa_checkpoint(net))
    with pytest.raises(UserError, match=r"shape \[4, 8, 8\], not"):
        turned.check_shape((3, 8, 8))


@torch.no_grad()
def test_a_reversed_field_leads_to_the_same_place() -> None:
    """x' = a x from t = 0 to 1 is, told backwards, the field -a x on the other clock."""
    field = mlp(1)

    class Backwards(Velocity):
        def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
            return -field(x, 1 - t, y)

    x0 = torch.randn(5, 2)
    ours, theirs = (integrate(v, x0, Schedule(steps=20, solver="heun")) for v in (field, Reversed(Backwards())))
    torch.testing.assert_close(theirs.x1, ours.x1)
    torch.testing.assert_close(theirs.kpe, ours.kpe)
    seen: list[int] = []
    inner = sit()
    inner.t_embedder.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    integrate(Reversed(inner), torch.randn(3, 4, 8, 8), Schedule(steps=2), labels=torch.tensor([0, 1, 2]))
    assert seen == [1, 1], "one time for all is still embedded once"


class MetaModel(nn.Module):
    """As in flow_matching's examples: labels and options are keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, scale: float = 1.0) -> Tensor:
        assert t.shape == (len(x),)
        return scale * self.layer(x) * t[:, None] + (0 if label is None else label[:, None])


@torch.no_grad()
def test_a_model_of_flow_matching() -> None:
    model, x, t = MetaModel(), torch.randn(3, 2), torch.rand(3)
    y = torch.tensor([0, 1, 3])
    torch.testing.assert_close(MetaVelocity(model)(x, t, y), model(x, t))
    conditional = MetaVelocity(model, num_classes=3, null_label=3, scale=2.0)
    torch.testing.assert_close(conditional(x, t, y), model(x, t, label=y, scale=2.0))
    null = model(x, t, label=torch.full_like(y, 3), scale=2.0)
    torch.testing.assert_close(Guided(conditional, 2.0)(x, t, y), null + 2 * (conditional(x, t, y) - null))
    with pytest.raises(UserError, match="labels"):
        conditional(x, t)
    other = MetaModel()
    load_weights(MetaVelocity(other), {"state_dict": prefixed(model, "module.")})
    assert same(other, model)
    own = {"state_dict": prefixed(MetaVelocity(model), "net.")}
    load_weights(conditional := MetaVelocity(MetaModel()), own)
    assert same(conditional.model, model)


# torchcfm


@pytest.mark.parametrize("nesting", ["", "ema_model", "ema", "model", "state_dict", "net_model"])
@torch.no_grad()
def test_torchcfms_files(nesting: str, tmp_path: Path) -> None:
    wrapper = pytest.importorskip("torchcfm.models.unet.unet", exc_type=ImportError).UNetModelWrapper
    theirs = random(wrapper(**SMALL), 1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(torch.optim.Adam(theirs.parameters()), lambda step: 1.0)
    state = prefixed(theirs, "module.")
    content = {nesting: state, "sched": scheduler.state_dict(), "step": 400_000} if nesting else state
    torch.save(content, tmp_path / "otcfm.pt")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.2, 0.9])
    ours = load_torchcfm(tmp_path / "otcfm.pt", **SMALL)
    torch.testing.assert_close(ours(x, t), theirs(t, x), rtol=1e-5, atol=1e-5)
    net = UNet((3, 8, 8), 32, 1, (1, 2), (4,), num_heads=1).eval()
    assert load_weights(net, tmp_path / "otcfm.pt").endswith(f"({nesting})" if nesting else "otcfm.pt")
    assert same(net, ours)
    back = UNet((3, 8, 8), 32, 1, (1, 2), (4,), num_heads=1)
    load_weights(back, net.state_dict())  # our own names
    assert same(back, net)


def test_a_torchcfm_file_under_an_unknown_key_or_of_another_network() -> None:
    with pytest.raises(
        UserError, match=r"its keys are weights, step. Pass the state dict, or a file with it under one of ema"
    ):
        load_torchcfm({"weights": {"a": torch.ones(1)}, "step": 3}, **SMALL)
    with pytest.raises(UserError, match=r"holds no U-Net of torchcfm; its keys are x_embedder.proj.weight, "):
        load_torchcfm({k: v for k, v in sit().state_dict().items() if k != "pos_embed"}, **SMALL)


# Our own


@pytest.mark.slow
@pytest.mark.parametrize("transformer", [False, True])
def test_our_own_checkpoint(transformer: bool, command, tmp_path: Path) -> None:
    """What ``fit`` leaves, its average included, of an MLP and of a SiT with label dropout."""
    if transformer:
        sizes = {"shape": [1, 8, 8], "width": 16, "depth": 1, "heads": 2, "patch": 4, "num_classes": 10}

        def change(config: dict) -> None:
            config["data"]["class_path"] = "fm_lightning.data.Digits"
            config["data"]["init_args"] |= {"conditional": True, "n": 40}
            config["model"] |= {
                "net": {"class_path": "fm_lightning.nets.SiT", "init_args": sizes},
                "label_dropout": 0.5,
            }

        tiny_config(tmp_path / "tiny.yaml", change)
    ended = command("fit", "-c", "tiny.yaml")
    assert ended.status == 0, ended.err
    (file,) = tmp_path.glob("runs/*/checkpoints/last.ckpt")
    trained = load_network(file)
    other = random(copy.deepcopy(trained).requires_grad_(True), 5)
    assert not same(other, trained)
    assert load_weights(other, file) == f"{file} (state_dict)"
    assert same(other, trained)


def test_reading_keeps_nothing_but_the_weights(tmp_path: Path) -> None:
    torch.save({"ema": mlp().state_dict(), "opt": {"x": torch.ones(9)}}, tmp_path / "a.pt")
    weights = read_weights(tmp_path / "a.pt")
    assert weights.tensors.keys() == mlp().state_dict().keys()


def test_a_text_holds_no_weights(tmp_path):
    (tmp_path / "notes.txt").write_text("Step 1: 0.5\n" * 9)
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_weights(nn.Linear(2, 2), tmp_path / "notes.txt")
