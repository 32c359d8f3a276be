"""The whole detector: every backbone with every neck, its priors, and what the engine asks of a model."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import FrozenBatchNormAct2d
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from detection.model.priors import make_priors
from detection.model.sections import DetectorConfig
from detection.model.ssd import KEPT_SIZES, SSD, build_detector
from engine.config.optimization import OptimizerConfig
from engine.config.run import DistributedConfig
from engine.config.training import FinetuneConfig, TrainingConfig
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.model.batch_norm import uses_batch_norm
from engine.model.wrap import prepare_model
from engine.training.optimizer import parameter_groups
from tests.detection.model.test_backbones import TINY_SWIN
from tests.distributed import run_ranks
from tests.engine.toy import prepare_network
from tests.sections import section

CUDA = Ranks(Layout(), torch.device("cuda", 0))


def small(backbone: str = "timm/test_byobnet", outputs: int = 4, **fields: Any) -> SSD:
    """A detector of few parameters."""
    if backbone.startswith("swin"):
        fields.setdefault("swin", TINY_SWIN)
    channels = {"neck_channels": 16} if fields.get("neck", "none") != "none" else {}
    config = section(DetectorConfig, **{"backbone": backbone, **channels, **fields})
    return build_detector(config, FinetuneConfig(), outputs, (96, 96))


def nudged(model: SSD) -> SSD:
    """Without the zeros that timm starts the last norm of a residual branch with: they keep gradients from the rest."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("weight") and tensor.ndim == 1:
                tensor.add_(0.1)
    return model


def loss_of(model: nn.Module, images: Tensor) -> Tensor:
    """Depends on every output, in another way on each."""
    logits, codes, _ = model(images)
    return (
        nn.functional.cross_entropy(logits.flatten(0, 1), torch.arange(logits[..., 0].numel()) % 4)
        + (codes - torch.linspace(-1, 1, codes.numel()).view_as(codes)).square().mean()
    )


@pytest.mark.parametrize("neck", ["none", "fpn", "pan", "dense_fpn"])
@pytest.mark.parametrize("backbone", ["resnet50_a", "resnet50_b", "swin_a", "swin_b", "swin_tiny", "timm/test_byobnet"])
def test_every_backbone_trains_with_every_neck(backbone: str, neck: str) -> None:
    torch.manual_seed(0)
    model = nudged(small(backbone, neck=neck, drop_path=0.0 if backbone.startswith("swin") else None))
    output = model(torch.randn(2, 3, 64, 41))
    assert output.logits.shape == (2, len(output.priors), 4) and output.codes.shape == (2, len(output.priors), 4)
    assert output.priors.dtype == torch.float32 and not output.priors.requires_grad
    loss_of(model, torch.randn(2, 3, 64, 41)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.full
@pytest.mark.parametrize("neck", ["none", "fpn", "pan", "dense_fpn"])
@pytest.mark.parametrize(
    ("backbone", "size"), [("resnet50_a", 300), ("resnet50_b", 300), ("swin_a", 336), ("swin_b", 336)]
)
def test_the_sixteen_at_their_own_size(backbone: str, size: int, neck: str) -> None:
    model = build_detector(section(DetectorConfig, backbone=backbone, neck=neck), FinetuneConfig(), 81, (size, size))
    logits, codes, priors = model(torch.randn(2, 3, size, size))
    assert len(priors) == {300: 8732, 336: 10684}[size]
    (logits.float().logsumexp(2).mean() + codes.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_best_known_size() -> None:
    """The SSD300 with this ResNet-50 that NVIDIA publishes has as many, 22.9 million."""
    with torch.device("meta"):
        model = build_detector(section(DetectorConfig, backbone="resnet50_b"), FinetuneConfig(), 81, (300, 300))
        output = model(torch.empty(1, 3, 300, 300))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(22.9e6, rel=0.01)
    assert output.logits.shape == (1, 8732, 81)


# -- priors ----------------------------------------------------------------------------------------------------------


def test_priors_belong_to_the_maps_and_are_made_once_a_size() -> None:
    model = small().eval()
    with torch.inference_mode():
        first = model(torch.randn(1, 3, 96, 64)).priors
    sizes = [(12, 8), (6, 4), (3, 2), (2, 1), (1, 1), (1, 1)]
    assert torch.equal(first, make_priors(section(DetectorConfig).priors, sizes, (96, 64)))
    assert model(torch.randn(2, 3, 96, 64)).priors is first and not first.is_inference()
    assert len(model(torch.randn(1, 3, 64, 96)).priors) == len(first)
    assert not torch.equal(model(torch.randn(1, 3, 64, 96)).priors, first)
    assert not any("prior" in name for name in model.state_dict())
    assert deepcopy(model)(torch.randn(2, 3, 96, 64)).priors.equal(first)


def test_few_sizes_are_kept() -> None:
    model = small().eval()
    with torch.no_grad():
        for side in range(32, 32 + KEPT_SIZES + 2):
            model(torch.randn(1, 3, side, 32))
    assert len(model._priors) == KEPT_SIZES


def test_exported_graphs_hold_the_priors_and_take_other_batches() -> None:
    model = small().eval()
    x, other = torch.randn(2, 3, 64, 64), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
        for ours, expected in zip(exported(other), model(other), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


# -- what the engine asks for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["resnet50_a", "timm/test_byobnet"])
def test_half_precision_leaves_the_priors_alone(backbone: str) -> None:
    model = small(backbone).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(x)
    assert [y.dtype for y in found] == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert (found.logits - expected.logits).abs().max() < 0.1 * expected.logits.abs().max()


@pytest.mark.parametrize("backbone", ["timm/test_byobnet", "swin_b"])
def test_channels_last_changes_nothing_but_the_layout(backbone: str) -> None:
    model = small(backbone, neck="pan").eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        found = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["timm/test_byobnet", "swin_b", "swin_a"])
def test_activation_checkpointing_computes_the_same_gradients(backbone: str) -> None:
    gradients = []
    x = torch.linspace(-1, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
    for wanted in (False, True):
        torch.manual_seed(0)
        model = small(backbone, drop_path=0.0 if backbone.startswith("swin") else None)
        training = TrainingConfig(activation_checkpointing=wanted, precision="fp32")
        network = prepare_network(model, training, CUDA)
        loss_of(network, x).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_bodies_that_cannot_recompute_are_refused() -> None:
    model = small()
    model.backbone.body = nn.Identity()
    with pytest.raises(UserError, match=r"training\.activation_checkpointing: SSD does not support it"):
        prepare_network(model, TrainingConfig(activation_checkpointing=True), CUDA)


@pytest.mark.parametrize(
    ("backbone", "order"),
    [
        ("resnet50_a", ["body.conv1", "body.layer1.0.conv1", "body.layer1.1.conv1", "body.layer4.2.conv3"]),
        ("swin_b", ["body.patch_embed.proj", "body.layers.0.blocks.0.norm1", "body.layers.2.blocks.0.norm2"]),
        ("timm/tf_efficientnet_lite0", ["body.conv_stem", "body.blocks.0.0.bn1", "body.blocks.4.0.bn1"]),
    ],
)
def test_layer_wise_rates_rise_to_the_head(backbone: str, order: list[str]) -> None:
    model = small(backbone, neck="fpn")
    groups = parameter_groups(model, section(OptimizerConfig, weight_decay=0.1), FinetuneConfig(layer_decay=0.8))
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    rates = {name: scale[id(p)] for name, p in model.named_parameters()}
    body = [rates[f"backbone.{name}.weight"] for name in order]
    assert body == sorted(body) and len(set(body)) == len(body)
    rest = [rate for name, rate in rates.items() if not name.startswith("backbone.body.")]
    assert rest and all(rate == 1 for rate in rest) and body[-1] < 1
    for name, parameter in model.named_parameters():
        spared = parameter.ndim == 1 or name.endswith("relative_position_bias_table")
        assert decay[id(parameter)] == (0.0 if spared else 0.1), name


def test_frozen_batch_norm_stays_as_it_came() -> None:
    torch.manual_seed(0)
    model, plain = nudged(small(frozen_batchnorm=True)), small()
    assert set(model.state_dict()) <= set(plain.state_dict())
    assert not uses_batch_norm(model.backbone.body) and uses_batch_norm(plain.backbone.body)
    frozen = [m for m in model.modules() if isinstance(m, FrozenBatchNormAct2d | FrozenBatchNorm2d)]
    assert frozen
    before = deepcopy(model.backbone.body.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss_of(model.train(), torch.randn(2, 3, 64, 64)).backward()
    optimizer.step()
    changed = {name for name, value in model.backbone.body.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, _ in model.backbone.body.named_parameters()}
    assert not any("running" in name or ".bn" in name for name in changed)


def test_synchronised_batch_norm_takes_every_layer_that_is_not_frozen() -> None:
    ranks = Ranks(Layout(world_size=2), torch.device("cuda", 0))
    distributed = DistributedConfig(sync_batchnorm=True)
    settings = (TrainingConfig(precision="fp32"), distributed, ranks)
    model = prepare_model(small("resnet50_a"), *settings)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    frozen = prepare_model(small("resnet50_a", frozen_batchnorm=True), *settings)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in frozen.get_submodule("backbone.body").modules())
    assert isinstance(frozen.get_submodule("backbone.extras.norm.0"), nn.SyncBatchNorm)


def losses_of_steps(ranks: Ranks, backbone: str) -> list[float]:
    """Losses of a few steps on two ranks; DDP raises an error in the second if a parameter had no part in the first."""
    torch.manual_seed(0)
    model = small(backbone, neck="pan", drop_path=0.0 if backbone.startswith("swin") else None)
    network = prepare_network(model, TrainingConfig(), ranks)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-4)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(ranks.rank))
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = loss_of(network, images)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_two_ranks_train_it() -> None:
    for losses in run_ranks(2, losses_of_steps, "swin_b"):
        assert losses[-1] < losses[0]


def test_a_batch_learned_by_heart() -> None:
    torch.manual_seed(0)
    model = small("timm/test_byobnet", neck="fpn").train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    images = torch.randn(2, 3, 32, 32)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = loss_of(model, images)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_weights_are_a_plain_state_dict(tmp_path: Path) -> None:
    model = small("swin_a")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert {name.split(".")[0] for name in state} == {"backbone", "head"}
