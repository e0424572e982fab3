"""What an offline W&B run has written, read back from its files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def records(path: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format (blocks of 32 KiB) around wandb's protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, whole = path.read_bytes(), 7, b""  # seven bytes of wandb's own come first
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # a block's end that holds no header
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # full, or last of several
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def written(folder: Path, seconds: float = 60, still: float = 3) -> list[Path]:
    """The runs' files, once each ends with its run's exit or has stopped growing.

    A process of W&B's own writes them, and on a busy machine it is not done when ``finish`` returns.
    """
    until, sizes, since = time.monotonic() + seconds, {}, time.monotonic()
    while True:
        paths = sorted(folder.rglob("*.wandb"))
        now = {path: path.stat().st_size for path in paths}
        if now != sizes:
            sizes, since = now, time.monotonic()
        kinds = [{record.WhichOneof("record_type") for record in records(path)} for path in paths]
        if paths and all("exit" in found for found in kinds):
            return paths
        if paths and any(kinds) and time.monotonic() - since > still:
            return paths
        assert time.monotonic() < until, f"no .wandb file below {folder}"
        time.sleep(0.1)


def read_wandb(folder: Path) -> dict[str, Any]:
    """``history``: name -> values in order; ``steps``: name -> their ``trainer/global_step``; ``config``; ``summary``; ``files``;
    ``ids`` of the W&B runs.
    """
    import wandb

    wandb.teardown()  # its service resolves relative paths from where it was started, and would outlive this test
    paths = written(folder)
    history, steps, config, summary, files, ids = {}, {}, {}, {}, set(), set()
    for path in paths:
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                row = {}
                for item in record.history.item:
                    *outer, key = item.nested_key or [item.key]
                    (row.setdefault(outer[0], {}) if outer else row)[key] = json.loads(item.value_json)
                for key, value in row.items():
                    history.setdefault(key, []).append(value)
                    steps.setdefault(key, []).append(row.get("trainer/global_step"))
            elif kind == "config" or kind == "run":
                update = record.config.update if kind == "config" else record.run.config.update
                config |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in update}
                if kind == "run":
                    ids.add(record.run.run_id)
            elif kind == "summary":
                summary |= {
                    item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.summary.update
                }
            elif kind == "files":
                files |= {file.path for file in record.files.files}
    return {"history": history, "steps": steps, "config": config, "summary": summary, "files": files, "ids": ids}
