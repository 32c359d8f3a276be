"""A task from outside: everything that engine and tools know of it."""

from __future__ import annotations

from engine.task.spec import Later, TaskSpec

SPEC = TaskSpec(
    name="tests.toy_task",
    schema=Later("tests.toy_task.config:CurveConfig").load,
    task=Later("tests.toy_task.task:CurveTask"),
    inference=Later("tests.toy_task.task:CurveInference"),
    metrics=Later("tests.toy_task.config:metrics_of"),
    preflight=Later("tests.toy_task.config:look"),
)
