# %% [markdown]
# # Inside a trained Swin
#
# What shifted windows attend to, what the bias tables have learnt, and which part of a picture speaks for a class.

# %%
from pathlib import Path

Path("digits.yaml").write_text("""
model: {name: swin, patch_size: 2, window_size: 4, embed_dim: 24, depths: [2, 2], num_heads: [2, 4], drop_path: 0.0}
data: {source: digits, image_size: 32, workers: 0}
training: {epochs: 3, global_batch_size: 48}
optimizer: {lr: 2e-3}
""")
# !python -m classification.train --config digits.yaml 2>&1 | grep -o "finished.*"

# %%
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from classification import load_classifier
from swin.windows import make_grid, shift_mask

classifier = load_classifier("experiments/experiment_0001", device="cpu")
model = classifier.inference.model
picture = (load_digits().images[1000] * 15.9).astype("uint8")
inputs = classifier.inference.transform
answer = classifier([picture])[0]
print(answer.classes, f"{max(answer.probabilities.values()):.2f}")

# %% [markdown]
# ## Attention of the second block, whose windows are shifted
#
# A hook keeps what the layer `qkv` says; softmax(q k^T / sqrt(d) + bias + mask) is then what a token looks at. Each
# row of windows is drawn as it lies after the shift: where a mask cuts a window, nothing looks across.

# %%
block, kept = model.layers[0].blocks[1], {}
hook = block.attn.qkv.register_forward_hook(lambda module, given, found: kept.update(qkv=found))
classifier([picture])
hook.remove()
windows, tokens, _ = kept["qkv"].shape
heads = block.attn.num_heads
q, k, _ = kept["qkv"].view(windows, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
grid = make_grid(16, 16, block.attn.window, shifted=True)
mask = shift_mask(grid, q.device)
with torch.no_grad():
    scores = q @ k.mT * q.shape[-1] ** -0.5 + block.attn.position_bias() + mask[:, None]
attention = scores.softmax(-1)
print(attention.shape, "windows, heads, tokens, tokens; shift", grid.shift)

# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8))
for axis, window in zip(axes, (0, 3, 12, 15), strict=True):
    axis.imshow(attention[window].mean(0), vmin=0)
    axis.set_title(f"window {window}")
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Bias tables
#
# How much more a token looks at another one, by how far it lies away: (2 x window - 1)^2 numbers a head.

# %%
tables = [(name, p) for name, p in model.named_parameters() if name.endswith("relative_position_bias_table")]
figure, axes = plt.subplots(1, len(tables), figsize=(10, 2.8))
for axis, (name, table) in zip(axes, tables, strict=True):
    axis.imshow(table[:, 0].detach().view(7, 7), cmap="RdBu", vmin=-0.5, vmax=0.5)
    axis.set_title(".".join(name.split(".")[:4]), fontsize=8)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Grad-CAM on the last stage (arXiv:1610.02391)
#
# The map before it is averaged, weighted by what the class's logit gains from each channel.

# %%
from PIL import Image

from engine.images.normalization import Normalization

normalized = Normalization(classifier.inference.classifier.preprocessing, torch.device("cpu"))
images = normalized(inputs(Image.fromarray(picture).convert("RGB"))[None])
with torch.enable_grad():
    features = model.forward_features(images)
    features.retain_grad()
    model.forward_head(features)[0, int(answer.classes[0])].backward()
weights = features.grad.mean(dim=(1, 2), keepdim=True)
heat = (weights * features).sum(-1).relu()[0].detach()
figure, (left, right) = plt.subplots(1, 2, figsize=(5, 2.8))
left.imshow(picture, cmap="gray")
right.imshow(heat)
for axis in (left, right):
    axis.axis("off")
plt.show()
