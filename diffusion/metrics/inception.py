"""FID and Inception Score by the package torch-fidelity, where it and its weights are on this machine.

Nothing is downloaded: neither the package nor the weights are needed by anything else.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.distributed.ranks import Ranks

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""File of Inception's weights, as torch-fidelity calls it, in `torch.hub`'s folder of checkpoints."""
CLASSES = 1008
SPLITS, SHUFFLE = 10, 2020
"""Parts that the Inception Score is a mean of, and the seed that deals images into them: those of torch-fidelity."""


class Inception:
    """The network that FID is defined by, as torch-fidelity has it."""

    width = 2048
    resize = "to 299 x 299, bilinear as in TensorFlow 1"

    def __init__(self, network: Any, device: torch.device, name: str = "Inception") -> None:
        """Takes torch-fidelity's extractor of '2048' and 'logits_unbiased', in this order."""
        self._network, self._device, self.name = network.to(device).eval(), device, name

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps uint8 images (B, C, H, W) of one channel or three to features (B, 2048) and logits (B, 1008)."""
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            return self._network(images.to(self._device).expand(-1, 3, -1, -1))


def find_inception(ranks: Ranks) -> Inception | None:
    """Returns Inception if every rank has package and weights, else None; every rank calls it."""
    weights = Path(torch.hub.get_dir(), "checkpoints", WEIGHTS)
    try:
        version = importlib.metadata.version("torch-fidelity")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    if not all(ranks.gather(bool(version) and weights.is_file())):
        return None
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    names = ["2048", "logits_unbiased"]
    network = FeatureExtractorInceptionV3("inception-v3-compat", names, feature_extractor_weights_path=str(weights))
    return Inception(network, ranks.device, f"Inception of torch-fidelity {version}")


class InceptionScore:
    """Sums of the Inception Score over N images (Salimans et al., "Improved Techniques for Training GANs", 2016)."""

    def __init__(self, count: int, device: torch.device, classes: int = CLASSES) -> None:
        dealt = np.random.RandomState(SHUFFLE).permutation(count)
        ends = np.arange(1, SPLITS + 1) * count // SPLITS
        part = np.empty(count, np.int64)
        part[dealt] = np.searchsorted(ends, np.arange(count), side="right")
        self._part = torch.from_numpy(part).to(device)
        self._sums = torch.zeros(SPLITS, classes + 2, dtype=torch.float64, device=device)

    def add(self, indices: Tensor, logits: Tensor) -> None:
        """Adds images by their numbers (B,) and logits (B, K)."""
        log = logits.double().log_softmax(1)
        columns = torch.cat([log.exp(), (log.exp() * log).sum(1, keepdim=True), torch.ones_like(log[:, :1])], 1)
        parts = self._part[indices.to(self._part.device)]
        member = (parts == torch.arange(SPLITS, device=parts.device)[:, None]).double()  # (SPLITS, B)
        self._sums += member @ columns

    def over_ranks(self, ranks: Ranks) -> float:
        """Returns the mean over the parts of exp(E[KL(p(y|x) | p(y))]), of the images of all ranks; called once."""
        sums = ranks.sum_(self._sums)
        sums = sums[sums[:, -1] > 0]  # of fewer images than parts some are empty
        mean = sums[:, :-1] / sums[:, -1:]
        marginal, own = mean[:, :-1], mean[:, -1]
        return float((own - torch.special.xlogy(marginal, marginal).sum(1)).exp().mean())
