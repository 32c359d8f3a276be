"""The stages of ``make test-gpu``, the most telling first."""

from __future__ import annotations

from tests.gpu.runner import Stage

STAGES = (
    Stage("environment", "tests.gpu.machine:environment", 60),
    Stage("attention", "tests.gpu.attention:attention", 60),
    Stage("group_of_one", "tests.gpu.groups:group_of_one", 60),
    Stage("swin", "tests.gpu.steps:swin", 90),
    Stage("resnet", "tests.gpu.steps:resnet", 90),
    Stage("ssd", "tests.gpu.steps:ssd", 90),
    Stage("diffusion", "tests.gpu.steps:diffusion", 90),
    Stage("sampling", "tests.gpu.sampling:sampling", 60),
    Stage("two_ranks", "tests.gpu.groups:two_ranks", 150),
    Stage("hang", "tests.gpu.failures:hang", 110),
    Stage("device_assert", "tests.gpu.failures:device_assert", 110),
    Stage("infinity", "tests.gpu.steps:infinity", 60),
    Stage("variants", "tests.gpu.steps:variants", 60),
    Stage("deterministic", "tests.gpu.steps:deterministic", 120),
    Stage("copies", "tests.gpu.machine:copies", 60),
    Stage("waits", "tests.gpu.waits:waits", 90),
    Stage("throughput", "tests.gpu.speed:throughput", 90, alone=True),
    Stage("suppression", "tests.gpu.speed:suppression", 60, alone=True),
    Stage("checkpoint", "tests.gpu.speed:checkpoint", 60, alone=True),
    Stage("compile", "tests.gpu.speed:compiled", 150, alone=True),
)
