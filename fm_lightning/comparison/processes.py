"""What several processes need to act as one: which one this is, what the first one found, what all of them found.

``torchrun`` and Lightning both set up ``torch.distributed``; a script without either is one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from fm_lightning.errors import UserError

T = TypeVar("T")


def process() -> tuple[int, int]:
    """This process's number and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def first_process_result(call: Callable[[], T]) -> T:
    """What ``call`` returns on process 0, on all processes; a UserError there is raised on all of them."""
    rank, world = process()
    if world == 1:
        return call()
    result: list[Any] = [None, None]
    if rank == 0:
        try:
            result = [call(), None]
        except UserError as error:
            result = [None, error]
    dist.broadcast_object_list(result)
    if result[1] is not None:
        raise result[1]
    return result[0]


def all_results(mine: T) -> list[T]:
    """The value of every process, in their order."""
    _, world = process()
    found: list[Any] = [mine] * world
    if world > 1:
        dist.all_gather_object(found, mine)
    return found
