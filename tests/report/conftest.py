"""Made-up results for the report's tests: numbers of the right size, none of them measured.

The images are scikit-learn's digits; "samples" are digits with noise added, so that grids look real.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

SPLIT, STEPS = 0.6, 100
#        name, gain parameters (launch, landing), F_mem, its paired change and half interval, Fréchet change
SHAPED = [
    ("launch", 0.02, 0.0, 0.650, -0.001, 0.003, 0.13, "KTS α=0.02, launch only"),
    ("landing", 0.0, 0.015, 0.569, -0.082, 0.012, 0.76, "KTS β=0.015, landing only"),
    ("balanced", 0.01, 0.01, 0.598, -0.052, 0.010, 0.39, "KTS α=0.01 β=0.01"),
    ("stronger", 0.02, 0.02, 0.529, -0.122, 0.015, 1.44, "KTS α=0.02 β=0.02"),
    ("linear_landing", 0.02, 0.2, 0.583, -0.067, 0.011, 0.61, "KTS α=0.02 β=0.2, linear landing"),
    ("ssc", 0.05, 0.0, 0.668, 0.018, 0.008, 0.39, "SSC 0.05 (1 - t)"),
]
CONTROLS = {  # change of F_mem, half interval, Fréchet change, NFE
    "true_clock": ("same steps, true clock", -0.0005, 0.002, 0.00, 100),
    "early_stop": ("early stop at t=0.982", -0.071, 0.012, 0.92, 100),
    "constant_gain": ("constant gain 0.982", -0.026, 0.008, 0.07, 100),
    "fewer_steps": ("plain, 25 steps", -0.070, 0.013, 1.88, 25),
    "noise": ("noise σ=0.051", -0.050, 0.009, -0.21, 100),
}


def _row(name, kind, label, f_mem, quality, *, of=None, change=None, nfe=STEPS, energies=True, rng=None):
    half = 1.96 * np.sqrt(max(f_mem * (1 - f_mem), 1e-4) / 2000)
    metrics = {
        "fd_digits": quality,
        "f_mem": f_mem,
        "f_mem_lo": max(0.0, f_mem - half),
        "f_mem_hi": min(1.0, f_mem + half),
        **{f"f_mem_at_{at}": min(1.0, f_mem * (at / 0.3333) ** 0.45) for at in (0.1, 0.2, 0.3, 0.4, 0.5)},
        "nn_ratio_median": 0.28 + (0.65 - f_mem),
        "escaped_same_nn": 0.99,
    }
    if energies:
        kpe = 46.1 + 8 * (f_mem - 0.65)
        metrics |= {
            "kpe_mean": kpe,
            "kpe_std": 6.1,
            "kpe_early_mean": 0.51 * kpe,
            "kpe_late_mean": 0.49 * kpe,
            "excess_mean": 5.32 + 0.1 * f_mem,
            "displacement_mean": kpe - 5.4,
            "field_energy_mean": kpe + 0.3,
            "rms_to_base": None if kind == "base" else 0.021,
        }
    else:
        metrics |= {"kpe_mean": None, "kpe_early_mean": None, "kpe_late_mean": None, "excess_mean": None}
    vs_base = None
    if change:
        moved, width, quality_moved = change
        vs_base = {
            "f_mem": [moved, moved - width, moved + width],
            "fd_digits": [quality_moved, quality_moved - 0.11, quality_moved + 0.11],
        }
    return {
        "name": name,
        "kind": kind,
        "of": of,
        "label": label,
        "nfe": nfe,
        "steps": nfe,
        "description": f"made up: {label}",
        "metrics": metrics,
        "vs_base": vs_base,
        "vs_parent": None,
    }


def _rows(controlled=("balanced", "stronger")):
    rows = [_row("base", "base", "Euler, 100 steps", 0.650, 26.26)]
    for name, _, _, f_mem, moved, width, quality, label in SHAPED:
        rows.append(_row(name, "schedule", label, f_mem, 26.26 + quality, change=(moved, width, quality)))
        if name not in controlled:
            continue
        factor = 1 if name == "balanced" else 2.2
        for kind, (words, moved_c, width_c, quality_c, nfe) in CONTROLS.items():
            change = (moved_c * factor, width_c, quality_c * factor)
            words = f"{words} (control of {name})"
            row = _row(
                f"{name}/{kind}",
                "control",
                words,
                0.65 + change[0],
                26.26 + change[2],
                of=name,
                change=change,
                nfe=nfe,
            )
            difference = moved - change[0]
            row["vs_parent"] = {
                "f_mem": [difference, difference - width, difference + width],
                "fd_digits": [quality - change[2], quality - change[2] - 0.1, quality - change[2] + 0.1],
            }
            rows.append(row)
    rows.append(_row("empirical", "field", "closed-form velocity", 0.999, 33.4, change=(0.349, 0.021, 7.14)))
    rows.append(_row("held_out", "floor", "held-out real images", 0.004, 3.92, nfe=0, energies=False))
    rows.append(_row("training_copies", "floor", "training copies", 1.0, 21.7, nfe=0, energies=False))
    return rows


def _arrays(rows, images, rng, toy):
    arrays = {}
    edges = np.linspace(0, 1, STEPS + 1)
    u = np.clip(1 - edges[:-1] / SPLIT, 0, None), np.clip((edges[:-1] - SPLIT) / (1 - SPLIT), 0, None)
    power = 55 - 14 * np.sin(np.pi * np.clip(edges[:-1] / 0.9, 0, 1)) ** 2 + 3 * edges[:-1] ** 8
    shaped = {name: (launch, landing) for name, launch, landing, *_ in SHAPED}
    start = rng.normal(size=(24, *images.shape[1:]))
    picked = rng.integers(0, len(images), 24)
    for row in rows:
        name = row["name"]
        if row["kind"] != "floor":
            launch, landing = shaped.get(name, (0.0, 0.0))
            drop = landing * u[1] if name == "linear_landing" else landing * (np.exp(3 * u[1]) - 1)
            gain = 1 + launch * u[0] - drop
            arrays[f"gain/{name}"], arrays[f"times/{name}"] = gain, edges
            arrays[f"power/{name}"] = power * gain**2 * (1.04 if row["kind"] == "field" else 1)
            arrays[f"kpe/{name}"] = rng.gamma(57, row["metrics"]["kpe_mean"] / 57, 2000).astype(np.float32)
        copied = rng.random(24) < row["metrics"]["f_mem"]
        noise = np.where(copied, 0.04, 0.34).reshape(-1, *[1] * (images.ndim - 1))
        made = images[picked] + noise * start
        arrays[f"ratio/{name}"] = np.where(copied, 0.05 + 0.28 * rng.random(24), 0.4 + 0.5 * rng.random(24))
        if toy:
            arrays[f"samples/{name}"] = made.astype(np.float32)
        else:
            arrays[f"samples/{name}"] = np.clip(made * 255, 0, 255).astype(np.uint8)
            arrays[f"nearest/{name}"] = (images[picked] * 255).astype(np.uint8)
            if row["kind"] != "floor":
                arrays[f"most_copied/{name}"] = np.sort(rng.integers(4, 40, 10))[::-1]
    if toy:
        arrays["training/points"] = images.astype(np.float32)
    else:
        arrays["most_copied/images"] = (images[:10] * 255).astype(np.uint8)
    return arrays


@pytest.fixture(scope="session")
def make_results():
    return build


def build(kind="gray", controlled=("balanced", "stronger"), seed=0):
    """``(results, arrays)`` of a made-up comparison; ``kind`` is gray, rgb or toy."""
    rng = np.random.default_rng(seed)
    rows = _rows(controlled)
    if kind == "toy":
        angle = rng.uniform(0, np.pi, 60)
        half = rng.integers(0, 2, 60)
        images = np.stack([np.cos(angle) * (1 - 2 * half) + half, np.sin(angle) * (1 - 2 * half) + half * 0.5], 1)
    else:
        from sklearn.datasets import load_digits

        images = load_digits().images[:100, :, :, None] / 16.0
        if kind == "rgb":
            images = np.concatenate([images * 0.9 + 0.1, images * 0.6, 1 - images * 0.7], axis=-1)
    steps = list(range(0, 7001, 500))
    rise = [0.65 / (1 + np.exp(-(step - 3600) / 700)) for step in steps]
    train = {
        "steps": steps,
        "series": {
            "val/base/f_mem": rise,
            "val/base/fd_digits": [26.3 + 180 * np.exp(-step / 600) for step in steps],
            "val/base/kpe_mean": [46 - 9 * np.exp(-step / 900) for step in steps],
            "val/loss": [None if step == 0 else 0.62 + 0.4 * np.exp(-step / 800) + step / 2e5 for step in steps],
            "train/loss": [0.42 + 0.6 * np.exp(-step / 900) for step in steps],
        },
    }
    verdicts = [
        {
            "schedule": name,
            "sentence": sentence,
            "beats": [f"{name}/true_clock"],
            "trades": [f"{name}/fewer_steps"],
            "explained_by": [f"{name}/noise", f"{name}/early_stop"],
        }
        for name, sentence in [
            ("balanced", "balanced beats the true clock; added noise and an early stop explain it."),
            ("stronger", "stronger beats the true clock; added noise and an early stop explain it."),
        ]
        if name in controlled
    ]
    results = {
        "schema": 1,
        "name": "digits-quickstart",
        "created": "2026-07-03T14:05:11+00:00",
        "command": "fm-lightning test -c configs/quickstart.yaml",
        "duration_s": 71.4,
        "versions": {"fm-lightning": "0.1.0", "torch": "2.15.0", "lightning": "2.6.6", "numpy": "2.4.6"},
        "hardware": "2 CPU cores",
        "config": {"model": {"net": {"width": 128, "depth": 3}}, "seed_everything": 7},
        "seed": 7,
        "samples": 2000,
        "quality": {
            "key": "fd_digits",
            "label": "Fréchet distance (digits features)",
            "samples": 2000,
            "reference": 1697,
        },
        "space": "[-1, 1]",
        "training_images": 100,
        "tau_split": SPLIT,
        "threshold": 0.3333,
        "train": train,
        "rows": rows,
        "verdicts": verdicts,
    }
    return json.loads(json.dumps(results)), _arrays(rows, images, rng, kind == "toy")
