"""The terminal table at every width, and the CSV against the numbers it was written from."""

from __future__ import annotations

import csv
import io
import math

import pytest
from rich.console import Console

from fm_lightning.report.formats import ascii_only, decimals, number, share, signed, true_minus
from fm_lightning.report.results import control_type, groups, title
from fm_lightning.report.table import print_table, write_csv
from fm_lightning.report.words import headline, scope


def printed(results, width, **how):
    into = io.StringIO()
    print_table(results, Console(file=into, width=width, **how))
    return into.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120, 140, 160, 200])
def test_no_line_is_too_long_and_no_number_is_cut(make_results, width):
    results, _ = make_results()
    text = printed(results, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    for row in results["rows"]:
        (line,) = [line for line in text.splitlines() if line.strip().startswith(title(row) + "  ")][:1] or [""]
        assert share(row["metrics"]["f_mem"]) in line or row["kind"] == "control"
        assert number(row["metrics"]["fd_digits"]) in line or row["kind"] == "control"
    assert "[-6.2, -4.2]" in text  # the paired interval survives every width
    for verdict in results["verdicts"]:
        assert " ".join(verdict["sentence"].split()) in " ".join(text.split())


def test_says_what_a_narrow_terminal_leaves_out(make_results):
    results, _ = make_results()
    assert "Left out at 80 columns" in printed(results, 80)
    assert "Left out" not in printed(results, 240)
    for word in ("KPE", "early", "late", "excess", "NFE", "N = 2"):
        assert word in printed(results, 240)


def test_plain_without_a_terminal(make_results, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    results, _ = make_results()
    print_table(results)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[62.9, 67.1]" in out


def test_a_terminal_without_unicode_gets_ascii(make_results):
    class Latin(io.StringIO):
        encoding = "ascii"

    results, _ = make_results()
    into = Latin()
    print_table(results, Console(file=into, width=200))
    assert "alpha=0.01" in into.getvalue()
    assert into.getvalue().replace("─", "").isascii()


def test_missing_values_are_dashes(make_results):
    results, _ = make_results()
    for row in results["rows"][1:]:
        row["metrics"] = dict.fromkeys(row["metrics"], math.nan) | {"f_mem": None}
        row["vs_base"] = {"f_mem": [None, None, None], "fd_digits": None}
    text = printed(results, 160)
    assert "–" in text
    assert "nan" not in text.lower()
    assert "none" not in text.lower()


@pytest.mark.parametrize("width", [80, 160])
def test_one_row_and_nothing_else(make_results, width):
    results, _ = make_results()
    bare = {"schema": 1, "rows": [{"name": "base", "kind": "base", "metrics": {}}]}
    assert "base" in printed(bare, width)
    no_quality = results | {"quality": None}
    assert "Fréchet" not in printed(no_quality, width).split("Left out")[0]


def test_csv_holds_every_row_and_every_number(make_results, tmp_path):
    results, _ = make_results()
    results["rows"][1]["label"] = 'a "quoted", label\nof two lines'
    results["rows"][1]["metrics"]["kpe_std"] = math.inf
    path = write_csv(results, tmp_path / "results.csv")
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


def test_groups_keep_controls_with_their_schedule(make_results):
    results, _ = make_results()
    for group in groups(results):
        assert {row["of"] for row in group[1:] if row["kind"] == "control"} <= {group[0]["name"]}
    assert sum(map(len, groups(results))) == len(results["rows"])
    assert control_type({"name": "noise/true_clock", "kind": "control"}) == "true_clock"
    assert control_type({"name": "mine", "kind": "control"}) is None


def test_headline_claims_only_what_no_control_explains(make_results):
    results, _ = make_results()
    assert "explained" in headline(results)
    assert "landing" in scope(results)
    first = results["verdicts"][0]
    first.update(explained_by=[], trades=[])
    assert headline(results).startswith("balanced does what none of the matched controls does")
    first.update(trades=["balanced/noise"])
    assert "No schedule beats all of its controls" in headline(results)
    results["verdicts"] = []
    assert "nothing here can be called an improvement" in headline(results)


def test_numbers_for_people():
    assert decimals([26.26, 1.0]) == 2
    assert decimals([0.00123]) == 6
    assert decimals([123456.0]) == 0
    assert decimals([None, math.nan]) == 2
    assert signed(-0.0001, 2) == "0.00"
    assert signed(0.394, 2) == "+0.39"
    assert true_minus("-5.2 [-6.3, -4.4] true-clock 1-2") == "−5.2 [−6.3, −4.4] true-clock 1-2"
    assert ascii_only("Fréchet Δ α σ=0.1 – 2\u202f000") == "Frechet d alpha sigma=0.1 - 2 000"
