"""A reference divided among real processes (gloo) gives bitwise what one process finds, and fails in all alike."""

from __future__ import annotations

import json
import multiprocessing
import re

import pytest
import sharded_process
import torch

from fm_lightning.errors import UserError
from fm_lightning.metrics import MemorizationRate, ShardedReference, nearest

CASES = [(case[0], case[1]) for case in sharded_process.cases()]


def test_one_process_needs_no_group():
    rows = torch.randn(50, 2)
    got = nearest(rows[:7], ShardedReference(rows, strided=True), 3)
    for a, b in zip(got, nearest(rows[:7], rows, 3)):
        assert torch.equal(a, b)
    with pytest.raises(UserError, match="k=51"):
        nearest(rows, ShardedReference(rows), 51)


def test_near_duplicates_need_the_whole_reference():
    with pytest.raises(UserError, match="find_groups"):
        MemorizationRate(ShardedReference(torch.randn(5, 2)), leave_out_duplicates=0.3)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of three processes found."""
    folder = tmp_path_factory.mktemp("sharded")
    fork = multiprocessing.get_context("fork")  # importing torch again takes longer than all the rest
    processes = [fork.Process(target=sharded_process.run, args=(r, folder)) for r in range(sharded_process.RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    ended = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert ended == [0, 0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(sharded_process.RANKS)]


@pytest.mark.parametrize(("name", "ranks"), CASES)
def test_every_process_gets_the_answer_of_the_whole(found, name, ranks):
    assert [each["equal"][name] for each in found[:ranks]] == [True] * ranks


def test_what_one_process_cannot_do_is_refused_in_all(found):
    for name in found[0]["refused"]:
        lines = {each["refused"][name] for each in found}
        assert len(lines) == 1, lines
        line = lines.pop()
        assert re.search(name, line), line
        assert "\n" not in line


def test_memorization_with_unequal_batches(found):
    for each in found:
        divided, kept = each["memorization"]
        assert divided == kept
        assert 0 < float(kept["f_mem"]) < 1


def test_equal_rows_and_fingerprint_do_not_depend_on_the_division(found):
    assert [each["content"] for each in found] == [[True] * 6] * 3


def test_metrics_gather_their_lines_also_from_a_process_without_samples(found):
    for each in found:
        assert len(each["gathered"]) == 3
        for name, (lines, numbers) in each["gathered"].items():
            assert len(lines) >= 2
            assert all(lines), name
            assert numbers, name
