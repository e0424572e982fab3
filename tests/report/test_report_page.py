"""The page: everything is in it, nothing is outside it, and bad input ends in one line."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from fm_lightning.errors import UserError
from fm_lightning.report.curves import gain_curves
from fm_lightning.report.formats import number, share
from fm_lightning.report.page import render, write_report
from fm_lightning.report.results import title


def saved(run, results, arrays):
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    np.savez(run / "arrays.npz", **arrays)
    return run


@pytest.fixture(scope="module")
def page(make_results, tmp_path_factory):
    results, arrays = make_results()
    run = saved(tmp_path_factory.mktemp("run"), results, arrays)
    path = write_report(run)
    assert path == run / "report.html"
    assert sorted(file.name for file in run.iterdir()) == ["arrays.npz", "report.html", "results.json"]
    return results, path.read_text(encoding="utf-8")


def test_every_row_and_number_is_there(page):
    results, text = page
    words = html.unescape(text)
    for row in results["rows"]:
        assert title(row) in words
        assert f'title="{row["name"]}' in words
        assert f">{share(row['metrics']['f_mem'])}<" in text
        assert f">{number(row['metrics']['fd_digits'])}<" in text
    for verdict in results["verdicts"]:
        assert verdict["sentence"] in words
    for fact in ("2 CPU cores", "torch 2.15.0", results["command"], "1 min 11 s", "&#34;width&#34;: 128"):
        assert fact in text
    assert text.count("data:image/svg+xml;base64,") == 8
    assert text.count("data:image/png;base64,") == 3


def test_nothing_outside_is_asked_for(page):
    _, text = page
    assert set(re.findall(r'(?:src|href)="([^":]{0,20})', text)) == {"data"}
    assert not re.search(r"https?://|@import|url\(|<script|<link", text)


def test_special_characters_stay_text(make_results):
    results, arrays = make_results()
    evil = "<img src=x onerror=\"alert(1)\"> & 'quotes' $x_{1} %s {{ 7*7 }}"
    old = results["rows"][3]["name"]
    for row in results["rows"]:
        row["of"] = evil if row["of"] == old else row["of"]
    results["rows"][3].update(name=evil, label=evil, description=evil)
    results["verdicts"][0].update(schedule=evil, sentence=evil)
    results.update(name=evil, hardware=evil, config={evil: evil})
    text = render(results, {"power/base": arrays["power/base"]})
    drawn = {key.replace(old, evil): value for key, value in arrays.items() if key.startswith(("gain", "times"))}
    assert gain_curves(results, drawn) is not None
    assert "<img src=x" not in text
    assert html.escape(evil).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text


@pytest.mark.parametrize("kind", ["rgb", "toy"])
def test_other_data(make_results, kind):
    results, arrays = make_results(kind, controlled=())
    text = render(results, {key: value for key, value in arrays.items() if "/base" in key or "training" in key})
    assert "nothing here can be called an improvement" in text
    assert ("Samples over the training points" in text) == (kind == "toy")


def test_the_least_that_can_be_shown():
    text = render({"schema": 1, "rows": [{"name": "base", "kind": "base", "metrics": {"f_mem": None}}]}, {})
    assert "No shaped schedule was compared" in text
    assert "None" not in text
    assert "nan" not in text


def test_missing_values_are_dashes(make_results):
    results, _ = make_results()
    for row in results["rows"]:
        row["metrics"]["kpe_mean"] = float("nan")
    text = render(results, {})
    assert text.count("<td>–</td>") >= len(results["rows"])
    assert not re.search(r"\bnan\b|None", text)


def bad_runs(run, results, arrays):
    """``name, what is wrong with the directory, what the line must say``."""
    whole = json.dumps(results)
    yield "no results", lambda: (run / "results.json").unlink(), "there is no"
    yield "truncated", lambda: (run / "results.json").write_text(whole[: len(whole) // 2]), "truncated"
    yield "not text", lambda: (run / "results.json").write_bytes(b"\xff\xfe\x00"), "truncated or no JSON"
    yield "foreign", lambda: (run / "results.json").write_text('{"accuracy": 1}'), "from somewhere else"
    yield "a list", lambda: (run / "results.json").write_text("[]"), "from somewhere else"
    yield "newer", lambda: (run / "results.json").write_text(json.dumps(results | {"schema": 2})), "schema 2"
    yield "no rows", lambda: (run / "results.json").write_text(json.dumps(results | {"rows": []})), "no rows"
    odd = results | {"rows": [{"name": "a", "kind": "b", "metrics": {}}]}
    yield "odd kind", lambda: (run / "results.json").write_text(json.dumps(odd)), "of kind 'b'"
    yield "no arrays", lambda: (run / "arrays.npz").unlink(), "arrays.npz"
    yield "half arrays", lambda: os.truncate(run / "arrays.npz", 5000), "truncated or no .npz"
    yield "text arrays", lambda: (run / "arrays.npz").write_text("hello"), "truncated or no .npz"

    def objects():
        with zipfile.ZipFile(run / "arrays.npz", "w") as file, file.open("kpe/base.npy", "w") as part:
            np.save(part, np.array([{}], dtype=object), allow_pickle=True)

    yield "pickles", objects, "truncated or no .npz"


def test_bad_input_is_one_line_that_says_what_to_type(make_results, tmp_path):
    results, arrays = make_results()
    arrays = {key: value for key, value in arrays.items() if key.startswith("kpe/")}
    for wrong, spoil, says in bad_runs(saved(tmp_path, results, arrays), results, arrays):
        saved(tmp_path, results, arrays)
        (tmp_path / "report.html").write_text("the old page")
        spoil()
        with pytest.raises(UserError) as caught:
            write_report(tmp_path)
        line = str(caught.value)
        assert says in line, wrong
        assert "fm-lightning test -c" in line, wrong
        assert "\n" not in line
        assert (tmp_path / "report.html").read_text() == "the old page"


def test_a_directory_that_is_none(tmp_path):
    with pytest.raises(UserError, match="there is no directory"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, expected a run directory"):
        write_report(tmp_path / "file")


def test_starts_without_torch():
    slow = ("torch", "lightning", "scipy", "matplotlib.pyplot")
    code = f"import sys, fm_lightning.report.page; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
