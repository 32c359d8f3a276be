"""Process groups on one card: NCCL's with one rank, and gloo's with two that share it."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from classification.spec import SPEC
from engine.commands.build import assemble_trainer
from engine.config.run import DistributedConfig
from engine.config.training import TrainingConfig
from engine.devices.kinds import device_kind
from engine.distributed.connect import choose_device
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.model.wrap import wrap_model
from engine.training.trainer import Trainer
from tests.gpu.findings import Findings
from tests.gpu.models import losses, swin_config, swin_trainer
from tests.gpu.runs import configure, experiment, run
from tools.bench.step import build
from tools.chaos.compare import checkpoint_differences, records_difference

GROUP_OF_ONE = Layout(rank=0, world_size=2, local_world_size=1, launcher="torchrun")
"""Rank 0 of two, so that models are wrapped and numbers are summed, whose group knows of itself alone."""


def group_of_one(findings: Findings) -> None:
    """A trainer on the device's own backend: wrapped by DDP, with gradients that are the bare model's."""
    device = choose_device(DistributedConfig(), Layout())
    kind = device_kind(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(kind.backend, store=dist.HashStore(), rank=0, world_size=1)
    ranks = Ranks(GROUP_OF_ONE, device, kind.backend)
    findings.figure("backend", kind.backend)
    for precision in ("fp32", "bf16"):
        with findings.part(precision):
            bare = swin_trainer(findings, f"training.precision={precision}", "training.deterministic=true")
            _compare(findings, precision, bare, ranks)
    with findings.part("steps"):
        config = swin_config(
            findings, "training.precision=bf16", f"training.micro_batch_size={1 if findings.small else 8}"
        )
        bare = build(SPEC, config)
        trainer = assemble_trainer(bare.task, bare.layout, config, ranks)
        network = trainer.learner.network
        findings.check(
            isinstance(network, DistributedDataParallel), f"the trainer's network is a {type(network).__name__}"
        )
        findings.figure("loss", losses(trainer, trainer.batches(), 10)[-1])
    with findings.part("collectives"):
        findings.check(float(ranks.sum_(torch.full((1,), 3.0, device=device))) == 3.0, "a sum is wrong")
        dist.broadcast_object_list(sent := [{"step": 7}], src=0, device=device)
        findings.check(sent == [{"step": 7}], "an object came back as another")
    dist.destroy_process_group()


def _compare(findings: Findings, name: str, bare: Trainer, ranks: Ranks) -> None:
    """One pass of the bare model and of a wrapped copy, on one batch."""
    wrapped = wrap_model(deepcopy(bare.task.model), TrainingConfig(), ranks)
    findings.check(isinstance(wrapped, DistributedDataParallel), f"{name}: wrapped as a {type(wrapped).__name__}")
    batch = bare.batches().next().data

    def gradients(network: nn.Module) -> list[torch.Tensor]:
        with bare.learner.precision.autocast():
            loss = bare.task.training_step(network, batch)["loss"]
        loss.backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    pairs = list(zip(gradients(wrapped), gradients(bare.task.model), strict=True))
    error = max(float((one - other).norm() / other.norm().clamp_min(1e-12)) for one, other in pairs)
    findings.figure(f"{name} error", error)
    findings.check(error < (1e-4 if name == "fp32" else 0.05), f"{name}: DDP's gradients are off by {error:.1e}")


def two_ranks(findings: Findings) -> None:
    """20 steps of two ranks; the same with one killed (SIGKILL) at step 11, and resumed: the same bits."""
    with tempfile.TemporaryDirectory() as name:
        config = configure(Path(name), findings)
        for number, (fault, arguments, codes) in enumerate(
            (
                ("", [], [0, 0]),
                ("kill 1 11", [], [1, -9]),
                ("", ["--resume", str(experiment(config, 2).path)], [0, 0]),
            )
        ):
            ended = run(config, 2, fault, *arguments)
            if [end.returncode for end in ended] != codes:
                print(*(end.output for end in ended), sep="\n")
            findings.check(
                [end.returncode for end in ended] == codes, f"start {number}: exit codes of {ended[0].returncode}"
            )
            findings.check(findings.small or "on cuda:0" in ended[0].output, f"start {number}: not on the card")
        reference, resumed = experiment(config), experiment(config, 2)
        differences = {name: text for name, text in checkpoint_differences(reference, resumed).items() if text}
        losses_differ = records_difference(reference.metrics, resumed.metrics, "train")
    findings.figure("resumed", "other bits" if differences or losses_differ else "same bits")
    findings.check(not differences, f"checkpoints differ: {differences}")
    findings.check(losses_differ is None, f"training losses differ: {losses_differ}")
