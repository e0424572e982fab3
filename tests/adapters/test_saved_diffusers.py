"""Models of every class, saved and loaded as their users do, with every scheduler that goes with them."""

from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from fm_lightning import KTS, compare_schedules  # noqa: E402
from fm_lightning.adapters import FromDiffusers, FromNoise  # noqa: E402
from fm_lightning.errors import UserError  # noqa: E402
from fm_lightning.flow import Guidance, Schedule, integrate  # noqa: E402

SMALL = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}
CROSS = {
    "cross_attention_dim": 6,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
MODELS = {
    "UNet2DModel": {
        "in_channels": 4,
        "out_channels": 4,
        "add_attention": False,
        "down_block_types": ("DownBlock2D",) * 2,
        "up_block_types": ("UpBlock2D",) * 2,
        **SMALL,
    },
    "UNet2DConditionModel": {"in_channels": 4, "out_channels": 4, **CROSS, **SMALL},
    "DiTTransformer2DModel": {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,  # the second half is a learned variance
        "num_layers": 1,
        "sample_size": 8,
        "num_embeds_ada_norm": 3,
        "norm_num_groups": 4,
    },
    "SD3Transformer2DModel": {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 1,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 6,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 5,
        "pos_embed_max_size": 8,
    },
    "FluxTransformer2DModel": {
        "patch_size": 1,
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 6,
        "pooled_projection_dim": 5,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 4, 8),
    },
}
SCHEDULERS = {
    "DDPMScheduler": {},
    "DDIMScheduler": {"clip_sample": False, "prediction_type": "v_prediction"},
    "EulerDiscreteScheduler": {"use_karras_sigmas": True},
    "EDMEulerScheduler": {},
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
}
FLOW = "FlowMatchEulerDiscreteScheduler"
PAIRS = [
    *[("UNet2DModel", name) for name in SCHEDULERS],
    *[("UNet2DConditionModel", name) for name in SCHEDULERS],
    *[("DiTTransformer2DModel", name) for name in ("DDPMScheduler", "DDIMScheduler", FLOW)],
    ("SD3Transformer2DModel", FLOW),
    ("FluxTransformer2DModel", FLOW),
]
CLASSES = 3


def build(name, **options):
    torch.manual_seed(0)
    return getattr(diffusers, name)(**{**MODELS[name], **options}).eval()


def conditioned(name):
    """What FromDiffusers needs for three classes and, where there is one, a null entry."""
    generator = torch.Generator().manual_seed(1)
    texts = torch.randn(CLASSES + 1, 2, 6, generator=generator)
    pooled = torch.randn(CLASSES + 1, 5, generator=generator)
    tables = {"encoder_hidden_states": texts, "pooled_projections": pooled}
    needed = {"UNet2DConditionModel": 1, "SD3Transformer2DModel": 2, "FluxTransformer2DModel": 2}.get(name, 0)
    tables = dict(list(tables.items())[:needed])
    if not tables:
        return {}
    extras = {"guidance": 3.5} if name.startswith("Flux") else {}
    conditions = {key: table[:CLASSES] for key, table in tables.items()}
    return {"conditions": conditions, "null": {key: table[CLASSES] for key, table in tables.items()}, **extras}


def images(n=3):
    return torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("model", "scheduler"), PAIRS)
def test_what_was_saved_is_the_same_velocity(model, scheduler, tmp_path):
    made, how = build(model), getattr(diffusers, scheduler)(**SCHEDULERS[scheduler])
    made.save_pretrained(tmp_path / "model")
    how.save_pretrained(tmp_path / "scheduler")
    assert list((tmp_path / "model").glob("*.safetensors"))
    loaded = getattr(diffusers, model).from_pretrained(tmp_path / "model").eval()
    again = getattr(diffusers, scheduler).from_pretrained(tmp_path / "scheduler")
    fields = [FromDiffusers(*pair, **conditioned(model)) for pair in ((made, how), (loaded, again))]
    labels = torch.arange(3) if fields[0].num_classes else None
    assert fields[0].num_classes == (0 if model == "UNet2DModel" else CLASSES)
    for guidance in (None, Guidance(2.0)) if fields[0].num_classes else (None,):
        schedule = Schedule(steps=2, guidance=guidance)
        one, two = (integrate(field, images(), schedule, labels=labels) for field in fields)
        assert one.x1.isfinite().all()
        assert one.x1.shape == images().shape
        assert torch.equal(one.x1, two.x1)
        assert one.times[0] == fields[0].trained_on[0]
        assert one.nfe == (2 if guidance is None else 4)
    if labels is not None:
        other = integrate(fields[0], images(), Schedule(steps=2), labels=labels.flip(0))
        assert not torch.equal(other.x1[0], one.x1[0]), "labels decide"


@torch.no_grad()
def test_learned_variances_of_a_dit_are_dropped():
    model = build("DiTTransformer2DModel")
    field = FromDiffusers(model, diffusers.DDIMScheduler(clip_sample=False))
    x, t, y = images(), torch.full((3,), 0.5), torch.arange(3)
    out = model(x / 0.5**0.5, timestep=field.field.step(t[:1].double()).float().expand(3), class_labels=y).sample
    assert out.shape[1] == 8
    torch.testing.assert_close(field(x, t, y), (x - out[:, :4]) / 0.5, rtol=1e-4, atol=1e-4)


def test_stable_diffusion_xl_takes_three_conditions():
    options = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 5 + 6 * 4,
    }
    model = build("UNet2DConditionModel", **options)
    given = conditioned("UNet2DConditionModel")["conditions"]
    with pytest.raises(UserError, match="needs text_embeds, time_ids"):
        FromDiffusers(model, diffusers.EulerDiscreteScheduler(), given)
    given |= {"text_embeds": torch.randn(3, 5), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 3)}
    field = FromDiffusers(model, diffusers.EulerDiscreteScheduler(), given)
    x, y = images(), torch.tensor([2, 0, 1])
    z = x / (0.5**2 + 0.5**2) ** 0.5
    added = {"text_embeds": given["text_embeds"][y], "time_ids": given["time_ids"][y]}
    step = field.field.step(torch.tensor([0.5], dtype=torch.float64)).float()
    with torch.no_grad():
        out = model(z, step, given["encoder_hidden_states"][y], added_cond_kwargs=added).sample
        torch.testing.assert_close(field(x, torch.full((3,), 0.5), y), (x - out) / 0.5, rtol=1e-4, atol=1e-4)


def test_a_whole_comparison_ends_in_a_verdict():
    model = build("UNet2DModel", in_channels=1, out_channels=1)
    field = FromDiffusers(model, diffusers.DDPMScheduler(clip_sample_range=1.0))
    data = torch.randn(90, 1, 8, 8, generator=torch.Generator().manual_seed(3)).clamp(-1, 1)
    kts = Schedule(KTS(0.02, 0.02), steps=4)
    found = compare_schedules(field, {"kts": kts}, train=data[:30], real=data[30:], seeds=60)
    assert found.verdicts["kts"].outcome in (
        "no claim",
        "not lowered",
        "undecided",
        "no better",
        "worse",
        "out of reach",
    )
    assert "from t = 0.00631" in found.results.row("base").label
    assert found.paragraph("kts")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FromDiffusers(build("UNet2DConditionModel"), diffusers.DDIMScheduler()),
            "needs encoder_hidden_states",
        ),
        (
            lambda: FromDiffusers(
                build("UNet2DConditionModel", num_class_embeds=3),
                diffusers.DDIMScheduler(),
                {"encoder_hidden_states": torch.zeros(3, 2, 6)},
            ),
            "needs class_labels",
        ),
        (
            lambda: FromDiffusers(
                build("UNet2DConditionModel"), diffusers.DDIMScheduler(), {"encoder_hidden_states": torch.zeros(3, 6)}
            ),
            r"takes encoder_hidden_states of shape \[classes, tokens, 6\], not \[3, 6\]",
        ),
        (
            lambda: FromDiffusers(
                build("UNet2DConditionModel"),
                diffusers.DDIMScheduler(),
                {"encoder_hidden_states": torch.zeros(3, 2, 7)},
            ),
            r"not \[3, 2, 7\]",
        ),
        (
            lambda: FromDiffusers(
                build("UNet2DConditionModel"),
                diffusers.DDIMScheduler(),
                {"encoder_hidden_states": [torch.zeros(2, 6), torch.zeros(3, 6)]},
            ),
            "not tensors of one shape",
        ),
        (
            lambda: FromDiffusers(
                build("UNet2DConditionModel"),
                diffusers.DDIMScheduler(),
                {"encoder_hidden_states": torch.zeros(3, 2, 6)},
                {"encoder_hidden_states": torch.zeros(1, 2, 6)},
            ),
            r"null has encoder_hidden_states of shape \[1, 2, 6\]",
        ),
        (
            lambda: FromDiffusers(build("UNet2DModel"), diffusers.DDIMScheduler(), {"encoder_hidden_states": [0]}),
            "does not take encoder_hidden_states",
        ),
        (lambda: FromDiffusers(build("UNet2DModel"), diffusers.DDIMScheduler(), prompt=1), "does not take prompt"),
        (
            lambda: FromDiffusers(
                build("FluxTransformer2DModel"),
                diffusers.FlowMatchEulerDiscreteScheduler(),
                conditioned("FluxTransformer2DModel")["conditions"],
            ),
            "is told a guidance scale",
        ),
        (
            lambda: FromDiffusers(
                build("FluxTransformer2DModel", guidance_embeds=False),
                diffusers.FlowMatchEulerDiscreteScheduler(),
                **conditioned("FluxTransformer2DModel"),
            ),
            "does not take guidance",
        ),
        (
            lambda: FromDiffusers(
                build("UNet2DModel"), diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
            ),
            "stochastic_sampling=True",
        ),
        (lambda: FromDiffusers(build("UNet2DModel"), torch.nn.Linear(2, 2)), "does not know Linear"),
        (lambda: FromDiffusers(build("UNet2DModel"), diffusers.LCMScheduler()), "does not know LCMScheduler"),
        (lambda: FromDiffusers(build("UNet2DModel"), diffusers.EulerAncestralDiscreteScheduler()), "not know EulerAnc"),
        (
            lambda: FromDiffusers(build("UNet2DModel"), diffusers.DDPMScheduler(trained_betas=[0.01] * 50)),
            "1,000 training steps and alphas_cumprod of 50",
        ),
        (
            lambda: FromDiffusers(
                build("UNet2DModel", num_train_timesteps=500), diffusers.DDPMScheduler(num_train_timesteps=1000)
            ),
            "UNet2DModel was trained on 500 steps, and alphas_cumprod has 1,000",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_before_sampling(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_samples_of_another_space_are_refused():
    field = FromDiffusers(build("UNet2DModel"), diffusers.DDPMScheduler())
    with pytest.raises(UserError, match=r"takes samples of 4 channels, not of shape \[1, 8, 8\]"):
        integrate(field, images()[:, :1], Schedule(steps=1))


def test_a_table_of_other_steps_is_named():
    table = torch.nn.Embedding(100, 4)
    squares = diffusers.DDPMScheduler(num_train_timesteps=150).alphas_cumprod

    def network(z, step):
        return z + table(step).sum()

    field = FromNoise(network, squares, integer_steps=True)
    with pytest.raises(UserError, match="network does not take step 149 of 150"):
        integrate(field, torch.randn(2, 3), Schedule(steps=2))


def test_a_pipeline_is_not_a_model():
    pipe = diffusers.DDIMPipeline(build("UNet2DModel"), diffusers.DDIMScheduler())
    with pytest.raises(UserError, match=r"does not know DDIMPipeline\. Pass its unet\."):
        FromDiffusers(pipe, pipe.scheduler)
