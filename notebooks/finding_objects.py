# %% [markdown]
# # Finding objects
#
# From pictures with boxes to a detector: this notebook writes a small data set in
# [COCO's format](https://arxiv.org/abs/1405.0312), trains an SSD on it, draws the boxes that it finds beside the true
# ones, and reads how good it is. It takes a minute or two on a laptop's CPU and downloads nothing.
#
# The objects are handwritten digits that come with scikit-learn, put into shaded scenes. *With pictures of your own*,
# leave out the first section, and let `data` name your folder and its JSON files.

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
from IPython.display import Markdown
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.datasets import load_digits

from detection import load_detector

plt.style.use("tableau-colorblind10")
os.chdir(tempfile.mkdtemp())  # everything is made there; leave this out to work where you are


def run(*arguments: str) -> None:
    """Does what `python …` does in a shell; shows what it says only if it fails."""
    print(shlex.join(["python", *arguments]))
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])


# %% [markdown]
# ## Scenes in COCO's format
#
# Each scene is shaded from one side to the other and has up to six digits of four classes. A box is
# `[left, top, width, height]` in pixels. The digits of val are others than those of train.

# %%
NAMES = {0: "zero", 1: "one", 4: "four", 7: "seven"}
SIDE = 96
digits = load_digits()
random = np.random.default_rng(0)


def scene(pool: list[int]) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """Draws a scene (96, 96) out of digits with these numbers; returns it with the class and box of each object."""
    shades = np.linspace(random.uniform(20, 80), random.uniform(20, 80), SIDE)
    canvas, objects, free = np.tile(shades, (SIDE, 1)), [], np.ones((SIDE, SIDE), bool)
    for number in random.choice(pool, random.integers(1, 7)):
        side = int(random.integers(22, 45))
        left, top = (int(value) for value in random.integers(0, SIDE - side, 2))
        place = (slice(top, top + side), slice(left, left + side))
        if free[place].all():
            small = Image.fromarray((digits.images[number] * 255 / 16).astype(np.uint8))
            ink = np.array(small.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
            canvas[place], free[place] = np.maximum(canvas[place], ink), False
            rows, columns = np.flatnonzero((ink > 80).any(1)), np.flatnonzero((ink > 80).any(0))
            width, height = int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1
            box = [left + int(columns[0]), top + int(rows[0]), width, height]
            objects.append((int(digits.target[number]), box))
    return canvas.clip(0, 255).astype(np.uint8), objects


def write_scenes(split: str, count: int, numbers: range) -> None:
    """Writes scenes as PNG files, and beside their folder the JSON file with their boxes."""
    pool = [number for number in numbers if digits.target[number] in NAMES]
    Path("scenes", split).mkdir(parents=True)
    images, annotations = [], []
    for index in range(1, count + 1):
        pixels, objects = scene(pool)
        Image.fromarray(pixels).save(f"scenes/{split}/{index:03d}.png")
        images.append({"id": index, "file_name": f"{index:03d}.png", "width": SIDE, "height": SIDE})
        annotations += [{"image_id": index, "category_id": category, "bbox": box} for category, box in objects]
    numbered = [{"id": index, **annotation} for index, annotation in enumerate(annotations, start=1)]
    categories = [{"id": category, "name": name} for category, name in NAMES.items()]
    document = {"images": images, "annotations": numbered, "categories": categories}
    Path(f"scenes/{split}.json").write_text(json.dumps(document))
    print(f"{split}: {count} scenes, {len(numbered)} objects")


write_scenes("train", 500, range(1300))
write_scenes("val", 80, range(1300, len(digits.images)))

# %% [markdown]
# ## Training
#
# [SSD](https://arxiv.org/abs/1512.02325) looks at boxes of many sizes and places at once, and says of each what it
# shows and how it should move. The backbone is a small ResNet, the neck a
# [feature pyramid](https://arxiv.org/abs/1612.03144). Digits may not be mirrored, so the augmentation leaves them as
# they are. `python -m tools.check --task detection --config scenes.yaml` would look for mistakes in the boxes first.

# %%
Path("scenes.yaml").write_text("""\
experiment: {name: scenes, root: runs}
detection: {backbone: timm/resnet10t, neck: fpn, neck_channels: 64}
data:
  source: coco
  root: scenes
  train: {images: train, annotations: train.json}
  val: {images: val, annotations: val.json}
  image_size: 96
  workers: 0
augmentation: {zoom_out: null, iou_crop: null, photometric: null, horizontal_flip: 0.0}
optimizer: {name: adamw, lr: 3e-3, weight_decay: 0.01}
schedule: {name: one_cycle}
training: {epochs: 12, global_batch_size: 16, clip_grad_norm: 5.0, precision: fp32}
evaluation: {every_epochs: 2, batch_size: 40}
logging: {every_steps: 10}
""")
run("-m", "detection.train", "--config", "scenes.yaml")

# %% [markdown]
# AP50 counts a box as found that overlaps the true one by half (IoU, intersection over union); AP is the mean over ten
# such demands, from half to nearly all, and much harder.

# %%
records = pd.read_json("runs/experiment_0001/metrics.jsonl", lines=True)
train, val = records[records["split"] == "train"], records[records["split"] == "val"]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.plot(train["epoch"], train["loss"])
left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
left.set_title("Loss in training", fontsize=10)
for metric, marker in [("AP50", "o"), ("AP", "s")]:
    right.plot(val["epoch"], val[metric], marker=marker, label=metric)
right.set(xlabel="epoch", ylabel="average precision", ylim=(0, 1))
right.set_title("On held-out scenes", fontsize=10)
right.legend()
plt.show()

# %% [markdown]
# ## What it finds
#
# A trained detector is a function of a list of paths, arrays or Pillow images. Of each it returns classes, scores and
# boxes, the surest first. Below, true boxes are dashed and white; found ones have the colour of their class. Boxes with
# a score below 0.3 are left out.

# %%
detector = load_detector("runs/experiment_0001", device="cpu")
truth = json.loads(Path("scenes/val.json").read_text())
scenes = truth["images"][:8]
found = detector([f"scenes/val/{image['file_name']}" for image in scenes])
colours = dict(zip(NAMES.values(), ["#E69F00", "#56B4E9", "#009E73", "#CC79A7"], strict=True))

figure, axes = plt.subplots(2, 4, figsize=(8, 4.2), layout="constrained")
for axis, image, objects in zip(axes.flat, scenes, found, strict=True):
    axis.imshow(Image.open(f"scenes/val/{image['file_name']}"), cmap="gray", vmin=0, vmax=255)
    for annotation in truth["annotations"]:
        if annotation["image_id"] == image["id"]:
            x, y, width, height = annotation["bbox"]
            axis.add_patch(Rectangle((x, y), width, height, fill=False, color="white", linestyle="--"))
    for name, score, (x1, y1, x2, y2) in zip(objects.classes, objects.scores, objects.boxes, strict=True):
        if score >= 0.3:
            axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colours[name], linewidth=2))
            label = {"boxstyle": "square,pad=0.15", "facecolor": colours[name], "edgecolor": "none"}
            axis.text(min(x1, SIDE - 28), max(y1, 7), f"{name} {score:.2f}", fontsize=8, color="black", bbox=label)
    axis.axis("off")
figure.suptitle("Held-out scenes: found boxes in colour, true ones dashed", fontsize=11)
plt.show()

# %% [markdown]
# In a shell, `python -m detection.predict --experiment runs/experiment_0001 --images scenes/val --output found` draws
# the same, and writes the boxes in COCO's format.
#
# ## How good it is
#
# `evaluate` writes COCO's figures, as pycocotools counts them, and a report into
# `results/val`, which begins with this table.

# %%
run("-m", "detection.evaluate", "--experiment", "runs/experiment_0001")

results = Path("runs/experiment_0001/results/val")
Markdown("\n\n".join((results / "report.md").read_text().split("\n\n")[1:3]))

# %% [markdown]
# Precision over recall at an IoU of one half: of the boxes down to some score, how many are right, and how much of what
# is there do they find? AP50 is the area below.

# %%
curves = pd.read_csv(results / "precision_recall.csv", index_col="recall")
metrics = json.loads((results / "metrics.json").read_text())
figure, axis = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for (name, curve), style in zip(curves.items(), ["-", "--", "-.", ":"], strict=True):
    axis.plot(curve.index, curve, style, color=colours[name], label=name)
axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
axis.set_title(f"Held-out scenes: AP50 {metrics['AP50']:.2f}, AP {metrics['AP']:.2f}", fontsize=10)
axis.legend(loc="lower left")
plt.show()
