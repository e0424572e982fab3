"""The terminal table at every width, and the CSV against the numbers it was written from."""

from __future__ import annotations

import csv
import io
import math

import pytest
from rich.console import Console

from fm_lightning.comparison.results import Results
from fm_lightning.phrases import ascii_only, decimals, number, share, signed, true_minus
from fm_lightning.report.outcomes import OUTCOMES
from fm_lightning.report.results import groups, title
from fm_lightning.report.table import print_table, write_csv
from fm_lightning.report.words import headline, scope
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.qualities import read_qualities

read = Results.from_dict


def printed(results, width, **how):
    into = io.StringIO()
    print_table(read(results), Console(file=into, width=width, **how))
    return into.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_line_is_too_long_and_no_number_is_cut(make_results, width):
    results, _ = make_results()
    text = printed(results, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    table, found = text[: text.index(results["headline"][:20])].splitlines(), read(results)
    for row in results["rows"]:
        lines = [line for line in table if line.strip().startswith(title(found.row(row["name"])) + "  ")]
        assert bool(lines) == (row["kind"] != "family"), "families have a table of their own"
        if lines:
            assert share(row["metrics"]["f_mem"]) in lines[0]
            assert number(row["metrics"]["fd_raw"], 5) in lines[0]
    lo, hi = (signed(100 * end, 1) for end in results["rows"][1]["vs_base"]["f_mem"][1:])
    assert f"[{lo}, {hi}]" in text, "the paired interval survives every width"


def test_the_headline_then_a_sentence_for_each_family_indented(make_results):
    results, _ = make_results()
    lines = printed(results, 400).splitlines()
    at = lines.index(results["headline"])
    (verdict,) = results["verdicts"]
    assert lines[at + 1].startswith(f"  stronger: {OUTCOMES[verdict['outcome']].words}  against base, 400 paired seeds")
    assert [line.rstrip() for line in lines[at + 2 :]] == [
        f"    {family['sentence']}" for family in verdict["families"]
    ]


def test_says_what_a_narrow_terminal_leaves_out(make_results):
    results, _ = make_results()
    assert "Left out at 80 columns" in printed(results, 80)
    assert "Left out" not in printed(results, 240)
    for word in ("KPE", "early", "late", "excess", "NFE", "N = 400"):
        assert word in printed(results, 240)


def test_plain_without_a_terminal(make_results, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    results, _ = make_results()
    print_table(read(results))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert results["headline"] in " ".join(out.split())


def test_a_terminal_without_unicode_gets_ascii(make_results):
    class Latin(io.StringIO):
        encoding = "ascii"

    results, _ = make_results()
    into = Latin()
    print_table(read(results), Console(file=into, width=200))
    assert "alpha=0.02" in into.getvalue()
    assert into.getvalue().replace("─", "").isascii()


def test_missing_values_are_dashes(make_results):
    results, _ = make_results()
    for row in results["rows"][1:]:
        row["metrics"] = dict.fromkeys(row["metrics"], math.nan) | {"f_mem": None}
        row["vs_base"] = {"f_mem": [None, None, None]}
    text = printed(results, 160)
    assert "–" in text
    assert "nan" not in text.lower()
    assert "none" not in text.lower()


@pytest.mark.parametrize("width", [80, 160])
def test_one_row_and_nothing_else(make_results, width):
    results, _ = make_results()
    bare = {"rows": [{"name": "base", "kind": "base", "metrics": {}}]}
    assert "base" in printed(bare, width)
    no_quality = results | {"quality": None}
    assert "Fréchet" not in printed(no_quality, width).split("Left out")[0]


def test_csv_holds_every_row_and_every_number(make_results, tmp_path):
    results, _ = make_results()
    results["rows"][1]["label"] = 'a "quoted", label\nof two lines'
    results["rows"][1]["metrics"]["kpe_std"] = math.inf
    path = write_csv(read(results), tmp_path / "results.csv")
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == [row["name"] for row in results["rows"]]
    for line, row in zip(lines, results["rows"]):
        assert line["label"] == row["label"]
        for name, value in row["metrics"].items():
            if value is None or not math.isfinite(value):
                assert line[name] == ""
            else:
                assert float(line[name]) == value
        for against in ("vs_base", "vs_parent"):
            for name, parts in (row[against] or {}).items():
                assert [float(line[f"{name}_{against}{end}"]) for end in ("", "_lo", "_hi")] == parts
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x"])
def test_no_name_is_a_formula_in_a_spreadsheet(make_results, tmp_path, name):
    results, _ = make_results()
    results["rows"][1]["name"] = name
    with write_csv(read(results), tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        assert [line["name"] for line in csv.DictReader(file)][1] == f"'{name}"


def test_groups_keep_the_control_with_its_schedule(make_results):
    results, _ = make_results()
    found = groups(read(results))
    assert ["stronger", "stronger.true_clock"] in [[row.name for row in group] for group in found]
    shown = [row for row in results["rows"] if row["kind"] != "family"]
    assert sum(map(len, found)) == len(shown) < len(results["rows"])


def test_the_headline_is_the_results_own_or_says_why_there_is_none(make_results):
    results, _ = make_results()
    assert headline(read(results)) == results["headline"]
    assert scope(read(results)).endswith("Compared, but not judged: launch.")
    results |= {"headline": None, "verdicts": []}
    assert headline(read(results)).startswith("No schedule was judged")
    assert "not judged" not in scope(read(results))
    for row in results["rows"]:
        del row["metrics"]["f_mem"]
    assert headline(read(results)).startswith("Copies were not measured")
    assert scope(read(results)) == ""
    results["quality"] = None
    assert headline(read(results)).startswith("Neither copies nor quality were measured")
    results["rows"] = results["rows"][:1]
    assert headline(read(results)) == "No shaped schedule was compared."


def test_numbers_for_people():
    assert decimals([26.26, 1.0]) == 2
    assert decimals([0.00123]) == 6
    assert decimals([123456.0]) == 0
    assert decimals([None, math.nan]) == 2
    assert signed(-0.0001, 2) == "0.00"
    assert signed(0.394, 2) == "+0.39"
    assert true_minus("-5.2 [-6.3, -4.4] true-clock 1-2") == "−5.2 [−6.3, −4.4] true-clock 1-2"
    assert ascii_only("Fréchet Δ α σ=0.1 – 2\u202f000") == "Frechet d alpha sigma=0.1 - 2 000"


def test_no_margin_goes_below_what_real_data_show(measured, folder):
    verdict, references = measured[0]["verdicts"][0], measured[0]["quality"]["unseen"]
    held_out = read_qualities(Evaluation.open(folder / "runs" / "tiny"), "held_out")[verdict["measure"]][1]
    floor = 2 * held_out.influence.std(ddof=1) / references**0.5
    asked = 0.02 * verdict["base_quality"]
    assert verdict["margin"]["quality"] == pytest.approx(max(floor, asked))
    assert verdict["margin"]["floor"] == pytest.approx(floor)
    assert floor > 0
