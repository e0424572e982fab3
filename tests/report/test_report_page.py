"""The page: everything is in it, and nothing is outside it."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fm_lightning
from fm_lightning.comparison.results import Results, RowResult
from fm_lightning.phrases import number, share
from fm_lightning.report.curves import gain_curves
from fm_lightning.report.figures import FIGURES
from fm_lightning.report.outcomes import OUTCOMES
from fm_lightning.report.page import render, write_report
from fm_lightning.report.results import title
from fm_lightning.report.style import svg
from fm_lightning.report.words import answer

read = Results.from_dict


@pytest.fixture(scope="module")
def page(make_results, tmp_path_factory):
    results, arrays = make_results("gray")
    run = tmp_path_factory.mktemp("run")
    path = write_report(run, read(results), arrays)
    assert path == run / "report.html"
    assert [file.name for file in run.iterdir()] == ["report.html"]
    return results, path.read_text(encoding="utf-8")


@pytest.fixture
def text_alone(monkeypatch):
    """Pages without figures, which take a second."""
    monkeypatch.setattr("fm_lightning.report.page.FIGURES", ())


def section(text, begin, end):
    return text[text.index(begin) : text.index(end, text.index(begin))]


def test_the_main_table_has_every_row_but_families(page):
    results, text = page
    table = section(text, 'id="table"', "</details>")
    for row in results["rows"]:
        there = f'<th scope="row" title="{row["name"]}:' in table
        assert there == (row["kind"] != "family"), row["name"]
        if there:
            assert title(read(results).row(row["name"])) in html.unescape(table)
            assert f">{share(row['metrics']['f_mem'])}<" in table
            assert f">{number(row['metrics']['fd_raw'], 5)}<" in table
    assert text.count("data:image/svg+xml;base64,") == 9  # the loss over time included
    assert text.count("data:image/png;base64,") == 3


def test_families_are_folded_into_a_table_of_their_own(page):
    results, text = page
    table = html.unescape(section(text, '<details id="families">', "</details>"))
    families = [row for row in results["rows"] if row["kind"] == "family"]
    assert len(families) > 12
    for row in families:
        assert f'title="{row["name"]}:' in table
        assert row["label"] in table
    assert table.count("<tr class=") == len(families) + 2, "and the schedule and its base"


def test_the_first_screen_is_a_sentence_a_figure_and_a_table(page):
    results, text = page
    places = [text.index(part) for part in ("<h1", 'id="frontier"', 'id="answer"', "<details")]
    assert places == sorted(places), "and everything else is folded"
    (verdict,) = results["verdicts"]
    assert answer(read(results)) in html.unescape(section(text, "<h1", "</h1>"))
    table = html.unescape(section(text, 'id="answer"', "</table>"))
    assert f"{share(verdict['base_memorized'])} → {share(verdict['memorized'])}%" in table
    assert f">{OUTCOMES[verdict['outcome']].words}</span>" in table
    assert all(family["family"] in table for family in verdict["families"])


def test_verdicts_are_folded_with_sentences_and_a_paragraph(page):
    results, text = page
    (verdict,) = results["verdicts"]
    found = html.unescape(section(text, 'id="verdicts"', "</details>"))
    assert results["headline"] in found
    assert all(f"<li>{family['sentence']}</li>" in found for family in verdict["families"])
    assert f">{verdict['paragraph']}</pre>" in found


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_has_its_chip_and_its_sentence(make_results, text_alone, outcome):
    results, _ = make_results()
    results["verdicts"][0] |= {"outcome": outcome, "families": [], "claim": "says so"}
    text = render(read(results), {})
    assert f">{OUTCOMES[outcome].words}</span>" in text
    assert "<li>stronger says so</li>" in text, "where no family was tested the claim stands alone"
    assert "stronger" in section(text, "<h1", "</h1>")
    assert "{" not in answer(read(results))


def test_small_numbers_are_not_rounded_away(make_results, text_alone):
    results, _ = make_results()
    results["verdicts"][0] |= {"base_quality": 0.01218, "quality": 0.00987}
    assert "0.0122 → 0.00987" in render(read(results), {})


def test_numbers_carry_the_samples_that_they_were_measured_on(make_results, text_alone):
    results, _ = make_results()
    for row in results["rows"]:
        row["samples"] = {"base": 399, "held_out": 37}.get(row["name"], 400)
    results["samples"] = 1234
    text = render(read(results), {})
    assert "of 399 samples are copies" in text
    assert "<small>N = 37</small>" in text
    assert "399 to 400 per row" in text
    assert "1,234" not in text


def test_facts_are_there(page):
    results, text = page
    assert "The same verdict by other definitions" in text
    assert '<th scope="row">by the kernel distance</th>' in text or results["verdicts"][0]["measure"] == "kernel"
    floor = f"two standard errors of {results['verdicts'][0]['margin']['references']:,} real samples"
    for fact in (results["command"], results["hardware"], "&#34;width&#34;: 64", floor):
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


@pytest.mark.slow
def test_a_name_is_text_in_every_figure(make_results):
    """One name holds what mathematics, HTML, formulas of a spreadsheet and formats would read as theirs."""
    name = "=1+1 $\\\\frac{$ a$b$c \\\\alpha <b> 名前 %s{0}"
    results, arrays = make_results()
    text = json.dumps(results).replace('"stronger', json.dumps(name)[:-1])
    results = json.loads(text)
    arrays = {key.replace("stronger", name): values for key, values in arrays.items()}
    found = Results.from_dict(results)
    assert found.row(name) is not None
    for plate in FIGURES:
        if (figure := plate.draw(found, arrays)) is not None:
            assert svg(figure)
    assert html.escape(name) in render(found, {})


@pytest.mark.parametrize("name", ["$\\\\frac{$", "$x^2$"])
def test_mathematics_in_a_name_is_text(make_results, name):
    """What matplotlib would typeset alone: an even number of dollars around it."""
    results, arrays = make_results()
    renamed = json.loads(json.dumps(results).replace('"stronger', json.dumps(name)[:-1]))
    gains = {key.replace("stronger", name): values for key, values in arrays.items()}
    assert svg(gain_curves(Results.from_dict(renamed), gains))


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


def test_missing_values_are_dashes(make_results, text_alone):
    results, _ = make_results()
    for row in results["rows"]:
        row["metrics"]["kpe_mean"] = float("nan")
    results["config"] = None
    text = render(read(results), {})
    assert text.count("<td>–</td>") >= len(results["rows"])
    assert not re.search(r"\bnan\b|None", text)


def test_the_whole_room_draws_without_torch():
    slow = ("torch", "lightning", "scipy", "matplotlib.pyplot")
    room = Path(fm_lightning.__file__).parent / "report"
    names = [".".join(path.relative_to(room).with_suffix("").parts) for path in sorted(room.rglob("*.py"))]
    every = ", ".join(f"fm_lightning.report.{name}" for name in names if "__init__" not in name)
    code = f"import sys, {every}; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
