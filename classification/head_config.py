"""The `model.head` section: layers of one's own before the classes."""

from typing import Annotated, Literal

from pydantic import Field

from engine.config.section import Section

Fraction = Annotated[float, Field(ge=0, lt=1)]


class HeadConfig(Section):
    """A hidden layer before the classes: dropout, linear layer, activation, batch norm, dropout, linear layer."""

    hidden: Annotated[int, Field(ge=1)]
    """Width of the hidden layer."""
    dropout: Fraction = 0.0
    """Dropout of the backbone's features."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """What follows the hidden layer."""
    batch_norm: bool = False
    """Batch norm after the activation."""
    hidden_dropout: Fraction = 0.0
    """Dropout of the hidden layer's output."""
