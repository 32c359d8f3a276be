"""Detection, as engine and tools know it."""

from __future__ import annotations

from engine.task.spec import Later, TaskSpec

SPEC = TaskSpec(
    name="detection",
    schema=Later("detection.config:DetectionConfig").load,
    task=Later("detection.task:DetectionTask"),
    inference=Later("detection.inference:DetectionInference"),
    metrics=Later("detection.report.metric_names:metrics_of"),
    inputs=Later("detection.preflight:check_inputs"),
    preflight=Later("detection.preflight:look"),
    packable=Later("detection.preflight:packable"),
    prediction=Later("detection.prediction:DrawnPrediction"),
    exportable=Later("detection.exported:exportable"),
    deployed=Later("detection.inference:DeployedDetector"),
)
