"""Denoisers, noise predictors and scores as velocities: every Gaussian path is the linear one after a change of scale and time.

A network trained on ``z = a x1 + s n`` sees the linear path's ``x = t x1 + (1 - t) n`` at the same ratio
``r = s / a = (1 - t) / t``, with ``z = (a + s) x``. For any prediction, data ``x1`` and noise ``n`` follow from it and from
z, and the velocity is ``x1 - n``. Energies are those of the linear path. Beyond the noise levels that a network was trained
on it is evaluated at the nearest one, so that t = 0 and t = 1 exist; sampling begins at ``trained_on[0]``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.nets.conditions import check_labels, distinct
from fm_lightning.nets.velocity import Velocity

PREDICTIONS = ("epsilon", "v_prediction", "sample", "score")


class FromGaussianPath(Velocity):
    """A velocity made of a network on another Gaussian path.

    Args:
        net: called with ``(z, level)``, and with labels ``[B]`` too if ``num_classes`` is above 0.
        trained_on: first and last time of the linear path at which the network was trained.
        num_classes: number of classes; 0 for a network that takes no labels.
        null_label: the label that means "no class", if there is one.
    """

    def __init__(
        self, net: Callable[..., Any], trained_on: tuple[float, float], num_classes: int, null_label: int | None
    ) -> None:
        super().__init__()
        if not 0 <= trained_on[0] < trained_on[1] <= 1:
            raise UserError(f"{type(self).__name__} got no range of noise levels: {trained_on}.", "Check its levels.")
        if not callable(net):
            problem = f"{type(self).__name__} takes a network, not a {type(net).__name__}."
            raise UserError(problem, "Pass a function or a module.")
        self.net, self.trained_on = net, trained_on
        self.num_classes, self.null_label = num_classes, null_label

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Args: ``x [B, ...]``, ``t [B]``, ``y [B]`` int64 or None. Returns the velocity, like ``x``."""
        check_labels(self, y)
        time = distinct(t).double().clamp(*self.trained_on)
        return self.velocity(x, time, y).to(x.dtype)

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """The velocity at times ``[B]`` or ``[1]`` within the trained range, float64."""

    def ask(self, z: Tensor, level: Tensor, y: Tensor | None) -> Tensor:
        """What the network says; a tensor inside a tuple or an output object is taken out, learned variances are dropped."""
        labels = (y,) if self.num_classes else ()
        level = level.to(z.dtype) if level.is_floating_point() else level  # whole steps stay integers
        out = tensor_of(self.net(z, level.expand(len(z)), *labels), self.net)
        if out.ndim > 1 and out.shape[1] == 2 * z.shape[1]:
            out = out[:, : z.shape[1]]
        if out.shape != z.shape:
            raise UserError(
                f"{name_of(self.net)} returns shape {list(out.shape)} for samples of shape {list(z.shape)}.",
                "Pass a network whose output is like its input.",
            )
        return out


class FromDenoiser(FromGaussianPath):
    """``D(z; sigma)`` estimates x1 from ``z = x1 + sigma n`` (EDM, EDM2; with its preconditioning): ``(D - x) / (1 - t)``.

    Args:
        net: ``net(z [B, ...], sigma [B])``, and labels.
        sigma_min, sigma_max: the noise levels that it was trained on.
        num_classes, null_label: as for ``FromGaussianPath``.
    """

    def __init__(
        self,
        net: Callable[..., Any],
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        num_classes: int = 0,
        null_label: int | None = None,
    ) -> None:
        if not 0 < sigma_min < sigma_max < float("inf"):
            raise UserError(
                f"sigma_min={sigma_min:g} and sigma_max={sigma_max:g} must be positive and ascending.",
                "Use for example sigma_min=0.002, sigma_max=80.",
            )
        super().__init__(net, (1 / (1 + sigma_max), 1 / (1 + sigma_min)), num_classes, null_label)

    def velocity(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        d = self.ask(x / like(t, x), (1 - t) / t, y)
        return (d - x) / like(1 - t, x)


class FromNoise(FromGaussianPath):
    """A network on the variance-preserving path ``z = a x1 + s n``, ``a^2 + s^2 = 1`` (DDPM, ADM, DiT).

    Args:
        net: ``net(z [B, ...], step [B])``, and labels; steps count from 0 (data) to ``len(alphas_cumprod) - 1`` (noise).
        alphas_cumprod: ``[T]`` the ``a^2`` of each step, descending.
        prediction: what it predicts: "epsilon" (n), "v_prediction" (``a n - s x1``), "sample" (x1) or "score" (of z).
        clip: bound of the predicted x1, as samplers with ``clip_sample`` have it; it changes the velocity.
        integer_steps: the network takes whole steps only: the nearest is told. Others get interpolated steps.
        interpolation: "linear" in ``s / a``, or "log".
        num_classes, null_label: as for ``FromGaussianPath``.
    """

    def __init__(
        self,
        net: Callable[..., Any],
        alphas_cumprod: Tensor | Sequence[float],
        prediction: str = "epsilon",
        clip: float | None = None,
        integer_steps: bool = False,
        interpolation: str = "linear",
        num_classes: int = 0,
        null_label: int | None = None,
    ) -> None:
        try:
            squares = torch.as_tensor(alphas_cumprod, dtype=torch.float64).detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            squares = torch.zeros(0)
        falling = squares.ndim == 1 and len(squares) > 1 and bool((squares[1:] < squares[:-1]).all())
        if not falling or squares[-1] < 0 or squares[0] > 1:
            raise UserError("alphas_cumprod must be descending numbers between 1 and 0.", "Pass the scheduler's own.")
        for name, given, allowed in (
            ("prediction", prediction, PREDICTIONS),
            ("interpolation", interpolation, ("linear", "log")),
        ):
            if given not in allowed:
                raise UserError(f"{name}={given!r} is unknown.", f"Choose among {', '.join(allowed)}.")
        if squares[-1] == 0 and prediction in ("epsilon", "score"):
            raise UserError(
                f"prediction={prediction!r} says nothing at the last step, which has no signal (zero terminal SNR).",
                "Leave the last step out of alphas_cumprod, or pass a network with v_prediction.",
            )
        own = getattr(net, "num_train_timesteps", None)
        if own is not None and own != len(squares):
            raise UserError(
                f"{name_of(net)} was trained on {own:,} steps, and alphas_cumprod has {len(squares):,}.",
                "Pass the alphas_cumprod of its own scheduler.",
            )
        ratios = ((1 - squares) / squares).sqrt().clamp_max(1e8)
        super().__init__(net, (float(1 / (1 + ratios[-1])), float(1 / (1 + ratios[0]))), num_classes, null_label)
        self.ratios: Tensor
        self.register_buffer("ratios", ratios, persistent=False)
        self.prediction, self.clip = prediction, clip
        self.integer_steps, self.interpolation = integer_steps, interpolation

    def step(self, t: Tensor) -> Tensor:
        """The step that the network is told at times ``[B]``, float64."""
        table, ratio = self.ratios.to(t.device, torch.float64), (1 - t) / t
        if self.interpolation == "log":
            table, ratio = table.log(), ratio.log()
        right = torch.searchsorted(table, ratio).clamp(1, len(table) - 1)
        left = table[right - 1]
        step = right - 1 + ((ratio - left) / (table[right] - left)).clamp(0, 1)
        return step.round() if self.integer_steps else step

    def velocity(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        h = (t.square() + (1 - t).square()).sqrt()
        z, a, s = x / like(h, x), like(t / h, x), like((1 - t) / h, x)
        step = self.step(t)
        try:
            out = self.ask(z, step.long() if self.integer_steps else step, y)
        except IndexError as error:  # of a table of steps
            raise UserError(
                f"{name_of(self.net)} does not take step {float(step.max()):g} of {len(self.ratios):,} ({error}).",
                "Pass the alphas_cumprod that it was trained with.",
            ) from error
        if self.prediction == "v_prediction":
            data, noise = a * z - s * out, s * z + a * out
        elif self.prediction == "sample":
            data, noise = out, (z - a * out) / s
        else:
            noise = -s * out if self.prediction == "score" else out
            data = (z - s * noise) / a
        return (data if self.clip is None else data.clamp(-self.clip, self.clip)) - noise


class FromScore(FromGaussianPath):
    """``score(x, t)`` of the linear path's own density on our clock: ``n = -(1 - t) score``, ``v = (x - n) / t``.

    Scores of a variance-preserving path are ``FromNoise(net, alphas_cumprod, prediction="score")``; ``path="exploding"`` takes
    ``score(z, sigma)`` of ``z = x1 + sigma n``.

    Args:
        net: ``net(x [B, ...], t [B])``, or ``net(z, sigma)``, and labels.
        path: "linear" or "exploding".
        trained_on: first and last time on our clock; the score alone does not decide the velocity at t = 0.
        num_classes, null_label: as for ``FromGaussianPath``.
    """

    def __init__(
        self,
        net: Callable[..., Any],
        path: str = "linear",
        trained_on: tuple[float, float] = (0.001, 0.999),
        num_classes: int = 0,
        null_label: int | None = None,
    ) -> None:
        if path not in ("linear", "exploding"):
            raise UserError(f"path={path!r} is unknown.", "Choose among linear, exploding; FromNoise takes the others.")
        if not trained_on[0] > 0:
            raise UserError(
                "A score does not decide the velocity at t = 0.", "Use for example trained_on=(0.001, 0.999)."
            )
        super().__init__(net, trained_on, num_classes, null_label)
        self.path = path

    def velocity(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        if self.path == "linear":
            noise = -like(1 - t, x) * self.ask(x, t, y)
        else:
            noise = -like((1 - t) / t, x) * self.ask(x / like(t, x), (1 - t) / t, y)
        return (x - noise) / like(t, x)


def like(numbers: Tensor, x: Tensor) -> Tensor:
    """``[B]`` or ``[1]`` numbers, to multiply ``x [B, ...]``."""
    return numbers.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def name_of(net: Any) -> str:
    """The name of a network's class, or of a function."""
    return getattr(net, "__name__", None) or type(net).__name__


def tensor_of(out: Any, net: Any) -> Tensor:
    """The tensor that a network returns: itself, the first of a tuple, or ``.sample`` of an output object."""
    if isinstance(out, tuple) and out:
        out = out[0]
    out = getattr(out, "sample", out)
    if not isinstance(out, Tensor):
        raise UserError(
            f"{name_of(net)} returns a {type(out).__name__}, not a tensor.", "Wrap it so that it returns one."
        )
    return out
