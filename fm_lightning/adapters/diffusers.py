"""diffusers' models as velocities: the scheduler's configuration says what the model predicts and how it counts time."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fm_lightning.adapters.denoisers import FromDenoiser, FromGaussianPath, FromNoise, like, tensor_of
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
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler")  # of the variance-preserving path
FLOW, EDM = "FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"
ADDED = ("text_embeds", "time_ids", "image_embeds")  # which Stable Diffusion XL takes together, as added_cond_kwargs
# Dimensions of a condition with its classes in front, and the options of a model that say how wide it is.
SHAPES: dict[str, tuple[int, tuple[str, ...]]] = {
    "encoder_hidden_states": (3, ("encoder_hid_dim", "cross_attention_dim", "joint_attention_dim")),
    "pooled_projections": (2, ("pooled_projection_dim",)),
}


class FromDiffusers(Velocity):
    """The velocity that a diffusers model and its scheduler stand for.

    Args:
        model: a UNet2DModel, UNet2DConditionModel, DiTTransformer2DModel, SD3Transformer2DModel or FluxTransformer2DModel.
        scheduler: a DDPM, DDIM, EulerDiscrete, EDMEuler or FlowMatchEulerDiscrete scheduler; only its configuration is read.
        conditions: keyword of the model -> one entry per class, for example ``{"encoder_hidden_states": [n, tokens, width]}``.
            Label y selects entry y. A model with class labels of its own needs none. Stable Diffusion XL's ``text_embeds``
            and ``time_ids`` are keywords like the others.
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
        self.kind = self.__name__ = type(model).__name__
        if self.kind not in NEEDS:
            part = next((name for name in ("transformer", "unet") if hasattr(model, name)), None)
            fix = f"Pass its {part}." if part else f"Choose among {', '.join(NEEDS)}."
            raise UserError(f"FromDiffusers does not know {self.kind}.", fix)
        config: Any = model.config
        self.config = config
        self.num_train_timesteps = config.get("num_train_timesteps")
        _check_keywords(self.kind, model, conditions, extras)
        self.model, self.extras = model, dict(extras)
        self.names = tuple(conditions)
        tables = {name: self._table(name, entries) for name, entries in conditions.items()}
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
                if null is not None and null[name].shape != table.shape[1:]:
                    shapes = f"{list(null[name].shape)}, and entries {list(table.shape[1:])}"
                    raise UserError(f"null has {name} of shape {shapes}.", "Pass one entry, without a batch dimension.")
                whole = table if null is None else torch.cat([table, null[name][None].to(table)])
                self.register_buffer(f"condition_{name}", whole, persistent=False)
        else:
            if isinstance(null, Mapping):
                raise UserError(
                    "null has entries, and there are no conditions.", "Pass conditions=..., too, or leave it out."
                )
            own = config.get("num_embeds_ada_norm") or config.get("num_class_embeds") or 0
            # A DiT has one more label for "no class"; a U-Net's null label is one of its classes, if any.
            self.null_label = own if own and self.kind == "DiTTransformer2DModel" else null
            self.num_classes = own if self.null_label in (None, own) else own - 1

    def _table(self, name: str, entries: Tensor | Sequence[Tensor]) -> Tensor:
        """``[classes, ...]``, the entries of one keyword."""
        try:
            table = torch.stack(list(entries))
        except (TypeError, RuntimeError) as error:
            problem = f"The entries of {name} are not tensors of one shape."
            raise UserError(problem, "Pad them to equal lengths, as the model's pipeline does.") from error
        ndim, options = SHAPES.get(name, (table.ndim, ()))
        width = next((self.config[o] for o in options if isinstance(self.config.get(o), int)), table.shape[-1])
        if table.ndim != ndim or table.shape[-1] != width:
            wanted = ["classes", *["tokens"][: ndim - 2], str(width)]
            raise UserError(
                f"{self.kind} takes {name} of shape [{', '.join(wanted)}], not {list(table.shape)}.",
                "Pass one entry per class.",
            )
        return table

    def forward(self, z: Tensor, timestep: Tensor, y: Tensor | None = None) -> Tensor:
        channels = self.config.in_channels // (4 if self.kind == "FluxTransformer2DModel" else 1)
        if z.ndim != 4 or z.shape[1] != channels:
            problem = f"{self.kind} takes samples of {channels} channels, not of shape {list(z.shape[1:])}."
            raise UserError(problem, "Pass data of the space in which it was trained.")
        keywords = dict(self.extras)
        for name in self.names:
            entry = getattr(self, f"condition_{name}")[y]
            keywords[name] = entry.to(z.dtype) if entry.is_floating_point() else entry
        if added := {name: keywords.pop(name) for name in ADDED if name in keywords}:
            keywords["added_cond_kwargs"] = added
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


def _check_keywords(kind: str, model: nn.Module, conditions: Mapping[str, Any], extras: Mapping[str, Any]) -> None:
    """Refuses conditions that the model lacks or does not know, before it is called."""
    config: Any = model.config
    needs = [*NEEDS[kind]]
    if config.get("addition_embed_type") == "text_time":
        needs += ["text_embeds", "time_ids"]
    if kind == "UNet2DConditionModel" and getattr(model, "class_embedding", None) is not None:
        needs += ["class_labels"]
    if missing := [name for name in needs if name not in conditions]:
        raise UserError(f"{kind} needs {', '.join(missing)}.", f"Pass conditions={{{missing[0]!r}: ...}}.")
    if config.get("guidance_embeds") and "guidance" not in extras:
        raise UserError(f"{kind} is told a guidance scale.", "Pass for example guidance=3.5.")
    known = [*inspect.signature(model.forward).parameters, *(ADDED if config.get("addition_embed_type") else ())]
    known = [name for name in known if name != "guidance" or config.get("guidance_embeds")]
    if unknown := [name for name in (*conditions, *extras) if name not in known]:
        raise UserError(f"{kind} does not take {unknown[0]}.", f"It takes {', '.join(known[1:])}.")


class _FlowMatch(FromGaussianPath):
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


def _field(caller: _Caller, scheduler: Any) -> FromGaussianPath:
    """The parametrisation that a scheduler's configuration describes."""
    kind, config = type(scheduler).__name__, cast(Any, getattr(scheduler, "config", {}))
    classes: dict[str, Any] = {"num_classes": caller.num_classes, "null_label": caller.null_label}
    if FLOW in (base.__name__ for base in type(scheduler).__mro__):
        if config.get("stochastic_sampling"):
            raise UserError(f"{kind} has stochastic_sampling=True, which is no velocity.", "Set it to False.")
        if config.get("invert_sigmas"):
            problem = f"{kind} has invert_sigmas=True, which runs the model's clock backwards."
            raise UserError(problem, "Set it to False if the model's time is 0 at the data.")
        return _FlowMatch(caller, config.num_train_timesteps)
    if kind == EDM:
        sign = 1 if config.prediction_type == "epsilon" else -1
        net = _Preconditioned(caller, config.sigma_data, sign)
        return FromDenoiser(net, config.sigma_min, config.sigma_max, **classes)
    if kind not in SCHEDULERS:
        known = "DDPM, DDIM, EulerDiscrete, EDMEuler or FlowMatchEulerDiscrete"
        raise UserError(f"FromDiffusers does not know {kind}.", f"Pass a {known} scheduler.")
    if (steps := len(scheduler.alphas_cumprod)) != config.num_train_timesteps:
        raise UserError(
            f"{kind} has {config.num_train_timesteps:,} training steps and alphas_cumprod of {steps:,}.",
            f"Build it with num_train_timesteps={steps}.",
        )
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
