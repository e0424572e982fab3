"""The model card of an exported network: what was measured, in the form that the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fm_lightning.phrases import MISSING, decimals, number, share, thousands, with_span
from fm_lightning.report.results import Results, Row, base_row, groups, metric, quality_key, quality_label, title
from fm_lightning.report.words import answer, scope

TAGS = ("flow-matching", "kinetic-path-energy", "memorization")
TASK = "unconditional-image-generation"


def model_card(results: Results, facts: Mapping[str, Any]) -> str:
    """The text of ``README.md``: a YAML header, and Markdown.

    Args:
        results: of the network's comparison.
        facts: ``name``, ``license``, ``dataset``, ``network``, ``parameters``, ``step``, ``identity`` (of the weights),
            ``images`` (whether samples are images), ``classes`` (their number), ``figure`` (its file name, or None),
            ``schedule`` (the words between the brackets of ``Schedule(...)``).
    """
    parts = [
        _header(results, facts),
        f"# {facts['name']}",
        _opening(results, facts),
        "## How to sample",
        f"```python\n{sampling_code(results, facts)}\n```",
        "`load_network` needs neither Lightning nor code of this repository. On the Hub, pass its name and commit: "
        '`load_network("user/name", revision="...")`.',
        "## What was measured",
        f"{answer(results)} {scope(results)}".strip(),
        *([f"![What was measured]({facts['figure']})"] if facts["figure"] else []),
        "\n".join(_table(results)),
        _legend(results),
        *(f"**{verdict.schedule}.** {verdict.paragraph}" for verdict in results.verdicts),
        "## Where the numbers come from",
        "\n".join(f"- {line}" for line in _provenance(results, facts)),
    ]
    return "\n\n".join(parts) + "\n"


def sampling_code(results: Results, facts: Mapping[str, Any]) -> str:
    """The lines that load the network from the folder and sample as the row ``base`` was sampled."""
    labels = ", labels=net.space.labels(16)" if facts["classes"] else ""
    kinds = sorted(set(re.findall(r"\b([A-Z]\w*)\(", facts["schedule"])))
    lines = [
        "from fm_lightning import Schedule, integrate, load_network",
        "from fm_lightning.data import noise",
        *([f"from fm_lightning.flow import {', '.join(kinds)}"] if kinds else []),
        'net = load_network(".")',
        "x0 = noise(range(16), net.space.shape, base_seed=0)",
        f"samples = integrate(net, x0, Schedule({facts['schedule']}){labels}).x1",
    ]
    return "\n".join([*lines, *(["images = net.space.to_uint8(samples)"] if facts["images"] else [])])


def _header(results: Results, facts: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData  # half a second that other pages need not wait

    base, key = base_row(results), quality_key(results)
    wanted = {"f_mem": "F_mem", "kpe_mean": "kinetic path energy"} | ({key: quality_label(results)} if key else {})
    found = [] if base is None else [(name, words, metric(base, name)) for name, words in wanted.items()]
    about = {"task_type": TASK if facts["images"] else "other", "dataset_type": facts["dataset"]}
    evaluated = [
        EvalResult(**about, dataset_name=facts["dataset"], metric_type=name, metric_name=words, metric_value=value)
        for name, words, value in found
        if value is not None
    ]
    data = ModelCardData(
        license=facts["license"],
        library_name="fm_lightning",
        tags=[*TAGS],
        pipeline_tag=TASK if facts["images"] else None,
        model_name=facts["name"] if evaluated else None,
        eval_results=evaluated or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _opening(results: Results, facts: Mapping[str, Any]) -> str:
    images = f", trained on {thousands(results.training_images)} samples" if results.training_images else ""
    steps = f" for {thousands(facts['step'])} steps" if facts["step"] else ""
    return (
        f"A flow-matching model of {facts['dataset']}: {facts['network']} with {thousands(facts['parameters'])} "
        f"parameters{images}{steps}. Weights are the average of training where it kept one. "
        f"Samples have shape {list(results.shape or ())} in {results.space}."
    )


def _table(results: Results) -> Iterator[str]:
    key = quality_key(results)
    rows = [row for group in groups(results) for row in group]
    heads = ["row", "samples", "sampler", "F_mem %", *([quality_label(results)] if key else []), "KPE"]
    yield _line(heads)
    yield _line(["---", "---:", "---", "---:", *(["---:"] if key else []), "---:"])
    places = decimals(metric(row, key) for row in rows) if key else 0
    energy = decimals(metric(row, "kpe_mean") for row in rows)
    for row in rows:
        copies = with_span(metric(row, "f_mem"), metric(row, "f_mem_lo"), metric(row, "f_mem_hi"), share, 1)
        sampler = MISSING if row.kind == "floor" else row.description or row.label
        cells = [_name(row), thousands(row.samples), sampler, copies]
        cells += [number(metric(row, key), places)] if key else []
        yield _line([*cells, MISSING if row.kind == "floor" else number(metric(row, "kpe_mean"), energy)])


def _name(row: Row) -> str:
    return f"{row.of}: {title(row)}" if row.kind == "control" else title(row)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _legend(results: Results) -> str:
    threshold = results.threshold or 1 / 3
    parts = [
        f"F_mem: share of samples whose nearest training sample is closer than {threshold:.3g} times the second nearest, with "
        "its 95% interval. KPE: kinetic path energy per sample."
    ]
    if results.quality and results.quality.reference:
        parts.append(
            f"{quality_label(results)}: against {thousands(results.quality.reference)} real samples; a plug-in estimate, biased "
            "upwards at this number of samples."
        )
    return " ".join(parts)


def _provenance(results: Results, facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"Weights `{facts['identity']}`, as `results.json` and `config.json` name them."
    if results.created:
        yield f"Measured on {results.created[:10]}{f' on {results.hardware}' if results.hardware else ''}."
    if results.versions:
        yield f"Versions: {', '.join(f'{name} {version}' for name, version in results.versions.items())}."
    yield "Licence: " + ("not named by the author." if facts["license"] == "unknown" else f"{facts['license']}.")
