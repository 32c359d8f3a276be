"""Heads of one's own on any backbone that ends in a linear layer."""

from __future__ import annotations

from torch import nn

from classification.model.sections import HeadConfig
from engine.errors import UserError
from engine.model.pretrained import start_small
from engine.model.stages import classifier_paths

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class HiddenHead(nn.Sequential):
    """Dropout, linear layer, activation, batch norm if wanted, dropout, linear layer: (B, features) -> (B, classes).

    The last layer starts near zero.
    """

    def __init__(self, features: int, config: HeadConfig, num_classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(features, config.hidden)
        self.activation = ACTIVATIONS[config.activation]()
        self.norm = nn.BatchNorm1d(config.hidden) if config.batch_norm else nn.Identity()
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)
        self.classifier = nn.Linear(config.hidden, num_classes)
        start_small(self.classifier)


def replace_head(model: nn.Module, config: HeadConfig) -> None:
    """Puts a :class:`HiddenHead` where ``model`` has its classifier, for as many classes.

    Raises:
        UserError: the model does not end in one linear layer.
    """
    paths = classifier_paths(model)
    classifier = model.get_submodule(paths[0]) if len(paths) == 1 else None
    if not isinstance(classifier, nn.Linear):
        raise UserError(
            f"model.head: {type(model).__name__} does not end in one linear layer that could be replaced; remove "
            "model.head, or choose another model"
        )
    model.set_submodule(paths[0], HiddenHead(classifier.in_features, config, classifier.out_features))
