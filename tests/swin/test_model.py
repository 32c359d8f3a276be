"""The model: sizes, stochastic depth, gradients, precision, recomputation and timm's protocol."""

from __future__ import annotations

from typing import Any

import pytest
import timm.optim
import torch
from torch import Tensor, nn

from swin import SwinConfig, SwinFeatures, SwinTransformer, swin_base, swin_small, swin_tiny
from swin.block import SwinBlock, drop_path_factors
from swin.windows import make_grid

SMALL: dict[str, Any] = {
    "embed_dim": 24,
    "depths": (2, 2, 2),
    "num_heads": (2, 4, 8),
    "patch_size": 2,
    "window_size": 4,
}


def small(**fields: Any) -> SwinTransformer:
    return SwinTransformer(SwinConfig(**{**SMALL, "num_classes": 5, "drop_path": 0.0, **fields}))


@pytest.mark.parametrize(
    ("build", "count"), [(swin_tiny, 28_288_354), (swin_small, 49_606_258), (swin_base, 87_768_224)]
)
def test_parameter_counts(build: Any, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build().parameters()) == count


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (2, 2), (16, 100)])
def test_any_size_runs(size: tuple[int, int]) -> None:
    logits = small()(torch.randn(2, 3, *size))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_a_detection_size_runs_through_swin_tiny() -> None:
    model = swin_tiny(features_only=True).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 400, 333))
    assert [tuple(y.shape) for y in maps] == [(1, 96, 100, 83), (1, 192, 50, 42), (1, 384, 25, 21), (1, 768, 13, 11)]


def test_padding_is_cut_off_again_and_batches_do_not_mix() -> None:
    model = small().eval()
    x = torch.randn(3, 3, 36, 44)
    assert torch.allclose(model(x)[1:2], model(x[1:2]), atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"qkv_bias": False, "patch_norm": False}, {"window_size": (2, 4)}])
def test_every_parameter_gets_a_gradient(fields: dict[str, Any]) -> None:
    model = small(**fields)
    model(torch.randn(2, 3, 32, 40)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    branch = torch.ones(4000, 2, 3)
    dropped = branch * drop_path_factors(branch, 0.25)
    values = dropped.flatten(1)
    assert (values == values[:, :1]).all()
    assert values[:, 0].unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("branch", ["attn", "mlp"])
def test_both_branches_have_drop_path(branch: str) -> None:
    """With the other branch silent, a block either passes an image through or changes it."""
    torch.manual_seed(0)
    block = SwinBlock(8, 2, (4, 4), drop_path=0.5)
    silent = block.mlp.fc2 if branch == "attn" else block.attn.proj
    nn.init.zeros_(silent.weight)
    nn.init.zeros_(silent.bias)
    x = torch.randn(64, 4, 4, 8)
    grid = make_grid(4, 4, (4, 4), shifted=False)
    passed = (block(x, grid, factors=block.draw(x)) == x).flatten(1).all(1)
    assert 10 < passed.sum() < 54
    assert block.eval().draw(x) is None
    assert not (block(x, grid) == x).flatten(1).all(1).any()


def test_drop_path_follows_the_global_generator() -> None:
    model = small(drop_path=0.5, proj_drop=0.1, attn_drop=0.1, drop_rate=0.1).train()
    x = torch.randn(4, 3, 32, 32)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(x)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_attention_dropout_acts_in_training_only() -> None:
    model = small(attn_drop=0.5)
    x = torch.randn(1, 3, 32, 32)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_a_stage_of_one_window_does_not_shift() -> None:
    """Rolling the map of such a stage back and forth, the old mistake, would mask its tokens from each other."""
    block = SwinBlock(8, 2, (4, 4)).eval()
    x = torch.randn(1, 4, 4, 8)
    regular = block(x, make_grid(4, 4, (4, 4), shifted=False))
    assert torch.equal(block(x, make_grid(4, 4, (4, 4), shifted=True)), regular)
    x = torch.randn(1, 8, 8, 8)
    assert not torch.allclose(
        block(x, make_grid(8, 8, (4, 4), shifted=True)), block(x, make_grid(8, 8, (4, 4), shifted=False))
    )


@pytest.mark.parametrize("attn_drop", [0.0, 0.1])
def test_checkpointing_changes_no_gradient(attn_drop: float) -> None:
    model = small(drop_path=0.3, attn_drop=attn_drop, proj_drop=0.1)
    x = torch.randn(2, 3, 32, 32)

    def gradients(recompute: bool) -> list[Tensor]:
        model.zero_grad()
        model.set_grad_checkpointing(recompute)
        torch.manual_seed(3)
        model(x).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        assert torch.allclose(plain, recomputed, rtol=1e-5, atol=1e-7)


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    model = small()

    def kept(recompute: bool) -> int:
        model.set_grad_checkpointing(recompute)
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(2, 3, 32, 32))
        return sum(sizes)

    assert kept(True) < kept(False) / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_close(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = small()
    x = torch.randn(2, 3, 32, 40)
    expected = model(x)
    with torch.autocast("cpu", dtype=dtype):
        logits = model(x)
    assert logits.dtype == dtype
    assert (logits.float() - expected).abs().max() < 0.03 * expected.abs().max()
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_half_precision_weights_and_channels_last_inputs_run() -> None:
    torch.manual_seed(0)
    model = small().eval()
    x = torch.randn(2, 3, 32, 40)
    expected = model(x)
    strided = x.to(memory_format=torch.channels_last)
    assert torch.allclose(model.to(memory_format=torch.channels_last)(strided), expected, atol=1e-6)
    half = model.bfloat16()(x.bfloat16())
    assert (half.float() - expected).abs().max() < 0.03 * expected.abs().max()


def test_training_after_inference_mode_at_the_same_size() -> None:
    model = small()
    x = torch.randn(1, 3, 28, 28)
    with torch.inference_mode():
        model(x)
    model(x).sum().backward()


def test_feature_maps() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 48)
    model = SwinFeatures(SwinConfig(**SMALL))
    assert (model.channels, model.strides) == ((24, 48, 96), (2, 4, 8))
    maps = model.eval()(x)
    assert [tuple(y.shape) for y in maps] == [(2, 24, 16, 24), (2, 48, 8, 12), (2, 96, 4, 6)]
    for y in maps:
        assert torch.allclose(y.mean(1), torch.zeros(()), atol=1e-5)
        assert torch.allclose(y.var(1, unbiased=False), torch.ones(()), atol=1e-2)


def test_out_indices_leave_later_stages_out() -> None:
    model = SwinFeatures(SwinConfig(**SMALL), out_indices=(1,))
    assert len(model.layers) == 2
    model(torch.randn(1, 3, 32, 32))[0].square().sum().backward()
    nn.Module.zero_grad(model)
    (y,) = model(torch.randn(1, 3, 32, 32))
    (y * torch.randn_like(y)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    for wrong in [(), (2, 1), (0, 0), (3,)]:
        with pytest.raises(ValueError, match="out_indices"):
            SwinFeatures(SwinConfig(**SMALL), out_indices=wrong)


def test_classifier_protocol() -> None:
    model = small(num_classes=7)
    x = torch.randn(2, 3, 32, 32)
    features = model.forward_features(x)
    assert features.shape == (2, 4, 4, 96)
    assert torch.equal(model.forward_head(features), model(x))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
    classifier = model.get_classifier()
    assert isinstance(classifier, nn.Linear) and (model.num_classes, classifier.out_features) == (7, 7)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3) and model.num_classes == 3
    model.reset_classifier(0)
    assert model(x).shape == (2, 96)
    assert small(num_classes=0)(x).shape == (2, 96)


def test_no_weight_decay_names_the_bias_tables() -> None:
    model = small()
    names = model.no_weight_decay()
    assert len(names) == 6
    assert names <= {name for name, _ in model.named_parameters()}
    assert all(name.endswith("relative_position_bias_table") for name in names)


def test_layers_for_layer_wise_rates() -> None:
    model = swin_tiny(**{**SMALL, "num_classes": 5})
    groups = timm.optim.param_groups_layer_decay(model, layer_decay=0.5, no_weight_decay_list=model.no_weight_decay())
    scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    rate = {name: scale[id(parameter)] for name, parameter in model.named_parameters()}
    assert set(rate) == {name for name, _ in model.named_parameters()}
    order = ["patch_embed.proj", *(f"layers.{i}.blocks.{j}.norm1" for i in range(3) for j in range(2)), "norm", "head"]
    rates = [rate[f"{name}.weight"] for name in order]
    assert rates == pytest.approx([0.5**depth for depth in (7, 6, 5, 4, 3, 2, 1, 1, 0)])  # the norm: with its block
    assert rate["layers.0.downsample.norm.weight"] == rate["layers.0.blocks.1.norm1.weight"]
    coarse = model.group_matcher(coarse=True)
    assert set(coarse) == {"stem", "blocks"}


@pytest.mark.parametrize("training", [False, True])
def test_compiled_graphs_are_whole_and_equal(training: bool) -> None:
    model = small().train(training)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 36, 40)
    expected = model(x)
    expected.square().sum().backward()
    wanted = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    logits = compiled(x)
    assert torch.allclose(logits, expected, atol=1e-5)
    logits.square().sum().backward()
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert parameter.grad is not None and gradient is not None
        assert torch.allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*jit.trace:FutureWarning")
def test_exported_and_traced_models_equal_and_take_other_batches() -> None:
    model = small().eval()
    x, other = torch.randn(2, 3, 32, 40), torch.randn(5, 3, 32, 40)
    with torch.no_grad():
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
        traced = torch.jit.trace(model, x)
        for run in (exported, traced):
            assert torch.allclose(run(other), model(other), atol=1e-5)
