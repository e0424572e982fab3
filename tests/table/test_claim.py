"""One command at a time writes into a folder, and a dead one holds nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fm_lightning.errors import UserError
from fm_lightning.table.claim import RUNNING, SILENT, Claim, Owner, _machine

HERE = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
GONE = 2**22 + 1  # no process has this number


def leave(folder: Path, **changes: object) -> Path:
    """A claim that an earlier process left."""
    folder.mkdir(exist_ok=True)
    owner = replace(Owner.this_process(), **{"pid": GONE, "started": "1", **changes})
    path = folder / RUNNING
    path.write_text(json.dumps(asdict(owner)))
    return path


FORTY = """
import os, sys, time
from fm_lightning.errors import UserError
from fm_lightning.table.claim import Claim

def take(folder, begin):
    time.sleep(max(0.0, begin - time.time()))
    try:
        Claim(folder).take()
    except UserError:
        return 0
    time.sleep(1)  # longer than the others try
    return 1

for folder in sys.argv[1:]:
    begin, taken = time.time() + 0.2, 0
    children = []
    for _ in range(40):
        if not (child := os.fork()):
            os._exit(take(folder, begin))
        children.append(child)
    print(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_of_forty_processes_one_takes_it(tmp_path):
    folders = []
    for kind in ("new", "stale", "half removed"):
        folders.append(folder := tmp_path / kind)
        if kind != "new":
            token = json.loads(leave(folder).read_text())["token"]
        if kind == "half removed":  # by a process that was killed while it removed the stale claim
            removing = replace(Owner.this_process(), pid=GONE)
            (folder / f".{RUNNING}.{token}.tmp").write_text(json.dumps(asdict(removing)))
    said = subprocess.run(
        [sys.executable, "-c", FORTY, *map(str, folders)], stdout=subprocess.PIPE, text=True, env=HERE, check=True
    )
    assert said.stdout.split() == ["1"] * len(folders)


def test_a_killed_process_holds_nothing(tmp_path):
    other = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from fm_lightning.table.claim import Claim; Claim(sys.argv[1]).take(); "
            "print('claimed', flush=True); time.sleep(60)",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=HERE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "claimed\n"
    with pytest.raises(UserError, match=rf"Another command \(process {other.pid} on .* is writing to {tmp_path}"):
        Claim(tmp_path).take()
    other.kill()  # not reaped yet: listed, but dead
    until = time.monotonic() + 10
    while True:
        try:
            Claim(tmp_path).take()
            break
        except UserError:
            assert time.monotonic() < until
            time.sleep(0.02)
    Claim(tmp_path).release()
    other.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_process_may_claim_twice_and_the_last_release_counts(tmp_path):
    claim = Claim(tmp_path)
    claim.take()
    Claim(tmp_path).take()
    claim.release()
    assert (tmp_path / RUNNING).exists()
    claim.release()
    claim.release()
    assert not (tmp_path / RUNNING).exists()


def test_another_machine_is_trusted_until_it_falls_silent(tmp_path):
    path = leave(tmp_path, machine="elsewhere/1/2", host="elsewhere", pid=os.getpid())
    with pytest.raises(UserError, match="on elsewhere"):
        Claim(tmp_path).take()
    old = time.time() - SILENT - 1
    os.utime(path, (old, old))
    Claim(tmp_path).take()
    assert json.loads(path.read_text())["machine"] == _machine()
    Claim(tmp_path).release()


def test_a_claim_that_cannot_be_read_counts_until_it_is_old(tmp_path):
    path = tmp_path / RUNNING
    path.write_bytes(b"\xff{")
    with pytest.raises(UserError, match="is writing"):
        Claim(tmp_path).take()
    os.utime(path, (0, 0))
    Claim(tmp_path).take()
    Claim(tmp_path).release()


def test_who_was_silent_for_too_long_is_stopped(tmp_path):
    claim = Claim(tmp_path)
    claim.take()
    claim.check()
    leave(tmp_path)
    with pytest.raises(UserError, match="has taken over"):
        claim.check()
    claim.release()
    assert (tmp_path / RUNNING).exists(), "it is the other command's"
    Claim(tmp_path).check()
