# %% [markdown]
# # Fine-tuning on your own pictures
#
# From folders of pictures to a model that you can ask: this notebook fine-tunes a small model, reads the report of its
# evaluation, and has it name new pictures. It takes a minute or two on a laptop's CPU and downloads nothing.
#
# So that it runs as it is, it makes its pictures out of the handwritten digits that come with scikit-learn. *With
# pictures of your own*, leave out the first two sections, set `data.root` to the folder that holds `train` and `val`,
# and `finetune.weights` to a file of published weights or to an earlier experiment.

# %%
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown
from PIL import Image as Pillow
from sklearn.datasets import load_digits

from classification import load_classifier

plt.style.use("tableau-colorblind10")
os.chdir(tempfile.mkdtemp())  # everything is made there; leave this out to work where you are


def run(*arguments: str) -> None:
    """Does what `python …` does in a shell; shows what it says only if it fails."""
    print(shlex.join(["python", *arguments]))
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])


# %% [markdown]
# ## Pictures in folders, one a class
#
# Black digits from 0 to 9 play the large data set on which somebody has trained before. "Your own" are 5 to 9 in ink
# on coloured paper: five pictures a class to train on, fifty to measure with, and one that nobody has labelled.

# %%
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
digits = load_digits()
random = np.random.default_rng(0)


def write(folder: str, digit: int, which: slice, coloured: bool) -> None:
    """Writes some pictures of a digit as PNG files of 32 x 32 pixels: black on white, or ink on coloured paper."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(digits.images[digits.target == digit][which]):
        grey = Pillow.fromarray((image * 255 / 16).astype(np.uint8)).resize((32, 32), Pillow.Resampling.BICUBIC)
        drawn = np.asarray(grey)[..., None] / 255
        paper, ink = (random.uniform(170, 255, 3), random.uniform(0, 110, 3)) if coloured else (255, 0)
        pixels = (paper * (1 - drawn) + ink * drawn) * np.ones(3)
        file = f"{folder}/{NAMES[digit]}_{number:03d}.png"
        Pillow.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)


for digit, name in enumerate(NAMES):
    write(f"pictures/known/train/{name}", digit, slice(0, 80), coloured=False)
    write(f"pictures/known/val/{name}", digit, slice(80, 100), coloured=False)
for digit, name in enumerate(NAMES[5:], start=5):
    write(f"pictures/mine/train/{name}", digit, slice(100, 105), coloured=True)
    write(f"pictures/mine/val/{name}", digit, slice(105, 155), coloured=True)
    write("pictures/new", digit, slice(-1, None), coloured=True)

shown = [file for name in NAMES[5:] for file in sorted(Path(f"pictures/mine/train/{name}").iterdir())[:2]]
figure, axes = plt.subplots(1, 10, figsize=(6.5, 1.1), layout="constrained")
for axis, file in zip(axes, shown, strict=True):
    axis.imshow(Pillow.open(file))
    axis.set_title(file.parent.name, fontsize=9)
    axis.axis("off")
figure.suptitle("Two of the five training pictures of each class", fontsize=10)
plt.show()

# %% [markdown]
# ## A model that knows something
#
# One YAML file is one run; [docs/configuration.md](../docs/configuration.md) has every key. A small
# [ResNet](https://arxiv.org/abs/1512.03385) learns the black digits; `swin_tiny` and any model of timm are trained by
# the same lines, but this one is quick on a CPU. A run leaves everything that it knows in a numbered folder below
# `runs`.

# %%
Path("known.yaml").write_text("""\
experiment: {name: known digits, root: runs}
model: {name: timm/resnet10t}
data: {source: folder, root: pictures/known, image_size: 32, workers: 0}
augmentation: {random_resized_crop: null, horizontal_flip: 0.0, shift: 2}
optimizer: {lr: 2e-3}
schedule: {name: cosine, warmup_epochs: 1}
training: {epochs: 6, global_batch_size: 30, precision: fp32}
evaluation: {batch_size: 125}
logging: {every_steps: 5}
""")
run("-m", "classification.train", "--config", "known.yaml")

best = json.loads(Path("runs/experiment_0001/status.json").read_text())["best"]
print(f"{best['top1']:.0%} of the held-out black digits are right")

# %% [markdown]
# ## Fine-tuning, stage by stage
#
# `base` takes over the settings of the file before. `finetune.weights` starts from that run: all but the last layer,
# which has other classes now. `unfreeze` trains the new head alone at first, then the last stage with it, then
# everything, so that the gradients of a head that knows nothing do not spoil what lies below
# ([Howard and Ruder, 2018](https://arxiv.org/abs/1801.06146)); `backbone_lr_scale` lets what lies below change more
# slowly than the head.

# %%
Path("mine.yaml").write_text("""\
base: known.yaml
experiment: {name: fine-tuned}
data: {root: pictures/mine}
finetune:
  weights: runs/experiment_0001
  unfreeze: {0: head, 3: stage_4, 6: all}
  backbone_lr_scale: 0.3
training: {epochs: 12, global_batch_size: 5}
""")
run("-m", "classification.train", "--config", "mine.yaml")

# %% [markdown]
# The same pictures without what was learnt before, for comparison. The command line wins over the file, and
# `finetune={}` sets the whole section back.

# %%
run("-m", "classification.train", "--config", "mine.yaml", "experiment.name=from nothing", "finetune={}")

# %% [markdown]
# ## How it went
#
# `metrics.jsonl` has one record a line, which pandas reads. Twenty-five pictures teach little from nothing. What was
# learnt on similar pictures before carries over, the better the more alike they are.

# %%
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
for number, name, marker in [(2, "fine-tuned", "o"), (3, "from nothing", "s")]:
    records = pd.read_json(f"runs/experiment_{number:04d}/metrics.jsonl", lines=True)
    val = records[records["split"] == "val"]
    axis.plot(val["epoch"], val["top1"], marker=marker, label=name)
for epoch, trained in [(0, "head"), (3, "head and stage 4"), (6, "all")]:
    axis.axvline(epoch, color="0.75", linestyle=":")
    axis.text(epoch + 0.1, 1.02, trained, fontsize=8, color="0.35")
axis.set(xlabel="epoch", ylabel="held-out pictures that are right", xlim=(0, 12.2), ylim=(0, 1.1))
axis.set_title("Five pictures a class; above: what the fine-tuned run trains", fontsize=10)
axis.yaxis.set_major_formatter("{x:.0%}")
axis.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## The report
#
# `evaluate` measures the best checkpoint on all of val and leaves a report in `results/val`: `report.md` to read,
# every number as JSON and CSV, and figures. The report begins with this table.

# %%
run("-m", "classification.evaluate", "--experiment", "runs/experiment_0002")

results = Path("runs/experiment_0002/results/val")
Markdown("\n\n".join((results / "report.md").read_text().split("\n\n")[1:3]))

# %% [markdown]
# Rows are what the pictures show, columns what the model says: what lies off the diagonal is mistaken.

# %%
Image(results / "confusion_matrix.png", width=480)

# %% [markdown]
# The mistakes of which it is surest: hard pictures, or wrong labels. With pictures of your own, look here first.

# %%
Image(results / "worst_mistakes.png", width=640)

# %% [markdown]
# Is it right as often as it says? On the dashed line it would be
# ([Guo et al., 2017](https://arxiv.org/abs/1706.04599)), above it is right more often. `ece` in the table is the mean
# distance from that line.

# %%
Image(results / "reliability.png", width=420)

# %% [markdown]
# ## New pictures
#
# A trained model is a function of a list of paths, arrays or Pillow images. In a shell,
# `python -m classification.predict --experiment runs/experiment_0002 --images pictures/new --output prediction.csv`
# does the same.

# %%
classifier = load_classifier("runs/experiment_0002", device="cpu")
files = sorted(Path("pictures/new").iterdir())

figure, axes = plt.subplots(1, 5, figsize=(7, 1.8), layout="constrained")
for axis, file, answer in zip(axes, files, classifier(files), strict=True):
    (said,) = answer.classes
    axis.imshow(Pillow.open(file))
    axis.set_title(f"{said}, {answer.probabilities[said]:.0%}", fontsize=10)
    axis.axis("off")
figure.suptitle("What the model says of pictures that it has not seen", fontsize=10)
plt.show()
