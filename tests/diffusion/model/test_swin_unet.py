from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffusion.model.config import SHAPES, TINY
from diffusion.model.swin_unet import SwinUNet, build_swin_unet, unpatched
from swin.windows import make_grid

SMALL = replace(TINY, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4, num_classes=3, in_chans=1)


def awake(**fields: object) -> SwinUNet:
    """A small network whose gates and head are not zero."""
    torch.manual_seed(0)
    model = SwinUNet(replace(SMALL, **{"img_size": 16, **fields}))
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def asked(model: SwinUNet, height: int, width: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, model.config.in_chans, height, width, generator=generator)
    return model(x, torch.rand(batch, generator=generator), torch.arange(batch))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (16, 16), (17, 32), (28, 28), (40, 24), (96, 64)])
def test_any_size_runs(size: tuple[int, int], channels: int) -> None:
    for img_size in (size, 16):
        model = awake(img_size=img_size, in_chans=channels)
        assert asked(model, *size).shape == (2, channels, *size)
        assert asked(model, *size).isfinite().all()


def test_256_pixels_run() -> None:
    model = awake(img_size=256, patch_size=4, embed_dim=8, num_heads=(1, 1), depths=(1, 1))
    assert asked(model, 256, 256, batch=1).shape == (1, 1, 256, 256)


def test_patches_of_three_pixels_and_three_stages_on_odd_maps() -> None:
    model = awake(img_size=(25, 31), patch_size=3, depths=(1, 1, 2), num_heads=(1, 2, 2))
    assert asked(model, 25, 31).shape == (2, 1, 25, 31)


def test_it_answers_zero_at_first() -> None:
    model = SwinUNet(replace(SMALL, img_size=16))
    assert not asked(model, 16, 16).any()


def test_blocks_change_nothing_at_first() -> None:
    model = SwinUNet(replace(SMALL, img_size=16))
    block, x = model.layers[0].blocks[0], torch.randn(2, 8, 8, 16)
    assert torch.equal(block(x, torch.randn(2, 64), make_grid(8, 8, (4, 4), shifted=False)), x)


def test_every_parameter_learns() -> None:
    model = awake().train()
    asked(model, 16, 16, batch=3).square().mean().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    assert not idle


def test_level_and_class_matter_to_every_image_by_itself() -> None:
    model, x = awake(), torch.randn(1, 1, 16, 16)
    ask = lambda angle, label: model(x, torch.tensor([angle]), torch.tensor([label]))  # noqa: E731
    answers = [ask(0.3, 0), ask(0.301, 0), ask(0.3, 1), ask(0.3, 3)]
    for index, answer in enumerate(answers):
        for other in answers[:index]:
            assert not torch.allclose(answer, other, atol=1e-5)
    together = model(x.expand(4, -1, -1, -1), torch.tensor([0.3, 0.301, 0.3, 0.3]), torch.tensor([0, 0, 1, 3]))
    torch.testing.assert_close(together, torch.cat(answers), atol=1e-5, rtol=1e-4)


def test_without_classes_it_is_told_none() -> None:
    model = awake(num_classes=0)
    assert model.condition.classes is None
    assert model(torch.randn(2, 1, 16, 16), torch.rand(2)).shape == (2, 1, 16, 16)


def test_the_way_up_sees_the_way_down_and_the_bottleneck() -> None:
    three = {"depths": (1, 1, 1), "num_heads": (1, 2, 4)}
    before = asked(awake(**three), 16, 16)
    for stage in (0, 1):
        for half in (0, 1):  # of what is joined: the map from below, the map of the way down
            changed = awake(**three)
            with torch.no_grad():
                changed.up_layers[stage].join.weight.chunk(2, dim=1)[half].zero_()
            assert not torch.allclose(asked(changed, 16, 16), before, atol=1e-6)
    assert [up.upsample.expand.in_features for up in awake(**three).up_layers] == [64, 32]


def test_padding_is_cropped_from_the_maps_too() -> None:
    """A merged map of an odd side is expanded to one more row than the skipped one has."""
    model = awake(patch_size=1, img_size=(5, 7))
    assert asked(model, 5, 7).shape == (2, 1, 5, 7)


def test_positions_are_interpolated_to_other_sizes() -> None:
    model = awake()
    assert model.positions(8, 8) is model.pos_embed
    grown = model.positions(16, 16)
    assert grown.shape == (1, 16, 16, 16)
    torch.testing.assert_close(grown.mean(), model.pos_embed.mean(), atol=0.02, rtol=0)


def test_patches_become_pixels_row_by_row() -> None:
    x = torch.arange(2 * 3 * 8).view(1, 2, 3, 8)  # patches of 2 x 2 pixels of 2 channels
    image = unpatched(x, 2)
    assert image.shape == (1, 2, 4, 6)
    assert torch.equal(image[0, :, 2:4, 4:6].permute(1, 2, 0).flatten(), x[0, 1, 2])


def test_recomputed_gradients_are_the_same() -> None:
    plain, recomputed = awake().train(), awake().train()
    recomputed.set_grad_checkpointing(True)
    for model in (plain, recomputed):
        asked(model, 16, 16).square().mean().backward()
    for one, other in zip(plain.parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_what_is_not_decayed_is_there() -> None:
    model = awake()
    spared = model.no_weight_decay()
    assert {"pos_embed", "condition.classes.weight"} < spared <= {name for name, _ in model.named_parameters()}
    assert sum(name.endswith("bias_table") for name in spared) == 6


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"img_size": None}, "img_size"), ({"drop_path": 0.1}, "drop_path"), ({"drop_rate": 0.1}, "drop")],
)
def test_what_it_does_not_have_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SwinUNet(replace(SMALL, **{"img_size": 16, **fields}))


@pytest.mark.parametrize(
    ("name", "millions"), [("swin_unet_tiny", 5.1), ("swin_unet_small", 16.7), ("swin_unet_base", 45.4)]
)
def test_the_size_of_ours(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = build_swin_unet(name, img_size=32, num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert set(SHAPES) == {"swin_unet_tiny", "swin_unet_small", "swin_unet_base"}
