"""diffusers' models as velocities: the scheduler's configuration says what the model predicts and how it counts time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fm_lightning.adapters.denoisers import FromDenoiser, FromNoise, GaussianVelocity, like, tensor_of
from fm_lightning.errors import UserError
from fm_lightning.nets.velocity import Velocity

# What the pipelines of these models pass; the models are recognised by the name of their class.
NEEDS = {
    "UNet2DConditionModel": ("encoder_hidden_states",),
    "SD3Transformer2DModel": ("encoder_hidden_states", "pooled_projections"),
    "FluxTransformer2DModel": ("encoder_hidden_states", "pooled_projections"),
    "DiTTransformer2DModel": (),
    "UNet2DModel": (),
}


class FromDiffusers(Velocity):
    """The velocity that a diffusers model and its scheduler stand for.

    Args:
        model: a UNet2DModel, UNet2DConditionModel, DiTTransformer2DModel, SD3Transformer2DModel or FluxTransformer2DModel.
        scheduler: a DDPM, DDIM, EulerDiscrete, EDMEuler or FlowMatchEulerDiscrete scheduler; only its configuration is read.
        conditions: keyword of the model -> one entry per class, for example ``{"encoder_hidden_states": [n, tokens, width]}``.
            Label y selects entry y. A model with class labels of its own needs none.
        null: the entry of each keyword (or the model's own label) that means "no class", for guidance.
        **extras: further keywords at every call, such as Flux's ``guidance=3.5``.

    Raises:
        UserError: an unknown model or scheduler, options that have no velocity, missing or unequal conditions.
    """

    def __init__(
        self,
        model: nn.Module,
        scheduler: Any,
        conditions: Mapping[str, Tensor | Sequence[Tensor]] | None = None,
        null: Mapping[str, Tensor] | int | None = None,
        **extras: Any,
    ) -> None:
        super().__init__()
        self.caller = _Caller(model, conditions or {}, null, extras)
        self.num_classes, self.null_label = self.caller.num_classes, self.caller.null_label
        self.field = _field(self.caller, scheduler)
        self.trained_on = self.field.trained_on

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.field(x, t, y)


class _Caller(nn.Module):
    """Calls the model as its pipeline does: ``(z, timestep, y)`` -> its output."""

    def __init__(self, model: nn.Module, conditions: Mapping[str, Any], null: Any, extras: Mapping[str, Any]) -> None:
        super().__init__()
        self.kind = type(model).__name__
        if self.kind not in NEEDS:
            raise UserError(f"FromDiffusers does not know {self.kind}.", f"Choose among {', '.join(NEEDS)}.")
        if missing := [name for name in NEEDS[self.kind] if name not in conditions]:
            raise UserError(f"{self.kind} needs {', '.join(missing)}.", f"Pass conditions={{{missing[0]!r}: ...}}.")
        self.model, self.extras = model, dict(extras)
        self.names = tuple(conditions)
        tables = {name: torch.stack(list(entries)) for name, entries in conditions.items()}
        if len({len(table) for table in tables.values()}) > 1:
            raise UserError("The conditions have different numbers of classes.", "Pass one entry per class for each.")
        if tables:
            self.num_classes = len(next(iter(tables.values())))
            self.null_label = None if null is None else self.num_classes
            if null is not None and (not isinstance(null, Mapping) or null.keys() != tables.keys()):
                raise UserError(
                    "null must have an entry for each of the conditions.", f"Pass {', '.join(tables)} in it."
                )
            for name, table in tables.items():
                whole = table if null is None else torch.cat([table, null[name][None].to(table)])
                self.register_buffer(f"condition_{name}", whole, persistent=False)
        else:
            config = model.config
            own = getattr(config, "num_embeds_ada_norm", None) or getattr(config, "num_class_embeds", None) or 0
            # A DiT has one more label for "no class"; a U-Net's null label is one of its classes, if any.
            self.null_label = own if own and self.kind == "DiTTransformer2DModel" else null
            self.num_classes = own if self.null_label in (None, own) else own - 1

    def forward(self, z: Tensor, timestep: Tensor, y: Tensor | None = None) -> Tensor:
        keywords = dict(self.extras)
        for name in self.names:
            keywords[name] = getattr(self, f"condition_{name}")[y].to(z.dtype)
        if self.num_classes and not self.names:
            keywords["class_labels"] = y
        if self.kind == "FluxTransformer2DModel":
            return self._flux(z, timestep, keywords)
        if self.kind == "SD3Transformer2DModel":
            return tensor_of(self.model(hidden_states=z, timestep=timestep, **keywords), self.model)
        return tensor_of(self.model(z, timestep, **keywords), self.model)

    def _flux(self, z: Tensor, timestep: Tensor, keywords: dict[str, Any]) -> Tensor:
        """Flux takes patches of 2 x 2 as tokens, with their places, and times in [0, 1]."""
        batch, channels, height, width = z.shape
        rows, columns = height // 2, width // 2
        patches = z.unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).permute(0, 2, 4, 1, 3, 5)
        places = torch.zeros(rows, columns, 3, device=z.device, dtype=z.dtype)
        places[..., 1], places[..., 2] = torch.arange(rows)[:, None], torch.arange(columns)
        texts = torch.zeros(keywords["encoder_hidden_states"].shape[1], 3, device=z.device, dtype=z.dtype)
        if "guidance" in keywords:
            keywords["guidance"] = torch.full((batch,), float(keywords["guidance"]), device=z.device, dtype=z.dtype)
        tokens = patches.reshape(batch, rows * columns, channels * 4)
        ids = {"img_ids": places.reshape(-1, 3), "txt_ids": texts}
        out = tensor_of(self.model(hidden_states=tokens, timestep=timestep / 1000, **ids, **keywords), self.model)
        return out.reshape(batch, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(z.shape)


class _FlowMatch(GaussianVelocity):
    """``sigma = 1 - t``, the model predicts noise minus data, told ``1000 sigma``."""

    def __init__(self, net: _Caller, levels: int) -> None:
        super().__init__(net, (0.0, 1.0), net.num_classes, net.null_label)
        self.levels = levels

    def velocity(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        return -self.ask(x, (1 - t) * self.levels, y)


class _Preconditioned(nn.Module):
    """EDM's ``c_skip z + c_out F(c_in z, log(sigma) / 4)``."""

    def __init__(self, net: _Caller, sigma_data: float, sign: int) -> None:
        super().__init__()
        self.net, self.sigma_data, self.sign = net, sigma_data, sign

    def forward(self, z: Tensor, sigma: Tensor, *labels: Tensor) -> Tensor:
        total = (sigma.square() + self.sigma_data**2).sqrt()
        out = tensor_of(self.net(z / like(total, z), sigma.log() / 4, *labels), self.net)
        skip, gain = like((self.sigma_data / total).square(), z), like(sigma * self.sigma_data / total, z)
        return skip * z + self.sign * gain * out


def _field(caller: _Caller, scheduler: Any) -> GaussianVelocity:
    """The parametrisation that a scheduler's configuration describes."""
    kind, config = type(scheduler).__name__, scheduler.config
    classes: dict[str, Any] = {"num_classes": caller.num_classes, "null_label": caller.null_label}
    if "FlowMatchEulerDiscreteScheduler" in (base.__name__ for base in type(scheduler).__mro__):
        return _FlowMatch(caller, config.num_train_timesteps)
    if kind == "EDMEulerScheduler":
        sign = 1 if config.prediction_type == "epsilon" else -1
        return FromDenoiser(
            _Preconditioned(caller, config.sigma_data, sign), config.sigma_min, config.sigma_max, **classes
        )
    if kind not in ("DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"):
        known = "DDPM, DDIM, EulerDiscrete, EDMEuler or FlowMatchEulerDiscrete"
        raise UserError(f"FromDiffusers does not know {kind}.", f"Pass a {known} scheduler.")
    if config.get("thresholding"):
        raise UserError(f"{kind} has thresholding=True, which is no velocity of the sample alone.", "Set it to False.")
    if config.get("timestep_type") == "continuous":
        raise UserError(f"{kind} has timestep_type='continuous'.", "Pass the EDMEulerScheduler of the model.")
    spaced = any(config.get(f"use_{name}_sigmas") for name in ("karras", "exponential", "beta"))
    return FromNoise(
        caller,
        scheduler.alphas_cumprod,
        prediction=config.prediction_type,
        clip=config.clip_sample_range if config.get("clip_sample") else None,
        interpolation="log" if spaced or config.get("interpolation_type") == "log_linear" else "linear",
        **classes,
    )
