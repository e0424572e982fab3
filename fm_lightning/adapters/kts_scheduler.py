"""A gain in diffusers' pipelines: the flow-matching Euler scheduler with shaped steps."""

from __future__ import annotations

import importlib
from typing import Any, Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
    FlowMatchEulerDiscreteSchedulerOutput,
)
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # where pipelines look for it when they are loaded
from torch import Tensor

from fm_lightning.errors import UserError

__all__ = ["KTSFlowMatchEulerScheduler", "SchedulerMixin"]


class KTSFlowMatchEulerScheduler(FlowMatchEulerDiscreteScheduler):
    """``FlowMatchEulerDiscreteScheduler`` whose steps are multiplied by a gain, ``eta(1 - sigma)``.

        pipe.scheduler = KTSFlowMatchEulerScheduler.from_config(pipe.scheduler.config, gain=KTS(0.01, 0.01))

    Args:
        gain: a gain of ``fm_lightning.flow``, or ``{"class_path": ..., "init_args": {...}}``, as the configuration keeps it;
            None samples as the parent does.
        **: the parent's.

    Attributes:
        kpe: ``[B]`` float32 kinetic path energy of the samples since ``set_timesteps``, of the velocity that was executed.

    Raises:
        UserError: a gain with stochastic sampling, inverted sigmas or times per token; a gain that is not positive at a step.
    """

    kpe: Tensor | None

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        base_shift: float | None = 0.5,
        max_shift: float | None = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        invert_sigmas: bool = False,
        shift_terminal: float | None = None,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        time_shift_type: Literal["exponential", "linear"] = "exponential",
        stochastic_sampling: bool = False,
        gain: Any = None,
    ) -> None:
        super().__init__(
            num_train_timesteps,
            shift,
            use_dynamic_shifting,
            base_shift,
            max_shift,
            base_image_seq_len,
            max_image_seq_len,
            invert_sigmas,
            shift_terminal,
            use_karras_sigmas,
            use_exponential_sigmas,
            use_beta_sigmas,
            time_shift_type,
            stochastic_sampling,
        )
        self.gain = _built(gain)
        if self.gain is not None and "Gain" not in (base.__name__ for base in type(self.gain).__mro__):
            raise UserError(
                f"{self.gain!r} is no gain of fm_lightning.flow.", "Use for example gain=KTS(alpha=0.01, beta=0.01)."
            )
        self.register_to_config(gain=_described(self.gain))
        self.kpe = None
        if self.gain is not None and (stochastic_sampling or invert_sigmas):
            name = "stochastic_sampling" if stochastic_sampling else "invert_sigmas"
            raise UserError(f"A gain has no meaning with {name}=True.", "Leave one of the two out.")

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
        timesteps: list[float] | None = None,
    ) -> None:
        """As the parent's; forgets the energies of earlier samples."""
        super().set_timesteps(num_inference_steps, device, sigmas, mu, timesteps)  # type: ignore[arg-type]
        self.kpe = None
        if self.gain is not None:
            times = 1 - self.sigmas[:-1].double().cpu()
            eta = self.gain(times)
            if not (eta > 0).all():
                worst = int(eta.argmin())
                raise UserError(
                    f"{self.gain} is not above 0 but {float(eta[worst]):.3g} at t = {float(times[worst]):.4g}.",
                    f"Use {self.gain.remedy(times) or 'a weaker gain'}.",
                )

    def step(
        self,
        model_output: Any,  # the parent's types name legacy tensor classes
        timestep: Any,
        sample: Any,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = float("inf"),
        s_noise: float = 1.0,
        generator: torch.Generator | None = None,
        per_token_timesteps: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """As the parent's, with the model's output multiplied by the gain."""
        if per_token_timesteps is not None:
            if self.gain is not None:
                raise UserError("A gain has no meaning with times per token.", "Leave one of the two out.")
        else:
            if self.step_index is None:
                self._init_step_index(timestep)
            index = self.step_index
            sigma, following = (float(self.sigmas[i]) for i in (index, index + 1))
            if index == (self.begin_index or 0):
                self.kpe = None
            eta = 1.0 if self.gain is None else float(self.gain(torch.tensor([1 - sigma], dtype=torch.float64)))
            dtype = model_output.dtype
            executed = model_output.float() * eta
            spent = abs(following - sigma) / 2 * executed.flatten(1).square().sum(1)
            self.kpe = spent if self.kpe is None else self.kpe + spent
            if eta != 1:  # in float32 until the end, as the parent steps
                moved = super().step(executed, timestep, sample, generator=generator, return_dict=False)[0].to(dtype)
                return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=moved) if return_dict else (moved,)
        return super().step(
            model_output,
            timestep,
            sample,
            s_churn,
            s_tmin,
            s_tmax,
            s_noise,
            generator,
            per_token_timesteps,
            return_dict,
        )


def _built(gain: Any) -> Any:
    """A gain from its description in a configuration; only classes of ``fm_lightning.flow`` are built."""
    if not isinstance(gain, dict):
        return gain
    module, _, name = str(gain.get("class_path")).rpartition(".")
    ours = f"{module}.".startswith("fm_lightning.flow.")
    kind = getattr(importlib.import_module(module), name, None) if ours else None
    if not isinstance(kind, type) or "Gain" not in (base.__name__ for base in kind.__mro__):
        raise UserError(f"{gain.get('class_path')} is no gain of fm_lightning.flow.", "Pass a gain instead.")
    arguments = {
        key: tuple(map(_built, value)) if isinstance(value, list) else _built(value)
        for key, value in (gain.get("init_args") or {}).items()
    }
    try:
        return kind(**arguments)
    except TypeError as error:
        what = str(error).partition("() ")[2] or str(error)
        raise UserError(f"{name} cannot be built: it {what}.", "Correct init_args.") from error


def _described(gain: Any) -> Any:
    """A gain as plain JSON: ``{"class_path": ..., "init_args": ...}``."""
    if isinstance(gain, tuple):
        return [_described(part) for part in gain]
    if gain is None or isinstance(gain, int | float | str):
        return gain
    if not type(gain).__module__.startswith("fm_lightning.flow"):
        raise UserError(
            f"{gain!r} is no gain of fm_lightning.flow.", "Use for example gain=KTS(alpha=0.01, beta=0.01)."
        )
    arguments = {key: _described(value) for key, value in vars(gain).items()}
    return {"class_path": f"{type(gain).__module__}.{type(gain).__qualname__}", "init_args": arguments}
