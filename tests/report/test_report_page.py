"""The page: everything is in it, and nothing is outside it."""

from __future__ import annotations

import html
import re
import subprocess
import sys

import pytest

from fm_lightning.comparison.results import Results, RowResult
from fm_lightning.report.curves import gain_curves
from fm_lightning.report.formats import number, share
from fm_lightning.report.page import render, write_report
from fm_lightning.report.results import title
from fm_lightning.report.words import OUTCOMES

read = Results.from_dict


@pytest.fixture(scope="module")
def page(make_results, tmp_path_factory):
    results, arrays = make_results("gray")
    run = tmp_path_factory.mktemp("run")
    path = write_report(run, read(results), arrays)
    assert path == run / "report.html"
    assert [file.name for file in run.iterdir()] == ["report.html"]
    return results, path.read_text(encoding="utf-8")


def section(text, begin, end):
    return text[text.index(begin) : text.index(end, text.index(begin))]


def test_the_main_table_has_every_row_but_families(page):
    results, text = page
    table = section(text, 'id="table"', 'id="families"')
    for row in results["rows"]:
        there = f'<th scope="row" title="{row["name"]}:' in table
        assert there == (row["kind"] != "family"), row["name"]
        if there:
            assert title(read(results).row(row["name"])) in html.unescape(table)
            assert f">{share(row['metrics']['f_mem'])}<" in table
            assert f">{number(row['metrics']['fd_raw'], 5)}<" in table
    assert text.count("data:image/svg+xml;base64,") == 8
    assert text.count("data:image/png;base64,") == 3


def test_families_are_folded_into_a_table_of_their_own(page):
    results, text = page
    table = html.unescape(section(text, '<details id="families">', "What the words mean"))
    families = [row for row in results["rows"] if row["kind"] == "family"]
    assert len(families) > 12
    for row in families:
        assert f'title="{row["name"]}:' in table
        assert row["label"] in table
    assert table.count("<tr class=") == len(families) + 2, "and the schedule and its base"


def test_the_frontier_comes_first_then_the_sentences_then_the_table(page):
    results, text = page
    places = [text.index(part) for part in ("<h1", 'id="frontier"', 'id="verdicts"', 'id="table"', 'id="change"')]
    assert places == sorted(places)
    words = html.unescape(text)
    (verdict,) = results["verdicts"]
    assert results["headline"] in section(words, "<h1", "</h1>")
    said = section(words, 'id="verdicts"', "</section>")
    for family in verdict["families"]:
        assert f"<li>{family['sentence']}</li>" in said
    assert f">{verdict['paragraph']}</pre></details>" in said
    assert f">{OUTCOMES[verdict['outcome']]}</span>" in said


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_has_its_chip(make_results, outcome):
    results, _ = make_results()
    results["verdicts"][0] |= {"outcome": outcome, "families": [], "claim": "says so"}
    text = render(read(results), {})
    assert f">{OUTCOMES[outcome]}</span>" in text
    assert "<li>stronger says so</li>" in text, "where no family was tested the claim stands alone"
    assert f'<dd class="value">{int(outcome == "better")} of 1</dd>' in text


def test_numbers_carry_the_samples_that_they_were_measured_on(make_results):
    results, _ = make_results()
    for row in results["rows"]:
        row["samples"] = {"base": 399, "held_out": 37}.get(row["name"], 400)
    results["samples"] = 1234
    text = render(read(results), {})
    assert "plain sampling, N = 399" in text
    assert "<small>N = 37</small>" in text
    assert "399 to 400 per row" in text
    assert "1\u202f234" not in text


def test_facts_are_there(page):
    results, text = page
    for fact in (results["command"], results["hardware"], "&#34;width&#34;: 64", "at least two standard errors"):
        assert fact in text


def test_nothing_outside_is_asked_for(page):
    _, text = page
    assert set(re.findall(r'(?:src|href)="([^":]{0,20})', text)) == {"data"}
    assert not re.search(r"https?://|@import|url\(|<script|<link", text)


def test_special_characters_stay_text(make_results):
    results, arrays = make_results()
    evil = "<img src=x onerror=\"alert(1)\"> & 'quotes' $x_{1} %s {{ 7*7 }}"
    for row in results["rows"]:
        row["of"] = evil if row["of"] == "stronger" else row["of"]
        if row["name"] == "stronger":
            row.update(name=evil, label=evil, description=evil)
    results["judged"][evil] = results["judged"].pop("stronger")
    results["verdicts"][0].update(schedule=evil, paragraph=evil, claim=evil)
    results["verdicts"][0]["families"][0]["sentence"] = evil
    results.update(name=evil, hardware=evil, headline=evil, config={evil: evil})
    text = render(read(results), {"power/base": arrays["power/base"]})
    drawn = {key.replace("stronger", evil): arrays[key] for key in ("gain/stronger", "times/stronger")}
    assert gain_curves(read(results), drawn) is not None
    assert "<img src=x" not in text
    assert html.escape(evil).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text


def test_points_are_drawn_over_the_training_points(make_results):
    results, arrays = make_results()
    text = render(read(results), {key: value for key, value in arrays.items() if "/base" in key or "training" in key})
    assert "Samples over the training points" in text


def test_the_least_that_can_be_shown():
    text = render(Results((RowResult("base", "base", metrics={"f_mem": None}),)), {})
    assert "No shaped schedule was compared" in text
    assert 'id="verdicts"' not in text
    assert 'id="families"' not in text
    assert "None" not in text
    assert "nan" not in text


def test_missing_values_are_dashes(make_results):
    results, _ = make_results()
    for row in results["rows"]:
        row["metrics"]["kpe_mean"] = float("nan")
    results["config"] = None
    text = render(read(results), {})
    assert text.count("<td>–</td>") >= len(results["rows"])
    assert not re.search(r"\bnan\b|None", text)


def test_starts_without_torch():
    slow = ("torch", "lightning", "scipy", "matplotlib.pyplot")
    code = f"import sys, fm_lightning.report.page; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
