"""The processes that share one training, one a device, and what they tell each other.

Each batch is dealt among them, so `training.batch_size` stays the number of images a step on any
number of devices. On GPUs batch normalisation looks at all shares together and a training gives
the same weights but for the last bits; on CPUs each process normalises its own share.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.distributed import FileStore  # type: ignore[attr-defined]  # not in its list of names

BACKENDS = {"cpu": "gloo", "gpu": "nccl"}


@dataclass(frozen=True)
class Processes:
    """How many processes share a training, and which of them this is.

    Args:
        rank: of this one, from 0; the first writes and tells.
        count: of all.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def of(cls, count: int) -> "Processes":
        """As whoever started this one has told it, in the variable that Lightning reads too."""
        return cls(int(os.environ.get("LOCAL_RANK", "0")) if count > 1 else 0, count)

    @property
    def first(self) -> bool:
        """Whether this one writes and tells."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Which of n things are this one's.

        >>> [list(range(5))[Processes(rank, 2).share(5)] for rank in (0, 1)]
        [[0, 2, 4], [1, 3]]
        """
        return slice(self.rank, n, self.count)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes of each value."""
        if self.count == 1:
            return values
        told = values.clone()
        torch.distributed.all_reduce(told)
        return told / self.count

    def whole(self, part: Tensor, n: int) -> Tensor:
        """What all hold of n things, each put where `share` took it from."""
        if self.count == 1:
            return part
        told = torch.zeros(n, dtype=part.dtype, device=part.device)
        told[self.share(n)] = part
        torch.distributed.all_reduce(told)
        return told

    def all_rows(self, rows: NDArray[np.int64]) -> list[int]:
        """The rows of all processes."""
        if self.count == 1:
            return [int(row) for row in rows]
        told: list[list[int]] = [[] for _ in range(self.count)]
        torch.distributed.all_gather_object(told, rows.tolist())
        return sorted(row for part in told for row in part)

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, src=0)


class Together(DDPStrategy):
    """Lightning's DDP, whose processes find each other through a file, not an agreed port.

    Args:
        meeting: a file that is not there before the first process comes.
        processes: how many, and which is this.
        accelerator: `cpu` or `gpu`.
    """

    def __init__(self, meeting: Path, processes: Processes, accelerator: str) -> None:
        super().__init__(process_group_backend=BACKENDS[accelerator])
        self._meeting = meeting
        self._processes = processes

    def setup_distributed(self) -> None:
        """Meet the others, then let Lightning go on with the group that it finds."""
        loopback = "lo0" if sys.platform == "darwin" else "lo"  # they are all on this machine
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)
        torch.distributed.init_process_group(
            self._process_group_backend,
            store=FileStore(str(self._meeting), self._processes.count),
            rank=self._processes.rank,
            world_size=self._processes.count,
            device_id=self.root_device if self.root_device.type == "cuda" else None,
        )
        super().setup_distributed()
