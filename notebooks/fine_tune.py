# %% [markdown]
# # Fine-tune on your own pictures, and read the report
#
# A folder for each class, a configuration of ten lines, two commands, and a report. Here the pictures are drawn, so
# that the notebook runs anywhere; put the path of your own into `ROOT`, and leave the next cell out.

# %%
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path("shop")
random = np.random.default_rng(0)
for split, count in (("train", 24), ("val", 12)):
    for kind in ("circle", "square", "triangle"):
        folder = ROOT / split / kind
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = Image.fromarray(random.integers(90, 160, (32, 32, 3), dtype=np.uint8))
            left, top, side = *random.integers(2, 10, 2), int(random.integers(14, 20))
            box, colour = (left, top, left + side, top + side), tuple(random.integers(180, 256, 3).tolist())
            draw = ImageDraw.Draw(image)
            if kind == "triangle":
                draw.polygon([(left, top + side), (left + side, top + side), (left + side // 2, top)], fill=colour)
            else:
                (draw.ellipse if kind == "circle" else draw.rectangle)(box, fill=colour)
            image.save(folder / f"{number:02d}.png")

# %% [markdown]
# ## Weights to start from
#
# For pictures of the world, `finetune.weights` names a file of ImageNet's weights (or is `timm`). Here a small Swin
# that has learnt digits serves.

# %%
swin = "{name: swin, patch_size: 2, window_size: 4, embed_dim: 24, depths: [2, 2], num_heads: [2, 4], drop_path: 0.0}"
Path("digits.yaml").write_text(f"""
model: {swin}
data: {{source: digits, image_size: 16, workers: 0}}
training: {{epochs: 4, global_batch_size: 48}}
optimizer: {{lr: 2e-3}}
experiment: {{root: weights}}
""")
# !python -m classification.train --config digits.yaml 2>&1 | tail -n 1

# %% [markdown]
# ## Fine-tuning: the head first, then all

# %%
Path("shop.yaml").write_text(f"""
model: {swin}
data: {{source: folder, root: {ROOT}, image_size: 16, resize: squash, workers: 0}}
training: {{epochs: 16, global_batch_size: 24}}
optimizer: {{lr: 2e-3}}
finetune:
  weights: weights/experiment_0001
  unfreeze: {{0: head, 2: all}}
""")
# !python -m tools.check --task classification --config shop.yaml | tail -n 1
# !python -m classification.train --config shop.yaml 2>&1 | grep -o "finished.*\|training head.*\|training stem.*"

# %% [markdown]
# ## The report
#
# `evaluate` writes `results/val/`: a report, figures, and every number as JSON and CSV.

# %%
# !python -m classification.evaluate --experiment experiments/experiment_0001 2>&1 | grep -o "report.*"

# %%
import csv

results = Path("experiments/experiment_0001/results/val")
rows = list(csv.DictReader((results / "per_class.csv").open()))
for row in rows:
    print({key: row[key] for key in list(row)[:4]})

# %%
Image.open(results / "confusion_matrix.png")

# %% [markdown]
# ## In use
#
# One line makes a function of the experiment: paths, arrays or Pillow's images in, answers out.

# %%
from classification import load_classifier

classifier = load_classifier("experiments/experiment_0001", device="cpu")
pictures = sorted((ROOT / "val").glob("*/00.png"))
for path, answer in zip(pictures, classifier(pictures), strict=True):
    print(f"{path.parent.name:>8}: {answer.classes[0]:>8} {max(answer.probabilities.values()):.2f}")
