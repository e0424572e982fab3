"""CIFAR-10 in nine minutes on one GPU: trains on 1 024 images until it memorizes, then compares schedules with controls.

    python -m benchmarks.gpu_cifar10 [--source FOLDER] [--minutes 9] [--out DIR]
    python -m benchmarks.gpu_cifar10 --smoke --minutes 1        # a small network on a CPU: does it run?

configs/cifar10_memorization.yaml with another learning rate and average, for a short run. Seven tenths of the minutes go
to starting and training; the comparison gets all seeds that fit into what is left, at the network's measured speed. The
Fréchet distance is on 4x4-averaged pixels (``fd_pool4``), which needs no weights; ``--inception`` takes Inception's, and
its time.
Writes to --out: config.yaml, results.csv and .json, report.html, figures as PNG, throughput.json, gpu_cifar10.json.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from torch import nn

from benchmarks.networks import cifar_unet, small_unet
from benchmarks.shared import evaluations
from benchmarks.timing import arguments, clocked, machine
from fm_lightning.comparison.families import families
from fm_lightning.flow import KTS, SSC, Schedule

CONFIGS = Path(__file__).parent.parent / "configs"
TRAINING, COMPARING = 0.72, 0.17  # of all minutes; the rest is drawing and a reserve
KEPT = ("config.yaml", "results.csv", "results.json", "report.html", "throughput.json")
SMOKE_STEPS = 4
SHAPED = {"balanced": (0.01, 0.01), "stronger": (0.02, 0.02)}


def configuration(smoke: bool, source: str | None, training_s: float, inception: bool, n: int | None) -> dict[str, Any]:
    """The configuration of the run."""
    name = "cifar10_small" if smoke else "cifar10_memorization"
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    data, trainer = config["data"]["init_args"], config["trainer"]
    if source:
        data["source"] = source
    if n:
        data["n"] = n
    trainer |= {"max_steps": 10_000_000, "limit_val_batches": 0, "log_every_n_steps": 50}
    trainer["callbacks"] = [c for c in trainer["callbacks"] if "ModelCheckpoint" not in c["class_path"]]
    trainer["enable_checkpointing"] = False  # the budget keeps one
    if not inception:
        features = {"class_path": "fm_lightning.metrics.RawFeatures", "init_args": {"pool": 4}}
        for callback in trainer["callbacks"]:
            if callback["class_path"].endswith("FIDMonitor"):
                callback["init_args"] = {"extractors": features}
    if smoke:
        config["model"]["scheduler"]["init_args"] = {"warmup_steps": 10}
        for schedule in config["model"]["test_schedules"].values():
            schedule["steps"] = SMOKE_STEPS
    else:
        # A run of thousands of steps, not of hundred thousands.
        config["model"]["optimizer"]["init_args"]["lr"] = 4e-4
        config["model"]["scheduler"]["init_args"] = {"warmup_steps": 300}
        config["model"]["judge"] = list(SHAPED)
        for callback in trainer["callbacks"]:
            if callback["class_path"].endswith("EMA"):
                callback["init_args"] = {"decay": 0.995}
    budget = {"seconds": training_s, "since": time.time(), "every": 5 if smoke else 100}
    trainer["callbacks"].append({"class_path": "benchmarks.budget.Budget", "init_args": budget})
    return config


def rows_per_second(net: nn.Module, batch: int, amp: bool) -> float:
    """Rows of a batch that the network evaluates a second in sampling; its weights do not matter."""
    device = next(net.parameters()).device
    net = net.to(memory_format=torch.channels_last)
    x, t = torch.randn(batch, 3, 32, 32, device=device), torch.rand(batch, device=device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=amp):
        net(x, t)
        return batch / min(clocked(lambda: net(x, t))[0] for _ in range(3))


def evaluations_per_seed(steps: int) -> float:
    """What one seed costs under all schedules that the network samples, beginnings shared."""
    rows = {"base": Schedule(steps=steps), "launch": Schedule(KTS(0.02, 0.0), steps=steps)}
    rows["ssc"] = Schedule(SSC(0.05, 1.0), steps=steps)
    for name, (alpha, beta) in SHAPED.items():
        rows[name] = Schedule(KTS(alpha, beta), steps=steps)
        cheap = [family for family in families(rows["base"]) if family.cheap]
        doses = [(family, dose) for family in cheap for dose in family.doses[:3]]
        rows |= {f"{name} {f.name} {dose}": cast(Schedule, f.at(rows["base"], dose)) for f, dose in doses}
    return evaluations(lambda x, t, y: x, torch.zeros(1, 1), rows)


def random_images(folder: Path) -> str:
    """A folder of parquet files of random pixels, where no data is given to a smoke test."""
    from datasets import Dataset, Features, Image

    pixels = torch.randint(256, (200, 32, 32, 3), dtype=torch.uint8).numpy()
    for split in ("train", "test"):
        images = Dataset.from_dict({"img": list(pixels)}, features=Features({"img": Image()}))
        images.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return str(folder)


def draw(run: Path, out: Path) -> None:
    """The report's figures, each as a PNG."""
    from fm_lightning.cli.report import recalled
    from fm_lightning.comparison.collect import Collector
    from fm_lightning.comparison.results import read_results
    from fm_lightning.report.figures import FIGURES
    from fm_lightning.table.evaluation import Evaluation
    from fm_lightning.table.pictures import read_pictures

    evaluation = Evaluation.open(run)
    results = read_results(run)
    arrays = Collector(evaluation, recalled(evaluation, run)).arrays() | read_pictures(evaluation)
    for plate in FIGURES:
        if (figure := plate.draw(results, arrays)) is not None:
            figure.savefig(out / f"{plate.key}.png", dpi=130, bbox_inches="tight")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--source", help="local parquet files or images of CIFAR-10; default: the hub's")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_cifar10"))
    parser.add_argument("--n", type=int, help="training images (default 1024)")
    parser.add_argument("--inception", action="store_true", help="FID proper: weights are needed, and minutes more")
    given = parser.parse_args()
    begin, total = time.perf_counter(), 60 * given.minutes
    cuda = torch.cuda.is_available()
    if not cuda and not given.smoke:
        parser.error("no GPU found, expected one; type --smoke for a small run on a CPU")
    torch.set_num_threads(given.threads)
    sys.argv[1:] = []  # the command line that follows is given, not typed
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = given.source
        if given.smoke and not source:
            source = random_images(Path(scratch))
        found = _run(given, source, Path(scratch), cuda, begin, total)
    (given.out / "gpu_cifar10.json").write_text(json.dumps(found, indent=1) + "\n")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({k: v for k, v in found.items() if k != "machine"}, indent=1))


def _run(given: Any, source: str | None, scratch: Path, cuda: bool, begin: float, total: float) -> dict[str, Any]:
    from fm_lightning.cli import command as cli

    config = configuration(given.smoke, source, TRAINING * total, given.inception, given.n)
    if given.smoke:
        config["data"]["init_args"] |= {"real_part": "train[64:]", "held_out_part": "test[:64]"}
    config["threads"] = given.threads
    file = scratch / "config.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    name, root = "cifar10", given.out / "runs"
    common = ["-c", str(file), "--name", name, "--root", str(root)]
    cli.main(["fit", *common, "--again"])
    run = root / name
    trained = time.perf_counter() - begin

    batch = config["data"]["init_args"]["eval_batch_size"]
    net = small_unet() if given.smoke else cifar_unet()
    rate = rows_per_second(net.cuda() if cuda else net, batch, amp=cuda)
    each = evaluations_per_seed(SMOKE_STEPS if given.smoke else 100)
    left = max(0.0, min(COMPARING * total, 0.9 * total - trained))
    batches = int(0.8 * left * rate / each / batch)
    seeds = min(max(1, batches), 10) * batch
    print(f"{rate:,.0f} evaluations a second, {each:.0f} a seed, {left:.0f} s: {seeds} seeds", flush=True)
    # Not compiled: for the few batches of a comparison that would not pay.
    cli.main(["test", *common, "--model.compile", "false", "--data.init_args.test_seeds", str(seeds)])
    compared = time.perf_counter() - begin
    for kept in KEPT:
        shutil.copy(run / kept, given.out)
    draw(run, given.out)
    results = json.loads((run / "results.json").read_text())
    metrics = {row["name"]: row["metrics"] for row in results["rows"]}
    return {
        "machine": machine(),
        "images": "random pixels" if given.smoke and not given.source else Path(source or "uoft-cs/cifar10").name,
        "training_images": results["training_images"],
        "training": json.loads((run / "throughput.json").read_text()),
        "sampling_rows_per_s": rate,
        "evaluations_per_seed": each,
        "seeds": seeds,
        "f_mem": {name: values.get("f_mem") for name, values in metrics.items()},
        "seconds": {"trained": trained, "compared": compared, "all": time.perf_counter() - begin},
        "within_time": time.perf_counter() - begin <= total,
    }


if __name__ == "__main__":
    main()
