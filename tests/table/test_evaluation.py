"""The evaluation table: any order of rows, seeds and measures gives the same table."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fm_lightning.cli.endings import unwritable
from fm_lightning.errors import UserError
from fm_lightning.table.blocks import Block, missing
from fm_lightning.table.evaluation import FOLDER, Evaluation, find_parts
from fm_lightning.table.manifest import Manifest
from fm_lightning.table.parts import LINES, Part, _write_array
from fm_lightning.table.writer import BaseSamples, Writer
from fm_lightning.trajectory import Trajectory

IDENTITY = {"weights": "a" * 32, "base_seed": 0}
FIRST = 100
ROWS = {"base": "k0", "kts": "k1", "long": "k2", "twin": "k1"}
STEPS = {"k0": 4, "k1": 4, "k2": 9}


def trajectory(key: str, seeds: range) -> Trajectory:
    """Numbers that depend on row and seed alone."""
    n, steps = len(seeds), STEPS[key]
    seed = torch.tensor(list(seeds))
    x1 = (seed[:, None] * torch.tensor([0.25, -0.5]) + int(key[1])).float()
    energy = (seed % 7 + 1.0)[None] * torch.arange(1.0, steps + 1)[:, None] / 16 + int(key[1])
    displacement = seed.float() / 8
    edges = torch.arange(steps + 1, dtype=torch.float64) / steps
    return Trajectory(
        x1, energy, displacement * 2, displacement, edges, edges[:-1], steps * (1 + int(key[1])), None, seed[:n]
    )


def measured(measure: str, t: Trajectory) -> dict[str, np.ndarray]:
    assert t.seeds is not None
    if measure == "near-1":
        return {"d1": (t.x1[:, 0] * 2).numpy(), "nearest": (t.seeds % 5).numpy()}
    return {"features": torch.cat([t.x1, t.x1 + 1], 1).numpy()}


def command(
    run: Path, rows: list[str], count: int, size: int, measures: list[str], keep: bool, stop: int | None = None
) -> int:
    """What one command does, ended after ``stop`` blocks. Returns how many (row, seed) it sampled."""
    writer = Writer(run, 0.6)
    writer.claim.take()
    table = writer.open(IDENTITY, say=lambda line: None)
    keys = {name: ROWS[name] for name in rows}
    table.manifest.rows = {name: {"key": key, "kind": "schedule"} for name, key in keys.items()}
    table.manifest.measures = dict(m.split("-") for m in measures)
    table.manifest.seeds = (FIRST, count)
    table.manifest.write(writer.folder / "manifest.json")
    sampled = 0
    for block in missing(table.parts, keys, range(FIRST, FIRST + count), size, measures)[:stop]:
        if block.part is not None:
            part = block.part
            for measure in measures:
                if not part.has(measure):
                    seeds = range(part.first, part.last + 1)
                    writer.add(part, {measure: {k: measured(measure, trajectory(k, seeds)) for k in part.keys}})
            continue
        seeds = range(block.first, block.last + 1)
        made = {name: trajectory(keys[name], seeds) for name in block.rows}
        base = BaseSamples(np.array(seeds), trajectory("k0", seeds).x1.numpy())
        found = {m: {name: measured(m, t) for name, t in made.items()} for m in measures}
        writer.write(block, keys, made, base, list(block.rows) if keep else [], found)
        sampled += block.size * len(block.rows)
    writer.claim.release()
    return sampled


def content(run: Path, rows: list[str], measures: list[str]) -> dict:
    """Everything that a reader can see of the table."""
    table = Evaluation.open(run)
    out = {}
    for row in rows:
        lines = table.lines(row)
        out[row] = {c: lines[c].to_numpy() for c in lines.columns if c not in ("row", "label")}
        out[row] |= {"energy": table.energy(row), "nfe": table.nfe(row)}
        for measure in measures:
            out[row] |= {f"{measure}/{c}": v for c, v in table.columns(row, measure.split("-")[0]).items()}
    return out


def same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for row in a:
        assert a[row].keys() == b[row].keys()
        for column in a[row]:
            np.testing.assert_array_equal(a[row][column], b[row][column], err_msg=f"{row} {column}")


ASKED = st.fixed_dictionaries(
    {
        "rows": st.lists(st.sampled_from(list(ROWS)), min_size=1, unique=True),
        "count": st.integers(1, 13),
        "size": st.integers(1, 6),
        "measures": st.lists(st.sampled_from(["near-1", "far-2"]), unique=True),
        "keep": st.booleans(),
        "stop": st.none() | st.integers(0, 3),
    }
)


ONE: dict = {"rows": ["base"], "count": 1, "size": 1, "measures": [], "keep": False, "stop": None}


@settings(max_examples=10, deadline=None)
@given(asked=st.lists(ASKED, max_size=4), size=st.integers(1, 6))
@example(
    asked=[ONE, ONE | {"count": 4, "keep": True}], size=4
)  # seed 0 is sampled again into the place of its first part
def test_rows_seeds_and_measures_in_any_order_give_one_table(tmp_path_factory, asked, size):
    run, fresh = tmp_path_factory.mktemp("grown"), tmp_path_factory.mktemp("fresh")
    for each in asked:
        command(run, **each)
    rows, measures = list(ROWS), ["near-1", "far-2"]
    command(run, rows, 13, size, measures, keep=True)
    assert command(run, rows, 13, 5, measures, keep=True) == 0, "nothing is missing"
    command(fresh, rows, 13, 13, measures, keep=True)
    same(content(run, rows, measures), content(fresh, rows, measures))


def test_only_what_is_missing_is_sampled(tmp_path):
    assert command(tmp_path, ["base", "kts"], 10, 4, ["near-1"], keep=True) == 20
    assert command(tmp_path, ["base", "kts"], 10, 4, ["near-1"], keep=True) == 0
    assert command(tmp_path, ["base", "kts", "twin"], 10, 4, ["near-1"], keep=True) == 0, "two names of one schedule"
    assert command(tmp_path, ["base", "kts", "long"], 10, 4, ["near-1"], keep=True) == 10, "one more row"
    assert command(tmp_path, ["base", "kts", "long"], 13, 4, ["near-1"], keep=True) == 9, "three more seeds"
    assert command(tmp_path, ["base", "kts", "long"], 13, 4, ["near-1", "far-2"], keep=True) == 0, "from kept samples"


def test_a_measure_added_where_no_samples_were_kept_samples_again(tmp_path):
    command(tmp_path, ["base"], 10, 4, ["near-1"], keep=False)
    assert command(tmp_path, ["base"], 10, 4, ["near-1", "far-2"], keep=False) == 10
    assert len(Evaluation.open(tmp_path).lines("base")) == 10, "each seed once"


def test_columns_are_documented_and_parquet_opens_elsewhere(tmp_path):
    command(tmp_path, ["base"], 3, 4, [], keep=False)
    (part,) = Evaluation.open(tmp_path).parts
    assert set(pq.read_table(part.path / "lines.parquet").column_names) == set(LINES)
    lines = Evaluation.open(tmp_path).lines("base")
    np.testing.assert_allclose(lines.early + lines.late, lines.kpe, rtol=1e-6)
    np.testing.assert_allclose(lines.kpe - lines.displacement, lines.excess, rtol=1e-6)
    np.testing.assert_allclose(Evaluation.open(tmp_path).energy("base").sum(1), lines.kpe, rtol=1e-6)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "lines cut": lambda part: cut(part / "lines.parquet"),
    "lines empty": lambda part: (part / "lines.parquet").write_bytes(b""),
    "lines gone": lambda part: (part / "lines.parquet").unlink(),
    "energy cut": lambda part: cut(part / "energy.npy"),
    "energy gone": lambda part: (part / "energy.npy").unlink(),
    "samples cut": lambda part: cut(part / "samples.npy"),
    "measure cut": lambda part: cut(part / "near-1.parquet"),
    "features cut": lambda part: cut(part / "far-2.features.npy"),
    "features of others": lambda part: np.save(part / "far-2.features.npy", np.zeros((3, 4))),
    "text": lambda part: (part / "lines.parquet").write_text("no table"),
    "another table": lambda part: pq.write_table(pq.read_table(part / "near-1.parquet"), part / "lines.parquet"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_torn_part_is_named_and_sampled_again(tmp_path, kind):
    measures = ["near-1", "far-2"]
    command(tmp_path, ["base", "kts"], 10, 4, measures, keep=True)
    whole = content(tmp_path, ["base", "kts"], measures)
    part = Evaluation.open(tmp_path).parts[1].path
    DAMAGE[kind](part)
    _, torn = find_parts(tmp_path / FOLDER)
    assert [t.path for t, _ in torn] == [part]
    said: list[str] = []
    writer = Writer(tmp_path, 0.6)
    writer.open(IDENTITY, say=said.append)
    assert len(said) == 1
    assert part.name in said[0]
    assert command(tmp_path, ["base", "kts"], 10, 4, measures, keep=True) == 8
    same(content(tmp_path, ["base", "kts"], measures), whole)


def test_another_identity_is_refused_by_what_differs(tmp_path):
    command(tmp_path, ["base"], 3, 4, [], keep=False)
    with pytest.raises(UserError, match=r"other base seed \(0 there, 1 here\).*Use another folder, or delete"):
        Writer(tmp_path, 0.6).open(IDENTITY | {"base_seed": 1})
    with pytest.raises(UserError, match="precision"):
        Writer(tmp_path, 0.6).open(IDENTITY | {"precision": "bf16"})


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 99, "identity": {}}', '{"identity": 3}'])
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    command(tmp_path, ["base"], 3, 4, [], keep=False)
    (tmp_path / FOLDER / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest.json"):
        Evaluation.open(tmp_path)
    (tmp_path / FOLDER / "manifest.json").unlink()
    with pytest.raises(UserError, match="no manifest"):
        Writer(tmp_path, 0.6).open(IDENTITY)


def test_of_two_processes_with_one_block_the_first_counts(tmp_path):
    for _ in range(2):
        writer = Writer(tmp_path, 0.6)
        seeds = range(FIRST, FIRST + 3)
        writer.write(Block(FIRST, FIRST + 2, ("base",)), ROWS, {"base": trajectory("k0", seeds)}, None, [], {})
    assert len(list((tmp_path / FOLDER / "parts").iterdir())) == 1


def test_a_disk_that_takes_no_more_loses_nothing(tmp_path):
    """A limit on the size of files, as a real full disk, lets part of a file be written and then no more."""
    command(tmp_path, ["base"], 10, 4, ["far-2"], keep=True, stop=2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            command(tmp_path, ["base"], 10, 4, ["far-2"], keep=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Cannot write" in unwritable(raised.value)
    assert [p.name for p in (tmp_path / FOLDER / "parts").iterdir() if p.name.startswith(".")] == []
    assert len(Evaluation.open(tmp_path).lines("base")) == 8
    assert command(tmp_path, ["base"], 10, 4, ["far-2"], keep=True) == 2


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (3, 5), (2, 0, 3)])
def test_arrays_come_back(tmp_path, shape):
    for dtype in (np.float16, np.float32, np.int64):
        array = np.asfortranarray(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype))
        _write_array(tmp_path / "a.npy", array)
        found = np.load(tmp_path / "a.npy")
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, array)
        if shape:
            _write_array(tmp_path / "b.npy", array, array[:1], array[:0])
            np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), np.concatenate([array, array[:1]]))


def test_rows_that_nobody_knows(tmp_path):
    command(tmp_path, ["base"], 3, 4, [], keep=False)
    with pytest.raises(UserError, match=r"There is no row 'ktss'\. Use one of base"):
        Evaluation.open(tmp_path).lines("ktss")
    with pytest.raises(UserError, match="holds no evaluation"):
        Evaluation.open(tmp_path / "elsewhere")


def test_a_manifest_comes_back(tmp_path):
    manifest = Manifest(
        identity=IDENTITY, rows={"base": {"key": "k"}}, seeds=(5, 6), chosen={"k": {"noise": [[0.0, 0.1]]}}
    )
    manifest.write(tmp_path / "manifest.json")
    assert Manifest.read(tmp_path / "manifest.json") == manifest
    assert Part(tmp_path / "000000005-000000010-abc").last == 10
