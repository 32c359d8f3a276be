# %% [markdown]
# # Experiments in pandas
#
# Three rates with two seeds each, as rows of one table.

# %%
from pathlib import Path

Path("run.yaml").write_text("""
model: {name: swin, patch_size: 2, window_size: 4, embed_dim: 12, depths: [1, 1], num_heads: [2, 2]}
data: {source: digits, image_size: 16, workers: 0}
training: {steps: 24, global_batch_size: 48}
evaluation: {every_steps: 12}
logging: {every_steps: 6}
""")
for rate in ("1e-4", "2e-3", "8e-3"):
    for seed in (0, 1):
        name = f"lr_{rate}"
        # !python -m classification.train --config run.yaml optimizer.lr={rate} experiment.seed={seed} experiment.name={name} 2>&1 | grep -o "finished.*"

# %%
import pandas as pd

from engine.run_folder.experiments import read_experiments

runs = pd.DataFrame(read_experiments("experiments"))
runs[["experiment", "name", "state", "optimizer.lr", "experiment.seed", "best.top1", "best.loss"]]

# %%
runs.groupby("name")["best.top1"].agg(["mean", "min", "max", "count"]).sort_values("mean").round(3)

# %% [markdown]
# ## Curves
#
# `metrics.jsonl` is a record a line.

# %%
from matplotlib import pyplot as plt

figure, axis = plt.subplots(figsize=(6, 3))
for path in sorted(Path("experiments").glob("experiment_*")):
    records = pd.read_json(path / "metrics.jsonl", lines=True)
    train = records[records["split"] == "train"]
    axis.plot(train["step"], train["loss"], label=path.name)
axis.set(xlabel="step", ylabel="loss")
axis.legend(fontsize=7)
plt.show()
