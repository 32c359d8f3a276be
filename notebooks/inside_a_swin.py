# %% [markdown]
# # Inside a Swin Transformer
#
# What a trained Swin looks at: the attention within its windows and its shifted windows, the bias that it has learnt
# for each distance between two patches, and the parts of a picture that speak for a class. It trains a small Swin on
# the handwritten digits that come with scikit-learn, for about a minute on a laptop's CPU, and downloads nothing.
#
# *With a model of your own*, leave out the training, and load your experiment's folder.

# %%
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from classification import load_classifier
from swin.windows import make_grid, merge

plt.style.use("tableau-colorblind10")
os.chdir(tempfile.mkdtemp())  # everything is made there; leave this out to work where you are


def run(*arguments: str) -> None:
    """Does what `python …` does in a shell; shows what it says only if it fails."""
    print(shlex.join(["python", *arguments]))
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])


# %% [markdown]
# ## A small Swin
#
# Pictures of 32 x 32 pixels are cut into patches of 2 x 2, so that the first stage sees a map of 16 x 16 tokens, the
# second 8 x 8 and the third 4 x 4. Windows have 4 x 4 tokens
# ([Liu et al., 2021](https://arxiv.org/abs/2103.14030)).

# %%
Path("digits.yaml").write_text("""\
experiment: {name: digits, root: runs}
model: {name: swin, patch_size: 2, window_size: 4, embed_dim: 32, depths: [2, 2, 2], num_heads: [2, 4, 8], drop_path: 0}
data: {source: digits, image_size: 32, workers: 0}
augmentation: {random_resized_crop: null, horizontal_flip: 0.0, shift: 2}
loss: {label_smoothing: 0.1}
optimizer: {lr: 2e-3}
schedule: {name: cosine, warmup_epochs: 1}
training: {epochs: 12, global_batch_size: 32, clip_grad_norm: 5.0, precision: fp32}
evaluation: {every_epochs: 3, batch_size: 120}
""")
run("-m", "classification.train", "--config", "digits.yaml")

# %% [markdown]
# `load_classifier` makes a function of the folder. Its `model` is the torch module, in evaluation mode, and `inputs`
# makes of pictures what the module is given.

# %%
classifier = load_classifier("runs/experiment_0001", device="cpu")
model: Any = classifier.model  # a swin.SwinTransformer

digits = load_digits()
CHOSEN = range(-12, -6)
picture = (digits.images[CHOSEN[3]] * 255 / 16).astype(np.uint8)
(answer,) = classifier([picture])
x = classifier.inputs([picture])
said = answer.classes[0]
print(f"The picture shows {digits.target[CHOSEN[3]]}; the model says {said} with {answer.probabilities[said]:.0%}.")
print("inputs:", tuple(x.shape), "logits:", tuple(model(x).shape))

# %% [markdown]
# ## Attention within windows
#
# Each token asks the $N$ tokens of its window: $\mathrm{softmax}(q k^\top / \sqrt{d} + B)\, v$, where $B$ is the bias
# of their relative position (equation 4 of the paper). Every second block shifts the windows by half their size, so
# that neighbours meet that a border kept apart; a mask keeps tokens apart that only the cyclic shift brought together.
#
# The model computes this in one step that keeps no weights. A hook on the two blocks of the first stage takes what
# their attention is given; the weights follow by the formula, and the check below shows that they are those of the
# model.

# %%
blocks = model.layers[0].blocks
taken = {}
hooks = [
    block.attn.register_forward_hook(lambda attention, given, out, block=block: taken.update({block: (*given, out)}))
    for block in blocks
]
with torch.no_grad():
    model(x)
for hook in hooks:
    hook.remove()


@torch.no_grad()
def weights_of(block: Any) -> torch.Tensor:
    """Returns the attention of each window: (windows, heads, N, N), each row a distribution over N tokens."""
    tokens, mask, out = taken[block]
    attention = block.attn
    q, k, v = attention.qkv(tokens).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / q.shape[-1] ** 0.5 + attention.position_bias()
    if mask is not None:
        scores = scores + mask[:, None]
    weights = scores.softmax(-1)
    torch.testing.assert_close(attention.proj((weights @ v).transpose(1, 2).flatten(2)), out, rtol=1e-4, atol=1e-5)
    return weights


print("windows, heads, tokens, tokens:", [tuple(weights_of(block).shape) for block in blocks])


# %% [markdown]
# Where one token looks: the cross is the token that asks, colours are the shares of its attention (the mean of both
# heads), lines are the borders of the windows, and the outline is that of the digit. In the second block the same token
# is in another window, and sees across the border.


# %%
def looks_at(block: Any, shifted: bool, row: int, column: int) -> torch.Tensor:
    """Returns how much the token in a row and column of the map attends to each: (16, 16), NaN outside its window."""
    grid = make_grid(16, 16, (4, 4), shifted=shifted)
    asked = merge(weights_of(block).mean(1).mT, grid)[0]  # (16, 16, N): by which token of its window, how much
    token = merge(torch.arange(16.0).expand(16, 16)[..., None], grid)[0, :, :, 0].long()
    window = merge(torch.arange(16.0).expand(16, 16).T[..., None], grid)[0, :, :, 0]
    return torch.where(window == window[row, column], asked[:, :, token[row, column]], torch.nan)


def outline(axis: plt.Axes, image: np.ndarray, side: int, colour: str) -> None:
    """Draws the outline of a digit (8, 8) on a map of ``side`` tokens."""
    centres = (np.arange(8) + 0.5) * side / 8
    axis.contour(centres, centres, image, levels=[110], colors=colour, linewidths=1.2)


attention = {
    (line, shifted): looks_at(blocks[int(shifted)], shifted, *token)
    for line, token in enumerate([(5, 8), (9, 6)])
    for shifted in (False, True)
}
most = max(np.nanmax(shares) for shares in attention.values())
figure, axes = plt.subplots(2, 3, figsize=(8, 5.2), layout="constrained")
for line, (row, column) in enumerate([(5, 8), (9, 6)]):
    axes[line, 0].imshow(picture, cmap="gray_r", extent=(0, 16, 16, 0))
    axes[line, 0].set_title("picture, and the token that asks", fontsize=10)
    for axis, shifted, name in [(axes[line, 1], False, "block 1: windows"), (axes[line, 2], True, "block 2: shifted")]:
        drawn = axis.imshow(attention[line, shifted], extent=(0, 16, 16, 0), vmin=0, vmax=most)
        outline(axis, picture, 16, "0.45")
        axis.set_title(name, fontsize=10)
        for border in range(2 if shifted else 4, 16, 4):
            axis.axhline(border, color="0.8", linewidth=0.8)
            axis.axvline(border, color="0.8", linewidth=0.8)
    for axis in axes[line]:
        axis.plot(column + 0.5, row + 0.5, "+", color="tab:red", markersize=11, markeredgewidth=2)
        axis.set(xticks=[], yticks=[], xlim=(0, 16), ylim=(16, 0))
figure.colorbar(drawn, ax=axes, label="share of the token's attention", shrink=0.8)
plt.show()

# %% [markdown]
# ## Bias tables
#
# $B$ has no value of its own for each pair of tokens: it reads them from a table of $(2 \cdot 4 - 1)^2$ offsets a head.
# A row of the table is where the token that asks lies *from* the one it looks at; turned round, as below, the middle is
# the token itself, and a value right of it raises attention to what lies to the right. Orange lowers, purple raises.

# %%
figure, axes = plt.subplots(2, 4, figsize=(8, 4.4), layout="constrained")
tables = [block.attn.relative_position_bias_table.detach().unflatten(0, (7, 7)) for block in model.layers[1].blocks]
strongest = max(table.abs().max().item() for table in tables)
place = (-3.5, 3.5, 3.5, -3.5)
for block, (line, table) in enumerate(zip(axes, tables, strict=True), start=1):
    for head, axis in enumerate(line):
        turned = table[:, :, head].flip(0, 1)
        drawn = axis.imshow(turned, cmap="PuOr", vmin=-strongest, vmax=strongest, extent=place)
        axis.set_title(f"block {block}, head {head + 1}", fontsize=10)
        axis.set(xticks=[-3, 0, 3], yticks=[-3, 0, 3])
figure.supxlabel("tokens to the right", fontsize=10)
figure.supylabel("tokens down", fontsize=10)
figure.colorbar(drawn, ax=axes, label="bias that is added to the score", shrink=0.8)
figure.suptitle("Second stage: bias by where the other token lies", fontsize=11)
plt.show()

# %% [markdown]
# ## Which parts speak for a class: Grad-CAM
#
# The map of the last stage, $A$ (4 x 4 tokens of $C$ channels), is weighed by the gradient of a class's logit, averaged
# over the map: $\mathrm{ReLU}(\sum_c \overline{\partial y / \partial A_c}\, A_c)$
# ([Selvaraju et al., 2017](https://arxiv.org/abs/1610.02391)). A hook on the last norm keeps $A$ with its gradient.


# %%
def grad_cam(image: np.ndarray, name: str) -> np.ndarray:
    """Returns how much each part of the last stage's map speaks for a class: (4, 4), from 0 to 1."""
    kept = []
    hook = model.norm.register_forward_hook(lambda module, given, out: kept.append(out))
    logits = model(classifier.inputs([image]))
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, classifier.classes.index(name)], kept[0])
    cam = (gradient.mean((1, 2), keepdim=True) * kept[0]).sum(3).relu()[0].detach()
    return (cam / cam.max().clamp(min=1e-9)).numpy()


pictures = [(digits.images[index] * 255 / 16).astype(np.uint8) for index in CHOSEN]
figure, axes = plt.subplots(3, 6, figsize=(8, 4.6), layout="constrained")
for column, image, found in zip(axes.T, pictures, classifier(pictures), strict=True):
    column[0].imshow(image, cmap="gray_r", extent=(0, 4, 4, 0))
    for axis, (name, probability) in zip(column[1:], list(found.probabilities.items())[:2], strict=True):
        drawn = axis.imshow(grad_cam(image, name), vmin=0, vmax=1, extent=(0, 4, 4, 0))
        outline(axis, image, 4, "white")
        axis.set_title(f"{name}: {probability:.0%}", fontsize=10)
for axis, name in zip(axes[:, 0], ["picture", "first class", "second class"], strict=True):
    axis.set_ylabel(name, fontsize=10)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
figure.colorbar(drawn, ax=axes, label="speaks for the class (most: 1)", shrink=0.6)
figure.suptitle("What speaks for the two most probable classes", fontsize=11)
plt.show()
