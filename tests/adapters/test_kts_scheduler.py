"""A gain in diffusers' flow-matching scheduler: the parent without it, our Euler steps with it, whole pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from fm_lightning.adapters import KTSFlowMatchEulerScheduler  # noqa: E402
from fm_lightning.errors import UserError  # noqa: E402
from fm_lightning.flow import KTS, SSC, Brake, Constant, Schedule, integrate  # noqa: E402

MODES = {
    "plain": ({}, {}),
    "shift": ({"shift": 3.0}, {}),
    "dynamic": ({"use_dynamic_shifting": True}, {"mu": 0.8}),
    "karras": ({"use_karras_sigmas": True}, {}),
    "beta": ({"use_beta_sigmas": True}, {}),
    "exponential": ({"use_exponential_sigmas": True}, {}),
    "terminal": ({"shift_terminal": 0.1}, {}),
    "inverted": ({"invert_sigmas": True}, {}),
    "stochastic": ({"stochastic_sampling": True}, {}),
}


def output(x, t):
    """Noise minus data, as the models predict it."""
    return torch.cos(x + t / 500)


def sampled(scheduler, x, steps=6, **options):
    scheduler.set_timesteps(steps, **options)
    generator = torch.Generator().manual_seed(3)
    for t in scheduler.timesteps:
        x = scheduler.step(output(x, t), t, x, generator=generator, return_dict=False)[0]
    return x


def noise(dtype=torch.float32):
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_without_a_gain_it_is_the_parent_bit_for_bit(mode, dtype):
    config, options = MODES[mode]
    theirs = sampled(diffusers.FlowMatchEulerDiscreteScheduler(**config), noise(dtype), **options)
    gains = (None,) if mode in ("inverted", "stochastic") else (None, Constant(1.0))
    for gain in gains:
        ours = KTSFlowMatchEulerScheduler(**config, gain=gain)
        assert torch.equal(sampled(ours, noise(dtype), **options), theirs)
        assert ours.kpe.shape == (3,)


@pytest.mark.parametrize("gain", [KTS(0.1, 0.02), SSC(0.2, 1.0) * Constant(0.97), Brake(0.5)])
def test_it_takes_our_euler_steps_and_reports_their_energy(gain):
    scheduler = KTSFlowMatchEulerScheduler(shift=3.0, gain=gain)
    for steps in (6, 9):  # energies of the last images alone
        end = sampled(scheduler, noise(), steps)
    path = integrate(
        lambda x, t, y=None: -output(x, 1000 * (1 - t[0])),
        noise().double(),
        Schedule(gain, grid=(1 - scheduler.sigmas.double()).tolist()),
    )
    torch.testing.assert_close(end.double(), path.x1, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scheduler.kpe.double(), path.kpe, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gain", [None, KTS(0.1, 0.02, launch="constant"), SSC(0.2, 1.0) * Constant(0.97)])
def test_it_is_saved_and_loaded(gain, tmp_path):
    parent = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)
    scheduler = KTSFlowMatchEulerScheduler.from_config(parent.config, gain=gain)
    scheduler.save_pretrained(tmp_path)
    loaded = KTSFlowMatchEulerScheduler.from_pretrained(tmp_path)
    assert loaded.gain == gain
    assert loaded.config.shift == 2.0
    assert torch.equal(sampled(loaded, noise()), sampled(scheduler, noise()))
    again = KTSFlowMatchEulerScheduler.from_config(loaded.config)
    assert again.gain == gain
    assert KTSFlowMatchEulerScheduler.from_config(loaded.config, gain=Constant(0.9)).gain == Constant(0.9)


def test_what_is_refused():
    for option in ("stochastic_sampling", "invert_sigmas"):
        with pytest.raises(UserError, match=f"no meaning with {option}=True"):
            KTSFlowMatchEulerScheduler(**{option: True}, gain=KTS())
    scheduler = KTSFlowMatchEulerScheduler(gain=KTS(0.0, 0.2))
    with pytest.raises(UserError, match=r"is not above 0 .* Use beta at most"):
        scheduler.set_timesteps(50)
    scheduler = KTSFlowMatchEulerScheduler(gain=KTS())
    scheduler.set_timesteps(5)
    with pytest.raises(UserError, match="times per token"):
        scheduler.step(noise(), scheduler.timesteps[0], noise(), per_token_timesteps=torch.ones(3, 4))
    for path in ("os.system", "fm_lightning.flow.integrate.torch", "fm_lightning.flow.Schedule", "KTS"):
        with pytest.raises(UserError, match="is no gain of"):
            KTSFlowMatchEulerScheduler(gain={"class_path": path, "init_args": {}})
    with pytest.raises(UserError, match="is no gain of"):
        KTSFlowMatchEulerScheduler(gain=lambda t: t)


def tiny_sd3():
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=6, caption_projection_dim=16, pooled_projection_dim=5,
        pos_embed_max_size=8,
    )  # fmt: skip
    names = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    return diffusers.StableDiffusion3Pipeline(
        transformer, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), autoencoder(4), **dict.fromkeys(names)
    )


def tiny_flux():
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=6, pooled_projection_dim=5, guidance_embeds=False, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    names = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    return diffusers.FluxPipeline(scheduler, autoencoder(4), transformer=transformer, **dict.fromkeys(names))


def autoencoder(channels):
    return diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=channels, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), shift_factor=0.0,
        use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


@pytest.mark.parametrize("make", [tiny_sd3, tiny_flux])
def test_whole_pipelines(make, tmp_path):
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    call = {
        "prompt_embeds": torch.randn(2, 3, 6, generator=generator),
        "pooled_prompt_embeds": torch.randn(2, 5, generator=generator),
        "height": 8, "width": 8, "num_inference_steps": 4, "output_type": "np", "guidance_scale": 1.0,
    }  # fmt: skip

    def images(pipe):
        return pipe(**call, generator=torch.Generator().manual_seed(0)).images

    theirs, config = images(pipe), pipe.scheduler.config
    pipe.scheduler = KTSFlowMatchEulerScheduler.from_config(config, gain=None)
    assert np.array_equal(images(pipe), theirs)
    plain = pipe.scheduler.kpe
    pipe.scheduler = KTSFlowMatchEulerScheduler.from_config(config, gain=Constant(0.5))
    shaped = images(pipe)
    assert not np.array_equal(shaped, theirs)
    assert plain.shape == pipe.scheduler.kpe.shape == (2,)
    assert (pipe.scheduler.kpe < plain).all()
    pipe.save_pretrained(tmp_path)
    parts = {name: None for name, part in pipe.components.items() if part is None}
    loaded = type(pipe).from_pretrained(tmp_path, **parts)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.scheduler.gain == Constant(0.5)
    assert np.array_equal(images(loaded), shaped)


@pytest.mark.parametrize("gain", ["KTS", 2.0, {"class_path": "fm_lightning.flow.KTS", "init_args": {"alfa": 1}}])
def test_what_is_no_gain(gain):
    with pytest.raises(UserError, match=r"is no gain|KTS cannot be built: it got an unexpected"):
        KTSFlowMatchEulerScheduler(gain=gain)
