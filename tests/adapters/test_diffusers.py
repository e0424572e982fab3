"""diffusers' models as velocities, step for step what its schedulers make of them."""

from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from fm_lightning.adapters import FromDiffusers  # noqa: E402
from fm_lightning.errors import UserError  # noqa: E402
from fm_lightning.flow import Guidance, Schedule, integrate  # noqa: E402

BLOCKS = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}


def unet(**options):
    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False}
    return diffusers.UNet2DModel(in_channels=1, out_channels=1, **BLOCKS, **kinds, **options).double().eval()


def images(n=2, channels=1, dtype=torch.float64):
    return torch.randn(n, channels, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def sampled(model, scheduler, x, steps):
    """diffusers' own loop."""
    scheduler.set_timesteps(steps)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
    return x


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [4, 7, 10])
def test_euler_over_ddims_levels_is_ddim(prediction, steps):
    model, x = unet(), images()
    scheduler = diffusers.DDIMScheduler(clip_sample=False, prediction_type=prediction)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    theirs = sampled(model, scheduler, x, steps)
    squares = scheduler.alphas_cumprod[scheduler.timesteps]
    times = 1 / (1 + ((1 - squares) / squares).sqrt())
    start = float((times[0] ** 2 + (1 - times[0]) ** 2).sqrt() / (1 - times[0]))
    schedule = Schedule(grid=[*times.tolist(), 1.0], x0_scale=start)
    ours = integrate(FromDiffusers(model, scheduler), x, schedule)
    torch.testing.assert_close(ours.x1, theirs, rtol=1e-10, atol=1e-10)
    assert schedule.t_start >= FromDiffusers(model, scheduler).trained_on[0] - 1e-12


@pytest.mark.parametrize("steps", [5, 8])
@pytest.mark.parametrize("kind", ["linear", "karras", "edm", "edm v"])
def test_euler_over_sigmas_is_diffusers_euler(kind, steps):
    model, x = unet(), images()
    if kind.startswith("edm"):
        scheduler = diffusers.EDMEulerScheduler(prediction_type="v_prediction" if kind == "edm v" else "epsilon")
    else:
        scheduler = diffusers.EulerDiscreteScheduler(use_karras_sigmas=kind == "karras")
    theirs = sampled(model, scheduler, x, steps)
    times = 1 / (1 + scheduler.sigmas.double())
    start = float(times[0] * scheduler.init_noise_sigma / (1 - times[0]))
    ours = integrate(FromDiffusers(model, scheduler), x, Schedule(grid=times, x0_scale=start))
    assert (ours.x1 - theirs).abs().max() < 1e-6 * theirs.abs().max(), "its tables are float32"


def test_clipping_is_the_schedulers():
    model, x, t = unet(), images(), torch.full((2,), 0.2, dtype=torch.float64)
    fields = [
        FromDiffusers(model, diffusers.DDPMScheduler(clip_sample=clip, clip_sample_range=0.3)) for clip in (True, False)
    ]
    with torch.no_grad():
        assert not torch.allclose(fields[0](x, t), fields[1](x, t))
    assert (fields[0].field.clip, fields[1].field.clip) == (0.3, None)


def test_flow_matching_runs_from_data_to_noise():
    model, x, t = unet(), images(), torch.tensor([0.0, 0.7], dtype=torch.float64)
    field = FromDiffusers(model, diffusers.FlowMatchEulerDiscreteScheduler())
    with torch.no_grad():
        torch.testing.assert_close(field(x, t), -model(x, 1000 * (1 - t)).sample)
    assert field.trained_on == (0.0, 1.0)


def test_a_saved_model_gives_the_same(tmp_path):
    model, x = unet(), images()
    model.save_pretrained(tmp_path / "m")
    diffusers.DDIMScheduler().save_pretrained(tmp_path / "s")
    loaded = diffusers.UNet2DModel.from_pretrained(tmp_path / "m").double().eval()
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / "s")
    first = FromDiffusers(model, diffusers.DDIMScheduler())
    schedule = Schedule(steps=3, t_start=first.trained_on[0])
    same = integrate(FromDiffusers(loaded, scheduler), x, schedule)
    assert torch.equal(integrate(first, x, schedule).x1, same.x1)


def test_class_labels_of_the_model():
    dit = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        num_embeds_ada_norm=5, norm_num_groups=4,
    ).eval()  # fmt: skip
    field = FromDiffusers(dit, diffusers.DDIMScheduler(clip_sample=False))
    assert (field.num_classes, field.null_label) == (5, 5)
    x, y = images(2, 4, torch.float32), torch.tensor([0, 3])
    schedule = Schedule(steps=3, t_start=field.trained_on[0], guidance=Guidance(2.0))
    assert integrate(field, x, schedule, labels=y).nfe == 6
    own = FromDiffusers(unet(num_class_embeds=4), diffusers.DDIMScheduler(), null=3)
    assert (own.num_classes, own.null_label) == (3, 3)
    with pytest.raises(UserError, match="needs labels"):
        own(images(), torch.zeros(2, dtype=torch.float64))


def test_prompt_embeddings_are_classes():
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        in_channels=1, out_channels=1, cross_attention_dim=6, attention_head_dim=4, **BLOCKS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).double().eval()  # fmt: skip
    prompts = torch.randn(3, 2, 6, dtype=torch.float64)
    field = FromDiffusers(
        model,
        diffusers.DDPMScheduler(clip_sample=False),
        {"encoder_hidden_states": prompts[:2]},
        {"encoder_hidden_states": prompts[2]},
    )
    assert (field.num_classes, field.null_label) == (2, 2)
    x, t, y = images(), torch.full((2,), 0.4, dtype=torch.float64), torch.tensor([1, 2])
    step, h = field.field.step(t), (0.4**2 + 0.6**2) ** 0.5
    with torch.no_grad():
        e = model(x / h, step, encoder_hidden_states=prompts[y]).sample
        torch.testing.assert_close(field(x, t, y), (x - e) / 0.4, rtol=1e-9, atol=1e-9)
    with pytest.raises(UserError, match="UNet2DConditionModel needs encoder_hidden_states"):
        FromDiffusers(model, diffusers.DDPMScheduler())
    with pytest.raises(UserError, match="an entry for each"):
        FromDiffusers(model, diffusers.DDPMScheduler(), {"encoder_hidden_states": prompts}, {"other": prompts[0]})


def sd3():
    torch.manual_seed(0)
    return diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=6, caption_projection_dim=16, pooled_projection_dim=5,
        pos_embed_max_size=8,
    ).eval()  # fmt: skip


def flux():
    torch.manual_seed(0)
    return diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=6, pooled_projection_dim=5, guidance_embeds=True, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip


@torch.no_grad()
def test_sd3_and_flux():
    texts, pooled = torch.randn(2, 3, 6), torch.randn(2, 5)
    conditions = {"encoder_hidden_states": texts, "pooled_projections": pooled}
    x, t, y = images(2, 4, torch.float32), torch.tensor([0.2, 0.9]), torch.tensor([1, 0])
    model, scheduler = sd3(), diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    out = model(x, texts[y], pooled[y], 1000 * (1 - t)).sample
    torch.testing.assert_close(FromDiffusers(model, scheduler, conditions)(x, t, y), -out)
    model = flux()
    pack, pipeline = diffusers.FluxPipeline._pack_latents, diffusers.FluxPipeline
    ids = pipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32)
    out = model(pack(x, 2, 4, 8, 8), texts[y], pooled[y], 1 - t, ids, torch.zeros(3, 3), torch.full((2,), 3.5)).sample
    wanted = -pipeline._unpack_latents(out, 64, 64, 8)
    torch.testing.assert_close(FromDiffusers(model, scheduler, conditions, guidance=3.5)(x, t, y), wanted)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (lambda: diffusers.DDIMScheduler(thresholding=True), "thresholding=True"),
        (lambda: diffusers.DDIMScheduler(rescale_betas_zero_snr=True), "zero terminal SNR"),
        (lambda: diffusers.PNDMScheduler(), "does not know PNDMScheduler"),
        (lambda: diffusers.EulerAncestralDiscreteScheduler(), "does not know EulerAncestral"),
        (
            lambda: diffusers.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"),
            "timestep_type='continuous'",
        ),
    ],
)
def test_schedulers_that_are_refused(scheduler, message):
    with pytest.raises(UserError, match=message):
        FromDiffusers(unet(), scheduler())


def test_models_that_are_refused():
    with pytest.raises(UserError, match="does not know Linear"):
        FromDiffusers(torch.nn.Linear(2, 2), diffusers.DDIMScheduler())
    with pytest.raises(UserError, match="FluxTransformer2DModel needs encoder_hidden_states, pooled_projections"):
        FromDiffusers(flux(), diffusers.FlowMatchEulerDiscreteScheduler())


def test_an_inverted_clock_and_a_null_without_conditions():
    net = unet()
    with pytest.raises(UserError, match="invert_sigmas=True"):
        FromDiffusers(net, diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True))
    with pytest.raises(UserError, match="there are no conditions"):
        FromDiffusers(net, diffusers.DDPMScheduler(), null={"a": 1})
