"""Optimizer state divided over ranks: each keeps, and steps with, its own part of it.

Every rank has all parameters and, after the reduction, all gradients. In a step each advances the parameters that it
owns, and sends them to the others of its group. The arithmetic of a parameter is what it always is, so the weights are
bit for bit those of a run whose ranks keep everything. A checkpoint is that of such a run too: the parts are brought
together on rank 0 when it is saved, and each rank takes its own from the whole when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from engine.checkpoints.host_copy import tensors_in
from engine.config.optimization import OptimizerConfig, undivided
from engine.config.training import FinetuneConfig
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.training.optimizer import advances_each_by_itself, build_optimizer

GROUP = 8
"""Most ranks that share one state, neighbours on a node as a rule. All that more could save is the last of Adam's eight
bytes a parameter, and every step would wait for other nodes."""
BUCKET_BYTES = 1 << 25
"""About what is sent at once."""


def shard(optimizer: Optimizer, config: OptimizerConfig, timeout: timedelta, ranks: Ranks) -> ShardedState | None:
    """Divides the state of a run's optimizer over its ranks; None for a single one.

    Args:
        optimizer: made from ``config``; it has made no step yet.
        timeout: longest wait for another rank of the group.

    Raises:
        UserError: the optimizer's steps of the parameters depend on each other, which only this device has shown.
    """
    build = partial(build_optimizer, config=config, finetune=FinetuneConfig())
    if not advances_each_by_itself(build, ranks.device):
        raise UserError(f"training.shard: {undivided(config.name)}")
    if ranks.world_size == 1:
        return None
    return ShardedState(optimizer, ranks, timeout)


class ShardedState:
    """Divides the state of ``optimizer`` over groups of at most ``most`` ranks; every rank makes one at the same time.

    See :func:`shard`, which also finds out whether the optimizer advances each parameter by itself.
    """

    def __init__(self, optimizer: Optimizer, ranks: Ranks, timeout: timedelta, most: int = GROUP) -> None:
        self._optimizer, self._device = optimizer, ranks.device
        bounds = group_bounds(ranks.world_size, most)
        members = [range(first, end) for first, end in pairwise(bounds)]
        self._rank = ranks.rank
        self._group: Any = None  # all ranks
        self._members = next(group for group in members if ranks.rank in group)
        if len(members) > 1:
            groups = [dist.new_group(list(group), timeout=timeout) for group in members]  # on all ranks alike
            self._group = groups[members.index(self._members)]
        self._owners: dict[Tensor, int] = {}
        self._load = dict.fromkeys(self._members, 0)
        self.assign()
        optimizer.register_step_pre_hook(self._keep_own)
        optimizer.register_step_post_hook(self._share)

    def assign(self) -> None:
        """Gives each parameter that is new in the optimizer to the rank that has the least so far.

        State that the optimizer has made in advance for what others own is thrown away.
        """
        fresh = [p for group in self._optimizer.param_groups for p in group["params"] if p not in self._owners]
        for parameter in sorted(fresh, key=Tensor.numel, reverse=True):  # stable, so all ranks agree
            owner = min(self._members, key=self._load.__getitem__)
            self._owners[parameter] = owner
            self._load[owner] += parameter.numel()
        for parameter, owner in self._owners.items():
            if owner != self._rank:
                self._optimizer.state.pop(parameter, None)

    def own_part(self, saved: dict[str, Any], model: nn.Module) -> dict[str, Any]:
        """Returns what this rank keeps of a whole state, see :func:`engine.training.optimizer.named_state`."""
        mine = {name for name, p in model.named_parameters() if self._owners.get(p) == self._rank}
        return {**saved, "state": {name: entry for name, entry in saved["state"].items() if name in mine}}

    def gather(self, part: dict[str, Any]) -> dict[str, Any]:
        """Returns on rank 0 the whole state, what others have owned on the CPU; on other ranks nothing of use.

        To be called on every rank at the same time.

        Args:
            part: this rank's, see :func:`engine.training.optimizer.named_state`.
        """
        if 0 not in self._members:
            return part
        state: dict[str, dict[str, Any]] = {}
        place = "cpu" if self._rank == 0 else "meta"  # where what is received is kept, or is not
        for owner in self._members:
            found = self._alike(part["state"], owner, place)
            self._send(list(tensors_in(found)), owner)
            state.update(found)
        names = [name for group in part["groups"] for name in group["params"]]
        return {**part, "state": {name: state[name] for name in names if name in state}}

    def _alike(self, state: dict[str, Any], owner: int, place: str) -> dict[str, Any]:
        """Returns on the owner its ``state``; on others one of the same entries, its tensors empty."""
        tensors = {name: {k: v for k, v in entry.items() if isinstance(v, Tensor)} for name, entry in state.items()}
        forms = {name: {k: (v.dtype, v.shape) for k, v in entry.items()} for name, entry in tensors.items()}
        plain = {name: {k: v for k, v in state[name].items() if k not in tensors[name]} for name in state}
        sent: list[Any] = [(forms, plain)]
        dist.broadcast_object_list(sent, src=owner, group=self._group, device=self._device)
        forms, plain = sent[0]
        if owner != self._rank:
            tensors = {
                name: {k: torch.empty(shape, dtype=kind, device=place) for k, (kind, shape) in entry.items()}
                for name, entry in forms.items()
            }
        return {name: {**tensors[name], **plain[name]} for name in tensors}

    def _keep_own(self, *_: Any) -> None:
        """Drops gradients of what others own before a step, so that the optimizer makes no state for it."""
        for parameter, owner in self._owners.items():
            if owner != self._rank:
                parameter.grad = None

    @torch.no_grad()
    def _share(self, *_: Any) -> None:
        """Sends, after a step, each rank's parameters to the others of its group."""
        owned: dict[int, list[Tensor]] = {owner: [] for owner in self._members}
        for parameter, owner in self._owners.items():
            owned[owner].append(parameter)
        for owner, parameters in owned.items():
            self._send(parameters, owner)

    def _send(self, tensors: Sequence[Tensor], owner: int) -> None:
        """Copies the owner's tensors into those of the others, which have the same types and shapes."""
        for bucket in _buckets(tensors):
            sizes = [tensor.numel() for tensor in bucket]
            if owner == self._rank:
                flat = torch.cat([tensor.detach().reshape(-1).to(self._device) for tensor in bucket])
            else:
                flat = torch.empty(sum(sizes), dtype=bucket[0].dtype, device=self._device)
            dist.broadcast(flat, src=owner, group=self._group)
            if owner != self._rank:
                for tensor, values in zip(bucket, flat.split(sizes), strict=True):
                    tensor.copy_(values.view(tensor.shape))


def group_bounds(world_size: int, most: int) -> list[int]:
    """Returns where groups of neighbouring ranks begin, and ``world_size``; their sizes differ by one at most."""
    groups = math.ceil(world_size / most)
    return [number * world_size // groups for number in range(groups + 1)]


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Cuts tensors into lists of one type and about :data:`BUCKET_BYTES`, or of one tensor."""
    alike = sorted(tensors, key=lambda tensor: str(tensor.dtype))
    ends = accumulate(tensor.nbytes for tensor in alike)
    buckets = groupby(zip(alike, ends, strict=True), lambda item: (item[0].dtype, item[1] // BUCKET_BYTES))
    return ([tensor for tensor, _ in bucket] for _, bucket in buckets)
