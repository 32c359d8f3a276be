"""Diffusion, as engine and tools know it."""

from __future__ import annotations

from engine.task.spec import Later, TaskSpec

SPEC = TaskSpec(
    name="diffusion",
    schema=Later("diffusion.config:DiffusionConfig").load,
    task=Later("diffusion.task:DiffusionTask"),
    inference=Later("diffusion.inference:DiffusionInference"),
    metrics=Later("diffusion.preflight:metrics_of"),
    inputs=Later("diffusion.preflight:check_inputs"),
    preflight=Later("diffusion.preflight:look"),
    packable=Later("diffusion.preflight:packable"),
    exportable=Later("diffusion.process.exported:exportable"),
)
