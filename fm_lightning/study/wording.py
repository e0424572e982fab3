"""What a study found, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fm_lightning.phrases import MISSING, capital, counted, decimal, joined, thousands, with_span
from fm_lightning.study.times import BEST_LAST, TOO_FEW

Study = Mapping[str, Any]
QUANTITIES = {"kpe": "KPE", "kpe_early": "early KPE", "kpe_late": "late KPE", "loss_gap": "the loss gap"}
TIMES = {"tau_gen": "τ_gen", "tau_mem": "τ_mem", "window": "the window"}


def place(at: Mapping[str, Any], short: Mapping[str, str]) -> str:
    """``n 25, width 64``."""
    return ", ".join(f"{short[axis]} {value}" for axis, value in at.items())


def number(found: Mapping[str, Any] | None, places: int = 2) -> str:
    """``1.07 [0.92, 1.22]``; a dash for none, and no brackets where there is no interval."""
    return MISSING if found is None else with_span(found["value"], found["low"], found["high"], decimal, places)


def steps(found: Mapping[str, Any] | None) -> str:
    """``1,240 [1,100, 1,400]``."""
    if found is None:
        return MISSING
    return with_span(found["value"], found["low"], found["high"], lambda value, _: thousands(value))


def headline(study: Study) -> str:
    """The answer in one sentence: how tau_mem depends on the number of images."""
    passed = sum(run["tau_mem"] is not None for run in study["runs"])
    share = f"{100 * study['share']:g}%"
    begin = f"F_mem passes {share} in {passed} of {counted(len(study['runs']), 'run')}"
    found = [e for e in study["exponents"] if e["of"] == "tau_mem" and e["axis"] == study["images"] and e["exponent"]]
    if not found:
        return f"{begin}."
    said = []
    for entry in found:
        where = f" at {place(entry['at'], study['short'])}" if entry["at"] else ""
        said.append(f"n^{number(entry['exponent'])}{where}")
    return f"{begin}; τ_mem grows as {joined(said)}."


def sentences(study: Study) -> Iterator[str]:
    """The findings, one sentence each."""
    short = study["short"]
    falling = sum(run["tau_gen_note"] == BEST_LAST for run in study["runs"])
    if falling:
        some = counted(falling, "run")
        yield f"In {some} the distance was best at the last validation: τ_gen may move with a longer training."
    early = sum(run["window"] is not None and run["window"] < 1 for run in study["runs"])
    if early:
        some = counted(early, "run")
        yield f"In {some} copies appear before quality is reached (τ_mem < τ_gen): there is no window to stop in."
    for entry in study["collapse"]:
        where = f"At {place(entry['at'], short)}, " if entry["at"] else ""
        if entry["steps"] is not None:
            images = joined(map(thousands, entry["images"]))
            text = (
                f"{where}τ_mem differs by a factor of {decimal(entry['steps'], 1)} over {images} images, and in steps "
                f"per image by {decimal(entry['steps_per_image'], 1)}"
            )
            yield f"{text} ({entry['note']})." if entry["note"] else f"{text}."
    for entry in study["capacity"]:
        where = f" at {place(entry['at'], short)}" if entry["at"] else ""
        if entry["images"] is None:
            yield f"Effective model memorization{where} is {entry['note']}."
        else:
            note = f", {entry['note']}" if entry["note"] else ""
            yield (
                f"The largest number of images with F_mem of {100 * study['share']:g}% or more at the last step of every "
                f"run{where} is {entry['images']}{note}."
            )
    unknown: dict[str, list[str]] = {}  # why, and of which quantities: one sentence for all of them
    for entry in study["announcements"]:
        text, name = announcement(entry), QUANTITIES[entry["quantity"]]
        if text.startswith(f"Whether {name} "):
            unknown.setdefault(text.removeprefix(f"Whether {name} "), []).append(name)
        else:
            yield text
    for why, names in unknown.items():
        yield f"Whether {' or '.join(filter(None, [', '.join(names[:-1]), names[-1]]))} {why}"


def announcement(entry: Mapping[str, Any]) -> str:
    """Whether a quantity announces copying."""
    name = QUANTITIES[entry["quantity"]]
    if not entry["runs"]:
        return f"Whether {name} announces copying is not known: no run that measured it passes."
    short = entry["without"].get(TOO_FEW, 0)
    judged = entry["runs"] - short
    if not judged:
        return (
            f"Whether {name} announces copying cannot be judged: in {counted(short, 'run')} that pass, too few validations "
            "follow τ_gen for a plateau."
        )
    text = f"{name} leaves its plateau before τ_mem in {entry['before_tau_mem']} of {counted(judged, 'run')} that pass"
    if lead := entry["lead"]:
        text += f", by a factor of {number(lead)} in steps"
    if own := entry["lead_over_f_mem"]:
        verdict = _verdict(own)
        text += f"; against F_mem leaving its own plateau the factor is {number(own)}, {verdict}"
    if entry["never_pass"]:
        text += f"; it also leaves it in {entry['departs_without']} of {counted(entry['never_pass'], 'run')} without a τ_mem"
    if entry["without"]:
        text += f" ({joined(f'{why} in {count}' for why, count in entry['without'].items())})"
    return f"{capital(text)}."


def _verdict(own: Mapping[str, Any]) -> str:
    if own["low"] is None:
        return "with no interval"
    if own["low"] > 1:
        return "so it is earlier"
    return "so it is later" if own["high"] < 1 else "which excludes neither"


def exponent_line(entry: Mapping[str, Any], study: Study) -> tuple[str, str, str, str]:
    """(of, axis, at, exponent or why there is none)."""
    where = place(entry["at"], study["short"]) or "all"
    text = number(entry["exponent"])
    return (
        TIMES[entry["of"]],
        study["short"][entry["axis"]],
        where,
        f"{text} ({entry['note']})" if entry["note"] else text,
    )
