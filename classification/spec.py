"""Classification, as engine and tools know it."""

from __future__ import annotations

from engine.task.spec import Later, TaskSpec

SPEC = TaskSpec(
    name="classification",
    schema=Later("classification.config:ClassificationConfig").load,
    task=Later("classification.task:ClassificationTask"),
    inference=Later("classification.inference:ClassificationInference"),
    metrics=Later("classification.preflight:metrics_of"),
    inputs=Later("classification.preflight:check_inputs"),
    preflight=Later("classification.preflight:look"),
    packable=Later("classification.preflight:packable"),
    prediction=Later("classification.prediction:TablePrediction"),
    exportable=Later("classification.exported:exportable"),
    deployed=Later("classification.inference:DeployedClassifier"),
)
