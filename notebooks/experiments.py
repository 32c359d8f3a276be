# %% [markdown]
# # Experiments in pandas
#
# Several short runs, read as one table: what differs in their configurations, how they went, and whether a difference
# is more than chance. It trains six tiny models on the handwritten digits that come with scikit-learn, for a minute or
# two on a laptop's CPU, and downloads nothing.
#
# *With experiments of your own*, leave out the first section and name the folder that holds them.

# %%
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from engine.run_folder import read_experiments

plt.style.use("tableau-colorblind10")
os.chdir(tempfile.mkdtemp())  # everything is made there; leave this out to work where you are


def run(*arguments: str) -> str:
    """Does what `python …` does in a shell, and returns its output; what else it says is shown only if it fails."""
    print(shlex.join(["python", *arguments]))
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])
    return ended.stdout


# %% [markdown]
# ## Three learning rates, two seeds each
#
# A small ResNet; `key.path=value` on the command line wins over the file. On a cluster,
# `python -m tools.submit --task classification --config digits.yaml --sweep optimizer.lr=3e-4,1e-3,3e-3 --seeds 2`
# queues such runs.

# %%
Path("digits.yaml").write_text("""\
experiment: {root: runs}
model: {name: timm/test_resnet}
data: {source: digits, image_size: 32, workers: 0}
augmentation: {random_resized_crop: null, horizontal_flip: 0.0, shift: 2}
schedule: {name: cosine, warmup_epochs: 1}
training: {epochs: 5, global_batch_size: 32, precision: fp32}
evaluation: {batch_size: 120}
logging: {every_steps: 11}
""")
for rate in ("3e-4", "1e-3", "3e-3"):
    for seed in (0, 1):
        settings = [f"experiment.name=lr {rate}", f"optimizer.lr={rate}", f"experiment.seed={seed}"]
        run("-m", "classification.train", "--config", "digits.yaml", *settings)

# %% [markdown]
# ## One row an experiment
#
# `read_experiments` reads any number of folders, whatever state they are in. Each is a flat row: state, facts, best and
# last results, and every setting by its dotted key.

# %%
frame = pd.DataFrame(read_experiments("runs"))
frame[["experiment", "name", "state", "epoch", "best.top1", "last.top1"]].round(4)

# %% [markdown]
# Settings are called by their section and key; these are the ones in which the runs differ.

# %%
sections = ("experiment.", "model.", "data.", "augmentation.", "loss.", "optimizer.", "schedule.", "training.")
settings = frame.set_index("experiment").filter(regex=f"^({'|'.join(sections)})")
settings.loc[:, settings.astype(str).nunique() > 1]

# %% [markdown]
# ## Mean and spread
#
# Two seeds give a first idea of what chance does; five would give a better one.

# %%
summary = frame.groupby("optimizer.lr")["best.top1"].agg(["mean", "min", "max", "count"])
summary.round(4)

# %% [markdown]
# ## Curves
#
# `metrics.jsonl` has one record a line: step, epoch, split, and the values. The line is the mean of both seeds, the
# band reaches from the lower to the higher.

# %%
records = pd.concat(
    pd.read_json(f"runs/{row['experiment']}/metrics.jsonl", lines=True).assign(rate=row["optimizer.lr"])
    for _, row in frame.iterrows()
)
looks = [("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-.")]
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for axis, split, metric, label in [
    (axes[0], "train", "loss", "loss in training"),
    (axes[1], "val", "top1", "held-out images that are right"),
]:
    own = records[records["split"] == split]
    for (rate, group), (colour, style) in zip(own.groupby("rate"), looks, strict=True):
        by_epoch = group.groupby("epoch")[metric].agg(["mean", "min", "max"])
        axis.plot(by_epoch.index, by_epoch["mean"], style, color=colour, label=f"lr {rate:g}")
        axis.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.2)
    axis.set(xlabel="epoch", ylabel=label, ylim=(0, None))
axes[1].yaxis.set_major_formatter("{x:.0%}")
axes[1].legend(loc="lower right")
figure.suptitle("Mean of two seeds, and both of them", fontsize=11)
plt.show()

# %% [markdown]
# ## The same in a shell
#
# `tools.compare` finds what differs by itself, writes tables, curves and a page without a server, and says whether
# three or more seeds differ by more than chance would make: [docs/comparing.md](../docs/comparing.md).

# %%
run("-m", "tools.compare", "runs", "--csv", "runs.csv")
pd.read_csv("runs.csv")[["experiment", "optimizer.lr", "experiment.seed", "best.top1"]].round(4)
