"""The page: what was promised, what was measured, where the time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def page(about: Mapping[str, Any], found: Rows) -> str:
    """``docs/results/benchmarks.md`` from what ``run`` has gathered."""
    return "\n".join(_lines(about, found)).rstrip() + "\n"


def _lines(about: Mapping[str, Any], found: Rows) -> Iterator[str]:
    machine = about["machine"]
    hardware = f"{machine['cpu']}, {machine['cores']} cores" + (f"; {machine['gpu']}" if "gpu" in machine else "")
    yield "# Benchmarks"
    yield ""
    yield f"`{about['command']}`, {about['date']}, {about['seconds'] / 60:.1f} minutes. {hardware}. "
    yield ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) + "."
    if machine.get("load_average") is not None:
        yield f"Load average at the end: {machine['load_average']:.1f}."
    yield ""
    yield "Candidates take turns in one process; ratios are of minima over all rounds. All numbers, with medians and"
    yield "spreads, are in the JSON file next to this page. Each line can be repeated alone: `python -m benchmarks.NAME`."
    yield ""
    yield "## Targets"
    yield ""
    targets = [(entry["benchmark"], t) for entry in found for t in [*entry.get("targets", []), *_neighbours(entry)]]
    yield from _table(
        ["benchmark", "what", "measured", "target", ""],
        [
            [
                name,
                t["what"],
                "not measured" if t["value"] is None else f"{t['value']:.4g}{t['unit']}",
                t["target"],
                {True: "reached", False: "**missed**", None: ""}[t["reached"]],
            ]
            for name, t in targets
        ],
    )
    for entry in found:
        if entry.get("date", about["date"])[:10] != about["date"][:10]:
            yield f"- `{entry['benchmark']}` was measured on {entry['date']}."
        if entry.get("problem"):
            yield f"- `{entry['benchmark']}`: {entry['problem']}."
    for entry in found:
        rows = entry.get("rows", [])
        title, section = SECTIONS.get(entry["benchmark"], (entry["benchmark"], _nothing))
        lines = list(section(rows)) if isinstance(rows, list) else []
        if lines:
            yield from ["", f"## {title}", "", *lines]


def _neighbours(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The neighbours' targets, which their own script does not know."""
    from benchmarks.timing import target

    if entry["benchmark"] != "neighbours":
        return
    for row in entry.get("rows", []):
        size = (row["queries"], row["rows"], row["size"])
        ratio = row["ours_over_peer"]
        if size == (2000, 50_000, 3072):
            yield target("2000 x 50000 x 3072: time over faiss IndexFlatL2", ratio, 1.15)
        elif row["peer"] == "broadcasting":
            speed = None if ratio is None else 1 / ratio
            yield target("200 x 5000 x 3072: speed over broadcasting", speed, 50, "x", at_least=True)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _energy(rows: Rows) -> Iterator[str]:
    compared = [r for r in rows if "ratio" in r]
    yield from _table(
        ["network", "batch", "bare loop", "ratio", "median", "by difference", "operations: network, bare, ours"],
        [
            [
                r["network"],
                str(r["batch"]),
                f"{1e3 * r['bare']['min_s'] / r['steps']:.2f} ms/step (spread {r['bare']['spread']:.0%})",
                f"{r['ratio']:.4f}",
                f"{r['median_ratio']:.4f}",
                f"{r['ratio_by_difference']:.4f}",
                ", ".join(
                    str(sum(n.values()) if isinstance(n, dict) else n) for n in r["operations_per_step"].values()
                ),
            ]
            for r in compared
        ],
    )
    yield ""
    yield "*By difference*: the loop alone (a network that returns its input), ours less bare, over the bare loop with the"
    yield "network: the same question with less noise in it. What is added per step is one norm per sample."
    yield ""
    for r in rows:
        if "release_over_ours" in r:
            yield (
                f"- Samples and KPE of {r['trajectories']} trajectories, {r['steps']} steps, {r['network']}: ours "
                f"{r['ours']['min_s']:.3f} s, the release's procedure {r['release']['min_s']:.3f} s: "
                f"**{r['release_over_ours']:.1f}x**; energies agree to {r['largest_relative_difference']:.0e}."
            )


def _shared(rows: Rows) -> Iterator[str]:
    for r in rows:
        if r["what"] == "shared / separate":
            needed, alone = r["evaluations"]
            yield (
                f"- {r['schedules']} schedules, batch {r['batch']}: {needed:.0f} of {alone} evaluations, "
                f"{r['shared']['min_s']:.2f} of {r['separate']['min_s']:.2f} s ({r['ratio']:.3f}; "
                f"median {r['median_ratio']:.3f})."
            )
        elif r["what"] == "controls":
            needed, alone = r["evaluations"]
            yield f"- A schedule, base and its controls ({len(r['rows'])} rows): {needed:.0f} of {alone} evaluations."
    yield ""
    grown = [r for r in rows if r["what"] == "growth"]
    yield from _table(
        ["schedules", "evaluations", "seconds", "times one"],
        [
            [str(r["schedules"]), f"{r['evaluations']:.0f}", f"{r['seconds']:.3f}", f"{r['times_one']:.2f}"]
            for r in grown
        ],
    )
    yield ""
    yield from _table(
        ["batch", "network calls merged, apart", "time merged / apart"],
        [
            [str(r["batch"]), f"{r['calls'][0]}, {r['calls'][1]}", f"{r['ratio']:.3f}"]
            for r in rows
            if r["what"] == "merging"
        ],
    )


def _sampling(rows: Rows) -> Iterator[str]:
    over = [r for r in rows if r["what"] == "over batch"]
    yield "Evaluations of samples a second, ours with KPE and a gain, torchdiffeq plain:"
    yield ""
    yield from _table(
        ["network", "batch", "evaluations/s"],
        [
            [r["network"], str(r["batch"]), ", ".join(f"{who} {v:,.0f}" for who, v in r["evaluations_per_s"].items())]
            for r in over
        ],
    )
    peers = [r for r in rows if r["what"].startswith("torchcfm")]
    if peers:
        yield ""
        yield from _table(
            ["U-Net", "batch", "what", "images/s"],
            [
                [
                    r["network"],
                    str(r["batch"]),
                    r["what"].split(": ")[1],
                    ", ".join(f"{who} {v:.3g}" for who, v in r["images_per_s"].items()),
                ]
                for r in peers
            ],
        )


def _neighbour_rows(rows: Rows) -> Iterator[str]:
    yield from _table(
        ["queries x rows x size", "ours", "peer", "ratio", "GFLOP/s"],
        [
            [
                f"{r['queries']} x {r['rows']} x {r['size']}",
                f"{min(r['times']['ours']):.3f} s",
                r["peer"] + (f" {min(r['times'][r['peer']]):.3f} s" if r["peer"] in r["times"] else " not installed"),
                "" if r["ours_over_peer"] is None else f"{r['ours_over_peer']:.3f}",
                f"{r['gflops']:.0f}",
            ]
            for r in rows
        ],
    )


def _startup(rows: Rows) -> Iterator[str]:
    for r in rows:
        yield f"- {r['what']}: {r['min_s'] if 'min_s' in r else r['seconds']:.3g} s"


def _profile(rows: Rows) -> Iterator[str]:
    for r in rows:
        if "gbytes" in r:
            yield f"- {r['what']}: float32 product {r['gflops']:,.0f} GFLOP/s, memory {r['gbytes']:,.0f} GB/s."
        else:
            shares = ", ".join(f"{key} {share:.1%}" for key, share in r["shares"].items() if share >= 0.001)
            yield (
                f"- {r['network']}, batch {r['batch']}: {shares}. The network runs at {r['gflops']:,.0f} GFLOP/s, "
                f"{r['share_of_product_rate']:.0%} of a large product's rate with equally many threads."
            )
    yield ""
    yield "The limit of sampling is the network's arithmetic; what lies between its rate and the product's are operations"
    yield "that wait for memory (norms, activations, concatenations) and products too small to fill the machine."


def _gpu_speed(rows: Rows) -> Iterator[str]:
    trained = [r for r in rows if r["what"] == "training"]
    yield from _table(
        ["training with", "images/s", "times float32"],
        [[r["switches"], f"{r['images_per_s']:,.0f}", f"{r['times_float32']:.2f}"] for r in trained],
    )
    yield ""
    for r in rows:
        if r["what"] == "bf16 sampling":
            yield (
                f"- bf16 sampling against float32, untrained network: KPE differs by {r['kpe_relative_median']:.1e} (most "
                f"{r['kpe_relative_max']:.1e}), images {r['psnr_median_db']:.1f} dB (least {r['psnr_min_db']:.1f})."
            )
        elif r["what"] == "neighbours":
            yield (
                f"- Neighbours {r['count']} x {r['count']} x {r['size']}, {r['dtype']}: {r['tflops']['nearest']:.2f} of "
                f"{r['tflops']['product']:.2f} TFLOP/s of the product alone ({r['share_of_product']:.0%})."
            )


def _verdicts(rows: Rows) -> Iterator[str]:
    counted, kernel = rows[0]["evaluations"], rows[1]["kernel"]
    yield "Evaluations in addition to base's, in units of base's (100 Euler steps), beginnings shared:"
    yield ""
    yield from _table(["what", "evaluations / base's"], [[name, f"{value:.2f}"] for name, value in counted.items()])
    yield ""
    yield (
        f"Kernel distance of {kernel['samples']:,} samples to equally many real images, {kernel['features']:,} features, with "
        f"each image's influence: {kernel['influence_s']:.1f} s, and {kernel['reference_s']:.1f} s once for the real ones; "
        f"{kernel['extra_mb']:.0f} MB in addition to the features (one whole table of kernels: {kernel['table_mb']:.0f} MB)."
    )


def _steps(rows: Rows) -> Iterator[str]:
    for r in rows:
        network = r.get("network", "digits MLP")
        yield f"- {r['what']}, {network}, batch {r['batch']}: {r['ratio']:.3f} (median {r['median_ratio']:.3f})."


def _sit(rows: Rows) -> Iterator[str]:
    for r in rows:
        yield f"- {r['what']}, batch {r['batch']}: {r['ratio']:.3f} of diffusers' time (median {r['median_ratio']:.3f})."


def _support(rows: Rows) -> Iterator[str]:
    for r in rows:
        yield (
            f"- {r['queries']:,} samples, {r['rows']:,} x {r['size']:,} references: support {r['support_seconds']:.2f} s, "
            f"neighbours alone {r['neighbours_seconds']:.2f} s."
        )


def _nothing(rows: Rows) -> Iterator[str]:
    return iter(())


def _frechet(rows: Rows) -> Iterator[str]:
    yield "One more schedule's distance, the reference's root and the moments being there already. What bounds ours is the"
    yield "symmetric eigenproblem in float64 and two products of such matrices, of which one is timed next to it."
    yield ""
    yield from _table(
        ["features", "threads", "one product, s", "ours, s", "torchmetrics, s", "ratio", "relative difference"],
        [
            [
                str(row["features"]),
                str(row["threads"]),
                f"{row['product']['min_s']:.2f}",
                f"{row['ours']['min_s']:.2f}",
                f"{row['torchmetrics']['min_s']:.1f}",
                f"{row['ratio']:.3f}",
                f"{row['relative_difference']:.1e}",
            ]
            for row in rows
        ],
    )


def _evaluation_table(rows: Rows) -> Iterator[str]:
    for r in rows:
        if r["what"] == "writing":
            yield (
                f"- `configs/digits.yaml`, {r['rows']} rows x {r['seeds']:,} seeds: {r['seconds']:.1f} s from the first batch "
                f"to the last number, {r['writing_s']:.2f} s of it ({r['share']:.2%}) for the table."
            )
        elif r["what"] == "one more schedule":
            yield (
                f"- One more schedule on it: {r['added']['min_s']:.3f} s; the same seeds sampled and measured with no table "
                f"{r['alone']['min_s']:.3f} s ({r['ratio']:.3f}; median {r['median_ratio']:.3f})."
            )
        else:
            yield (
                f"- `report` on {r['seeds']:,} seeds x {r['rows']} rows with {r['features']:,} features "
                f"({r['disk_bytes'] / 1e9:.2g} GB on disk): {r['seconds']:.1f} s, start-up included, and "
                f"{r['peak_bytes'] / 1e9:.2f} GB of memory at most."
            )


SECTIONS: dict[str, tuple[str, Callable[[Rows], Iterator[str]]]] = {
    "profile": ("Where the time goes", _profile),
    "energy": ("Energy for nothing", _energy),
    "shared": ("Shared trajectories", _shared),
    "sampling": ("Sampling and training throughput", _sampling),
    "neighbours": ("Nearest neighbours", _neighbour_rows),
    "frechet": ("Fréchet distance", _frechet),
    "verdicts": ("Verdicts", _verdicts),
    "steps": ("Steps of an SDE, and averages in training", _steps),
    "sit": ("SiT-S/2 compared with diffusers' DiT", _sit),
    "support": ("Local support", _support),
    "table": ("The evaluation table", _evaluation_table),
    "startup": ("Waiting to begin", _startup),
    "gpu_speed": ("Switches on a GPU", _gpu_speed),
}
