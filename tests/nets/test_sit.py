"""SiT computes the published function: against diffusers' DiT, written by others, with the four changes that make it one."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, Schedule, integrate
from fm_lightning.nets import Guided, SiT
from fm_lightning.nets.sit import MODELS


def tiny(**changes) -> SiT:
    return SiT(**({"shape": (4, 8, 8), "width": 48, "depth": 2, "heads": 3, "patch": 2, "num_classes": 5} | changes))


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Every trained parameter random, those that start at zero too, so that the output is of order 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.copy_(noise / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.3 * noise)
    return net.eval()


def inputs(net: SiT, batch: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *net.shape, generator=generator).to(dtype)
    t = torch.linspace(0, 1, batch).to(dtype)
    return x, t, torch.arange(batch) * 2 % (net.num_classes + 1)


# diffusers' DiT with SiT's four changes


class TimeWaves(nn.Module):
    """SiT's sinusoids (``downscale_freq_shift=0``), without a step through float32."""

    def forward(self, t: Tensor) -> Tensor:
        waves = torch.exp(-math.log(10_000) * torch.arange(128, dtype=torch.float32) / 128).double()
        return torch.cat([(t[:, None] * waves).cos(), (t[:, None] * waves).sin()], 1)


def places(side: int, width: int) -> Tensor:
    """Position by position and number by number, from the definition."""
    quarter = width // 4
    table = torch.zeros(1, side * side, width, dtype=torch.float64)
    for row, column, k in itertools.product(range(side), range(side), range(quarter)):
        omega = 10_000.0 ** (-k / quarter)
        for half, place in enumerate((column, row)):
            table[0, row * side + column, 2 * half * quarter + k] = math.sin(place * omega)
            table[0, row * side + column, (2 * half + 1) * quarter + k] = math.cos(place * omega)
    return table


def diffusers_dit(net: SiT) -> nn.Module:
    """The same network, built and computed by diffusers, with the same weights, in float64."""
    dit = pytest.importorskip("diffusers", exc_type=ImportError).DiTTransformer2DModel
    width, depth, heads = net.pos_embed.shape[-1], len(net.blocks), net.blocks[0].attn.heads
    out = net.final_layer.linear.out_features // net.patch**2
    theirs = dit(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=net.shape[0],
        out_channels=out,
        num_layers=depth,
        sample_size=net.shape[1],
        patch_size=net.patch,
        num_embeds_ada_norm=net.num_classes,
        norm_eps=1e-6,
    ).double()
    theirs.load_state_dict(diffusers_names(net.state_dict()))
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj = TimeWaves()
    theirs.pos_embed.pos_embed = places(net.shape[1] // net.patch, width)
    return theirs.eval()


def diffusers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SiT's state dict under diffusers' names: q, k, v apart, and the embedders once in every block."""
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    names = {
        "x_embedder.": "pos_embed.",
        "final_layer.adaLN_modulation.1.": "proj_out_1.",
        "final_layer.linear.": "proj_out_2.",
        "blocks.(#).adaLN_modulation.1.": r"transformer_blocks.\1.norm1.linear.",
        "blocks.(#).attn.proj.": r"transformer_blocks.\1.attn1.to_out.0.",
        "blocks.(#).mlp.fc1.": r"transformer_blocks.\1.ff.net.0.proj.",
        "blocks.(#).mlp.fc2.": r"transformer_blocks.\1.ff.net.2.",
    }
    embedders = {
        "t_embedder.mlp.0.": "timestep_embedder.linear_1.",
        "t_embedder.mlp.2.": "timestep_embedder.linear_2.",
        "y_embedder.": "class_embedder.",
    }
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        for ours, theirs in names.items():
            pattern = "^" + ours.replace(".", r"\.").replace("#", r"\d+")
            if re.match(pattern, key):
                renamed[re.sub(pattern, theirs, key)] = value
        for ours, theirs in embedders.items():
            if key.startswith(ours):
                for i in range(depth):
                    renamed[key.replace(ours, f"transformer_blocks.{i}.norm1.emb.{theirs}")] = value
        if match := re.match(r"blocks\.(\d+)\.attn\.qkv\.(.*)", key):
            for which, part in zip("qkv", value.chunk(3)):
                renamed[f"transformer_blocks.{match[1]}.attn1.to_{which}.{match[2]}"] = part
    return renamed


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch):
    """Networks are born in float64, tables of sines included."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


CASES = {
    "patch 2": {},
    "patch 4": {"patch": 4, "learn_sigma": True},
    "patch 8": {"patch": 8, "shape": (3, 16, 16)},
    "one token": {"patch": 8, "heads": 1, "num_classes": 1},
    "deep": {"width": 24, "depth": 6, "heads": 2, "learn_sigma": True, "shape": (2, 6, 6)},
    "odd patch": {"patch": 3, "shape": (1, 9, 9), "width": 20, "heads": 5},
    "S/2, two blocks": {"width": None, "heads": None, "model": "S/2", "depth": 2},
    "B/4, one block": {"width": None, "heads": None, "patch": None, "model": "B/4", "depth": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_velocity_and_gradients_are_those_of_diffusers(case: str, float64) -> None:
    net = randomised(tiny(**CASES[case]))
    theirs = diffusers_dit(net)
    x, t, y = inputs(net, dtype=torch.float64)
    channels = net.shape[0]
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    velocity, expected = net(x1, t, y), theirs(x2, t, y).sample[:, :channels]
    assert 0.1 < expected.std() < 10
    torch.testing.assert_close(velocity, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(velocity.shape)
    (velocity * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x1.grad, x2.grad, rtol=1e-11, atol=1e-12)
    # Gradients by SiT's names: of q, k, v joined, of the embedders summed over the blocks that hold a copy.
    found = {key: torch.zeros_like(value) for key, value in theirs.state_dict().items()}
    found |= {key: parameter.grad for key, parameter in theirs.named_parameters() if parameter.grad is not None}
    ours = {key: p.grad if p.grad is not None else torch.zeros_like(p) for key, p in net.named_parameters()}
    summed = {key: value for key, value in diffusers_names(ours).items() if ".emb." not in key}
    for key, value in summed.items():
        torch.testing.assert_close(value, found[key], rtol=1e-10, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")
    for part in ("mlp.0.weight", "mlp.2.bias"):
        copies = [value for key, value in found.items() if f"emb.timestep_embedder.linear_{int(part[4]) // 2 + 1}." in key
                  and key.endswith(part[6:])]  # fmt: skip
        torch.testing.assert_close(ours[f"t_embedder.{part}"], sum(copies), rtol=1e-10, atol=1e-12)
    copies = [value for key, value in found.items() if "emb.class_embedder" in key]
    torch.testing.assert_close(ours["y_embedder.embedding_table.weight"], sum(copies), rtol=1e-10, atol=1e-12)


def test_the_comparison_sees_time_class_position_and_every_block(float64) -> None:
    """Guards the test above: what it compares depends on all of these."""
    net = randomised(tiny(depth=3))
    x, t, y = inputs(net, dtype=torch.float64)
    right = net(x, t, y)
    assert (net(x, t.flip(0), y) - right).abs().max() > 1e-2
    assert (net(x, t, y.flip(0)) - right).abs().max() > 1e-2
    assert (net(x.flip(-1), t, y).flip(-1) - right).abs().max() > 1e-2
    assert (net(x.transpose(-1, -2), t, y).transpose(-1, -2) - right).abs().max() > 1e-2
    for block in net.blocks:
        for heads in (1, net.blocks[0].attn.heads):
            block.attn.heads, kept = heads, block.attn.heads
            changed = (net(x, t, y) - right).abs().max()
            block.attn.heads = kept
            assert (changed > 1e-3) == (heads == 1)


# Sizes

PUBLISHED = {"S/2": 33, "B/2": 130, "L/2": 458, "XL/2": 675}  # millions


@pytest.mark.parametrize("model", MODELS)
def test_published_numbers_of_parameters(model: str) -> None:
    with torch.device("meta"):
        net = SiT(model=model, learn_sigma=True)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    assert millions == pytest.approx(
        PUBLISHED.get(model, PUBLISHED[model[:-1] + "2"]), abs=1
    )  # the patch hardly matters
    assert not list(net.buffers()), "all that a file needs to hold is a parameter"


def test_the_public_checkpoint_has_exactly_these_numbers_and_names() -> None:
    with torch.device("meta"):
        net, without = SiT(learn_sigma=True), SiT()
    assert sum(p.numel() for p in net.parameters()) == 675_129_632
    assert sum(p.numel() for p in without.parameters()) == 675_111_184
    shapes = {key: list(value.shape) for key, value in net.state_dict().items()}
    d = 1152
    expected = {
        "pos_embed": [1, 256, d],
        "x_embedder.proj.weight": [d, 4, 2, 2],
        "t_embedder.mlp.0.weight": [d, 256],
        "t_embedder.mlp.2.weight": [d, d],
        "y_embedder.embedding_table.weight": [1001, d],
        "blocks.27.attn.qkv.weight": [3 * d, d],
        "blocks.27.attn.proj.weight": [d, d],
        "blocks.27.mlp.fc1.weight": [4 * d, d],
        "blocks.27.mlp.fc2.weight": [d, 4 * d],
        "blocks.27.adaLN_modulation.1.weight": [6 * d, d],
        "final_layer.linear.weight": [32, d],
        "final_layer.adaLN_modulation.1.weight": [2 * d, d],
    }
    assert {key: shapes[key] for key in expected} == expected
    assert len(shapes) == 2 + 4 + 1 + 1 + 28 * 10 + 4
    assert not net.pos_embed.requires_grad


# What it must do as a network of this package


def test_an_untrained_network_is_the_velocity_zero_and_learns() -> None:
    torch.manual_seed(0)
    net = tiny(learn_sigma=True)
    x, t, y = inputs(net)
    assert (net(x, t, y) == 0).all()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-3)
    for _ in range(12):
        loss = (net(x, t, y) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.9 * x.square().mean()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.requires_grad)


def test_published_initialisation() -> None:
    torch.manual_seed(0)
    net = tiny(width=192, num_classes=100).requires_grad_(False)
    qkv = net.blocks[0].attn.qkv.weight
    assert qkv.abs().max() <= (6 / (192 + 3 * 192)) ** 0.5
    assert qkv.std() == pytest.approx((2 / (4 * 192)) ** 0.5, rel=0.03)
    assert net.x_embedder.proj.weight.std() == pytest.approx((2 / (192 + 16)) ** 0.5, rel=0.03)
    assert net.y_embedder.embedding_table.weight.std() == pytest.approx(0.02, rel=0.03)
    assert net.t_embedder.mlp[0].weight.std() == pytest.approx(0.02, rel=0.03)
    assert all((p == 0).all() for name, p in net.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("changes", [{}, {"num_classes": 0}, {"shape": (3, 4, 12)}, {"learn_sigma": True}])
@pytest.mark.parametrize("batch", [1, 7])
@torch.no_grad()
def test_output_is_like_the_input_and_samples_do_not_see_each_other(changes: dict, batch: int) -> None:
    net = randomised(tiny(**changes))
    x, t, y = inputs(net, batch)
    velocity = net(x, t, y)
    assert velocity.shape == x.shape
    torch.testing.assert_close(net(x[-1:], t[-1:], y[-1:]), velocity[-1:], rtol=1e-4, atol=1e-5)
    assert net(x[:0], t[:0], y[:0]).shape == (0, *net.shape)


@pytest.mark.parametrize("num_classes", [0, 5])
@torch.no_grad()
def test_one_time_for_all_is_embedded_once(num_classes: int) -> None:
    net = randomised(tiny(num_classes=num_classes))
    seen: list[int] = []
    net.t_embedder.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    x, _, y = inputs(net, 4)
    one = torch.full((1,), 0.37)
    torch.testing.assert_close(net(x, one.expand(4), y), net(x, one.repeat(4), y))
    torch.testing.assert_close(net(x, torch.tensor(0.37), y), net(x, one.repeat(4), y))
    assert seen == [1, 4, 1, 4]
    integrate(net, x, Schedule(KTS(), steps=3), labels=y)
    assert seen[4:] == [1, 1, 1]


@torch.no_grad()
def test_guidance_asks_for_the_null_label() -> None:
    net = randomised(tiny())
    x, t, y = inputs(net)
    null, conditional = net(x, t, torch.full_like(y, net.null_label)), net(x, t, y)
    torch.testing.assert_close(Guided(net, 1.5)(x, t, y), null + 1.5 * (conditional - null), rtol=1e-4, atol=1e-4)
    assert net.null_label == net.num_classes == 5
    assert tiny(num_classes=0).null_label is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_uses_the_fused_kernel(dtype: torch.dtype) -> None:
    net = randomised(tiny()).to(dtype)
    x, t, y = inputs(net)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where it cannot be used
        net(x.to(dtype), t, y).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)


@torch.no_grad()
def test_bfloat16_as_weights_and_as_autocast() -> None:
    net = randomised(tiny())
    x, t, y = inputs(net)
    exact = net(x, t, y)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(x, t, y)
    true = net.bfloat16()(x, t, y)
    for rounded in (mixed, true):
        assert rounded.dtype == torch.float32, "like the sample that was given"
        assert 0 < (rounded - exact).norm() / exact.norm() < 0.03
    assert net(x.bfloat16(), t, y).dtype == torch.bfloat16


def test_tokens_are_not_copied_around_the_attention() -> None:
    """Forward nothing but the biases of two products is copied; backward q, k and v are joined once."""
    attention, tokens = tiny(depth=1).blocks[0].attn, torch.randn(2, 16, 48, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as forward:
        out = attention(tokens)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as backward:
        out.backward(torch.ones_like(out))
    made = [{event.key.removeprefix("aten::"): event.count for event in r.key_averages()} for r in (forward, backward)]
    for copying in ("clone", "contiguous", "stack"):
        assert all(copying not in counts for counts in made)
    assert [counts.get("copy_", 0) for counts in made] == [2, 0]
    assert [counts.get("cat", 0) for counts in made] == [0, 1]


def test_checkpointing_changes_no_gradient_and_keeps_less() -> None:
    gradients, kept = [], []
    for checkpoint in (False, True):
        net = randomised(tiny(checkpoint=checkpoint, depth=4))
        x, t, y = inputs(net)
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = net(x, t, y).square().sum()
        loss.backward()
        gradients.append([p.grad for p in net.parameters() if p.requires_grad])
        kept.append(total)
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain, rtol=0, atol=0)
    assert kept[1] < kept[0] / 3


@pytest.mark.slow
@torch.no_grad()
def test_compiled_whole_and_equal() -> None:
    net = randomised(tiny())
    x, t, y = inputs(net)
    expected = net(x, t, y), net(x, t[1:2].expand(3), y)
    net.compile(fullgraph=True)  # a break in the graph would raise
    torch.testing.assert_close(net(x, t, y), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(x, t[1:2].expand(3), y), expected[1], rtol=1e-4, atol=1e-5)


# Refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "XXL/2"}, r"model='XXL/2' is unknown. Choose among S/2, .*XL/8"),
        ({"patch": 3}, r"shape=\[4, 8, 8\] must be .*whole patches of 3"),
        ({"shape": (4, 8)}, r"shape=\[4, 8\] must be"),
        ({"shape": (4, 1, 8)}, r"whole patches"),
        ({"heads": 5}, r"width=48 .*heads=5"),
        ({"width": 6}, r"width=6 must be a multiple of 4 and of heads=3"),
        ({"depth": 0}, r"\[48, 0, 3, 2\] and must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**changes)


def test_samples_and_labels_that_do_not_fit_are_refused() -> None:
    net = tiny()
    x, t, y = inputs(net)
    with pytest.raises(UserError, match=r"SiT takes samples of shape \[4, 8, 8\], not \[4, 6, 8\]"):
        net(x[:, :, :6], t, y)
    with pytest.raises(UserError, match="labels"):
        net(x, t)
    with pytest.raises(UserError, match=r"labels 0 \.\.\. 5 .*, not 0 \.\.\. 6"):
        net(x, t, torch.tensor([0, 6, 1]))
    with pytest.raises(UserError, match=r"not -1"):
        net(x, t, torch.tensor([0, -1, 1]))
    with pytest.raises(UserError, match=r"shape \[4, 8, 8\], not"):
        net.check_shape((3, 8, 8))
