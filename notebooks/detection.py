# %% [markdown]
# # Detection, with drawn boxes
#
# SSD on drawn shapes: train, evaluate, and look at what it finds. For data of your own see docs/detection_data.md.

# %%
from pathlib import Path

Path("shapes.yaml").write_text("""
detection: {backbone: timm/test_byobnet, neck: fpn, neck_channels: 32}
data:
  {source: shapes, classes: [circle, square], train_images: 96, val_images: 12, canvas_size: [64, 64], max_objects: 2,
   scale: [0.3, 0.6], background: noise, image_size: 64, workers: 0}
training: {epochs: 12, global_batch_size: 16}
optimizer: {lr: 2e-3}
evaluation: {every_epochs: 12}
""")
# !python -m detection.train --config shapes.yaml 2>&1 | grep -o "finished.*"
# !python -m detection.evaluate --experiment experiments/experiment_0001 2>&1 | grep -o "report.*"

# %% [markdown]
# ## What it finds
#
# `load_detector` makes a function of the experiment. Boxes are in pixels of the pictures as they were given. The
# pictures here are new ones.

# %%
import numpy as np
from PIL import Image, ImageDraw

from detection import load_detector

random = np.random.default_rng(5)
pictures = []
for number in range(4):
    image = Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    left, top, side = *random.integers(4, 24, 2).tolist(), 30
    draw = ImageDraw.Draw(image)
    box = (left, top, left + side, top + side)
    (draw.ellipse if number % 2 else draw.rectangle)(box, fill=tuple(random.integers(0, 256, 3).tolist()))
    pictures.append(image)

detector = load_detector(
    "experiments/experiment_0001", device="cpu", overrides=["detection.postprocess.score_threshold=0.3"]
)
found = detector(pictures)
for each in found:
    print([(name, round(float(score), 2)) for name, score in zip(each.classes, each.scores, strict=True)][:3])

# %%
sheet = Image.new("RGB", (4 * 200, 200), "white")
for place, (image, each) in enumerate(zip(pictures, found, strict=True)):
    large = image.resize((192, 192), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(large)
    for name, score, box in list(zip(each.classes, each.scores, each.boxes, strict=True))[:3]:
        draw.rectangle((box * 3).tolist(), outline="red", width=2)
        draw.text((box[0] * 3 + 3, box[1] * 3 + 1), f"{name} {score:.2f}", fill="red")
    sheet.paste(large, (place * 200, 4))
sheet
