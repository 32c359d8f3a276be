"""Keys of a Swin Transformer's shape, for every section that builds one."""

from typing import Annotated, Any

from pydantic import Field

from engine.config.section import Few, Section, Size


class SwinShapeConfig(Section):
    """Changes to a Swin Transformer's shape; null: as its name says."""

    patch_size: Size | None = None
    """Pixels of a patch's side; null: the model's own, as for all that follow."""
    window_size: Size | None = None
    """Patches of a window's side."""
    embed_dim: Size | None = None
    """Channels of the first stage."""
    depths: tuple[Few, ...] | None = None
    """Blocks of each stage."""
    num_heads: tuple[Few, ...] | None = None
    """Attention heads of each stage."""
    mlp_ratio: Annotated[float, Field(gt=0, le=100)] | None = None
    """Hidden width of the MLPs, relative to their input."""

    @property
    def given(self) -> dict[str, Any]:
        """Returns what of the shape is not null, under the names of :class:`swin.SwinConfig`."""
        return self.model_dump(include=set(SwinShapeConfig.model_fields), exclude_none=True)
