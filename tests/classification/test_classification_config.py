from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import yaml

from classification.augmentation.sections import AugmentationConfig, RandAugmentConfig
from classification.config import ClassificationConfig
from classification.losses.sections import CrossEntropyConfig
from classification.model.sections import SWIN_SHAPES, ModelConfig, TimmModel
from engine.config.load import dump_config, load_config
from engine.config.reference import json_schema
from engine.datasets.sections import DigitsData, FolderData, TorchvisionData
from engine.errors import UserError
from tests.sections import section

DIGITS = {"model": {"name": "swin_tiny"}, "data": {"source": "digits"}}


@pytest.fixture
def load(tmp_path):
    def load(tree: dict, *overrides: str) -> ClassificationConfig:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(tree))
        return load_config(ClassificationConfig, path, overrides)

    return load


def test_data_and_the_models_name_are_enough(load):
    config = load(DIGITS)
    assert isinstance(config.data, DigitsData)
    assert config.augmentation == AugmentationConfig()
    assert config.loss.name == "cross_entropy"
    assert config.training.global_batch_size == 128
    assert (config.data.image_size, config.data.drop_last, config.data.workers) == (224, True, "auto")
    assert not config.augmentation.mixes


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("data.csv={train: a.csv, vall: b.csv}", r"data\.csv\.vall: unknown key; did you mean 'val'\?$"),
        ("data.csv={val: a.csv}", r"data\.csv\.train: required but missing$"),
        ("data.csv=[5]", r"data\.csv: must be a path or a section of keys, not a list$"),
        ("distributed.device=gpu", r"distributed\.device: must be .*, not 'gpu'; did you mean 'cuda'\?$"),
        ("training.precision=fp64", r"training\.precision: must be .*, not 'fp64'$"),
        ("training.precision=bf61", r"training\.precision: must be .*, not 'bf61'; did you mean 'bf16'\?$"),
        ("data.label_columns=[]", r"data\.label_columns: must be a list of at least 1 value, not an empty list$"),
        ("data.label_columns=species", r"data\.label_columns: must be a list of at least 1 value, not 'species'$"),
        ("data.pad_fill=red", r"data\.pad_fill: must be 'mean', 'edge' or a list of 3 values, not 'red'$"),
        ("data.pad_fill=[0, 0, 300]", r"data\.pad_fill\[2\]: must be a whole number >= 0 and <= 255, not 300$"),
        ("data.source=food-101", r"data\.source: must be .*; did you mean 'food101'\?$"),
        ("data.extensions=[.x]", r"data\.extensions: csv has no such key; it is folder's \(data\.source\)$"),
    ],
)
def test_mistakes_in_the_data_section_are_named_by_their_key(load, override, text):
    table = {"source": "csv", "root": "images", "csv": "fish.csv", "label_columns": ["species"]}
    with pytest.raises(UserError, match=text):
        load({**DIGITS, "data": table}, override)


@pytest.mark.parametrize("missing", ["model", "data"])
def test_data_and_model_are_required(load, missing):
    with pytest.raises(UserError, match=f"{missing}: required but missing"):
        load({key: value for key, value in DIGITS.items() if key != missing})


def test_every_source_is_told_by_its_name(load, tmp_path):
    folder = load({**DIGITS, "data": {"source": "folder", "root": str(tmp_path)}}).data
    assert isinstance(folder, FolderData)
    assert ".jpg" in folder.extensions
    for source in ("cifar10", "cifar100", "mnist", "fashion_mnist", "kmnist"):
        data = load({**DIGITS, "data": {"source": source, "root": "somewhere"}}).data
        assert isinstance(data, TorchvisionData)
        assert data.root.is_absolute()
        assert not data.download


def test_the_resolved_configuration_reads_back_equal(load, tmp_path):
    tree = {
        "model": {"name": "swin", "embed_dim": 48, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "patch_size": 2},
        "data": {"source": "folder", "root": "images", "image_size": [32, 48], "mean": [0.5, 0.5, 0.5]},
        "augmentation": {
            "randaugment": {"magnitude": 5},
            "random_erasing": {},
            "random_resized_crop": None,
            "mixup": 1,
        },
    }
    config = load(tree)
    (tmp_path / "resolved.yaml").write_text(dump_config(config))
    assert load_config(ClassificationConfig, tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("data.sauce=1", r"command line: data\.sauce: unknown key; did you mean 'source'"),
        ("data.source=digit", r"data\.source: must be .*not 'digit'; did you mean 'digits'"),
        (
            "data.image_size=0",
            r"data\.image_size: must be a whole number >= 1 and <= 16384 or a list of 2 values, not 0$",
        ),
        ("data.image_size=[32]", r"data\.image_size"),
        ("data.crop_pct=1.5", r"data\.crop_pct: must be a number >= 0.1 and <= 1 or 'auto', not 1\.5$"),
        ("data.workers=-1", r"data\.workers: must be a whole number >= 0 and <= 256 or 'auto', not -1$"),
        (
            "data.interpolation=bicubi",
            "'nearest', 'bilinear', 'bicubic', 'lanczos' or 'auto', .*mean 'bicubic'",
        ),
        ("training.accumulation=0", r"training\.accumulation: must be a whole number >= 1 or 'auto', not 0$"),
        ("data.workers=many", r"data\.workers: .*'auto'"),
        ("data.std=[0.1, 0.0, 0.1]", r"data\.std\[1\]: must be a number > 0, not"),
        ("data.sampling=ballanced", r"data\.sampling: must be 'natural', 'balanced' or 'square_root', not 'ballanced'"),
        ("data.mean=.nan", r"data\.mean: must be a list of 3 values or 'auto', not nan$"),
        ("augmentation.horizontal_flip=2", r"augmentation\.horizontal_flip: must be a number >= 0 and <= 1, not 2"),
        ("augmentation.randaugment=rand-m9-mst0.5", r"augmentation\.randaugment: 'mst0\.5' in 'rand-m9-mst0\.5'"),
        ("augmentation.randaugment=ramd-m9", r"augmentation\.randaugment: 'ramd-m9' is not understood"),
        (
            "augmentation.randaugment={magnitude: 11}",
            r"augmentation\.randaugment\.magnitude: must be a whole number .* <= 10, not",
        ),
        ("augmentation.autoaugment=v1", r"augmentation\.autoaugment: 'v1' is not understood; .*v0, v0r, original"),
        ("augmentation.random_resized_crop.scale=[1.0, 0.1]", r"crop\.scale: the smaller number comes first"),
        (
            "augmentation.random_erasing={area: [0.0, 0.3]}",
            r"random_erasing\.area\[0\]: must be a number > 0 and <= 1,",
        ),
        ("augmentation.mixup=-1", r"augmentation\.mixup: must be a number >= 0, not -1"),
        ("augmentation.mixing_mode=elem", r"augmentation\.mixing_mode: must be 'batch' or 'pair'"),
        ("loss.name=focel", r"loss\.name: must be .*; did you mean 'focal'"),
        ("loss.label_smoothing=1.0", r"loss\.label_smoothing: must be a number >= 0 and < 1, not"),
        ("model.drop_path=1", r"model\.drop_path: must be a number >= 0 and < 1, not 1"),
        ("model.depths=[2, 0]", r"model\.depths\[1\]: must be a whole number >= 1 and <= 1000, not 0"),
    ],
)
def test_impossible_values_are_named_with_what_is_right(load, override, text):
    with pytest.raises(UserError, match=text):
        load(DIGITS, override)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ("augmentation.mixup=0.8", "training.global_batch_size=7"),
            r"global_batch_size: must be even, not 7.*augmentation\.mixup",
        ),
        (
            ("augmentation.cutmix=1", "training.micro_batch_size=1"),
            r"micro_batch_size: must be at least 2 .*augmentation\.cutmix",
        ),
    ],
)
def test_batches_without_pairs_to_mix_are_refused(load, overrides, text):
    load(DIGITS, overrides[1])
    with pytest.raises(UserError, match=r"training\." + text):
        load(DIGITS, *overrides)


def test_policies_are_alternatives(load):
    with pytest.raises(UserError, match="randaugment and trivialaugment are alternatives"):
        load({**DIGITS, "augmentation": {"randaugment": "rand-m9", "trivialaugment": True}})


@pytest.mark.parametrize(("keys", "mixes"), [({"mixup": 0.2}, True), ({"cutmix": 1.0}, True), ({"mixup": 0.0}, False)])
def test_zero_and_null_turn_mixing_off(keys, mixes):
    assert AugmentationConfig(**keys).mixes == mixes
    if mixes:
        assert not AugmentationConfig(**keys, mixing_probability=0.0).mixes


FOLDER = {"source": "folder", "root": "images"}
SEVERAL = {"source": "csv", "root": "images", "csv": "a.csv", "label_columns": ["cod", "hake"]}


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (
            {"evaluation": {"thresholds": 0.4}},
            r"evaluation\.thresholds: has an effect only with several labels an image",
        ),
        (
            {"data": SEVERAL, "evaluation": {"calibration_bins": 5}},
            r"calibration_bins: .* only with one label an image",
        ),
        ({"data": {**FOLDER, "pad_fill": "edge"}}, r"data\.pad_fill: has an effect only with data\.resize: pad"),
        ({"data": {**FOLDER, "pad_fill": "edge"}, "augmentation": {"rotation": 9}}, r"data\.pad_fill: .*resize: pad"),
        ({"data": {**FOLDER, "crop_pct": 0.9, "resize": "pad"}}, r"data\.crop_pct: .* only with resize: crop"),
        ({"data": {**FOLDER, "split_seed": 3}}, r"data\.split_seed: has an effect only with val_fraction"),
        ({"augmentation": {"mixing_mode": "pair"}}, r"augmentation\.mixing_mode: .* only with mixup or cutmix"),
        (
            {"augmentation": {"mixup": 0, "mixing_probability": 0.5, "mixing_mode": "pair"}},
            r"augmentation\.mixing_probability: has an effect only with mixup or cutmix; remove it",
        ),
        (
            {"augmentation": {"mixup": 0.8, "cutmix_probability": 0.3}},
            r"augmentation\.cutmix_probability: has an effect only with cutmix; .* its default, 0\.5",
        ),
        (
            {"loss": {"name": "asymmetric", "alpha": 0.5, "gamma": 1}},
            r"loss\.alpha: asymmetric has no such",
        ),
    ],
)
def test_what_nothing_reads_is_refused(load, tree, text):
    with pytest.raises(UserError, match=text):
        load({**DIGITS, **tree})


@pytest.mark.parametrize(
    "tree",
    [
        {"data": SEVERAL, "loss": {"name": "bce"}, "evaluation": {"thresholds": 0.4}},
        {"data": {"source": "celeba", "root": "faces"}, "loss": {"name": "bce"}, "evaluation": {"thresholds": 0.4}},
        {"data": {**FOLDER, "pad_fill": [1, 2, 3]}, "augmentation": {"affine": {}}},
        {"data": {**FOLDER, "pad_fill": [1, 2, 3]}, "augmentation": {"trivialaugment": True}},
        {"data": {**FOLDER, "pad_fill": [1, 2, 3]}, "augmentation": {"randaugment": "rand-m9"}},
        {"data": {**FOLDER, "pad_fill": "edge", "resize": "pad", "val_fraction": 0.1, "split_seed": 3}},
        {"augmentation": {"cutmix": 1, "mixing_mode": "pair", "mixing_probability": 0.5}},
    ],
)
def test_what_is_read_is_taken(load, tree, tmp_path):
    config = load({**DIGITS, **tree})
    (tmp_path / "resolved.yaml").write_text(dump_config(config))
    assert load_config(ClassificationConfig, tmp_path / "resolved.yaml") == config


def test_the_command_line_may_turn_off_what_the_file_goes_into(load):
    """As a sweep does; the resolved configuration says what is used."""
    several = load({**DIGITS, "data": SEVERAL, "evaluation": {"thresholds": 0.4}}, "data={source: digits}")
    assert several.evaluation.thresholds == "tuned"
    padded = {**DIGITS, "data": {**FOLDER, "resize": "pad", "pad_fill": "edge"}}
    assert load(padded, "data.resize=squash").data.pad_fill == "mean"
    focal = {**DIGITS, "loss": {"name": "focal", "gamma": 1.5}}
    assert load(focal, "loss.name=cross_entropy").loss == CrossEntropyConfig()
    with pytest.raises(UserError, match=r"command line: data\.pad_fill: has an effect only with"):
        load(padded, "data.resize=squash", "data.pad_fill=[0, 0, 0]")


@pytest.mark.parametrize(
    "text",
    [
        "rand-m9-mstd0.5-inc1",
        "rand-m15-n2-mmax20",
        "rand-mstd1-tweights",
        "rand-m9-n3-p0.7-t3aw",
        "rand",
        "rand-mstd101",
    ],
)
def test_timms_randaugment_notation_is_accepted_and_timm_takes_it(text):
    from timm.data.auto_augment import rand_augment_transform

    assert AugmentationConfig(randaugment=text).randaugment == text
    rand_augment_transform(text, {})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"randaugment": "rand-m99"}, "'m99' in 'rand-m99' is too much: m goes from 0 to 30"),
        ({"randaugment": "rand-m9-mmax31-inc1"}, "'mmax31' in .* is too much: mmax goes from 0 to 30"),
        ({"randaugment": "rand-m9-n99"}, "'n99' in .* is too much: n goes from 1 to 14"),
        ({"randaugment": {"layers": 99}}, "layers"),
        ({"augmix": "augmix-m99-w3"}, "'m99' in .* is too much: timm clips m, which goes from 0 to 10"),
    ],
)
def test_policies_of_senseless_strength_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        AugmentationConfig(**keys)


def test_a_magnitude_that_timm_clips_is_asked_about():
    (question,) = AugmentationConfig(randaugment="rand-m15-n2-mstd0.5-inc1").questions()
    assert "timm clips m15 to 10" in question and "mmax15" in question
    assert "timm clips m25 to 20" in AugmentationConfig(randaugment="rand-m25-mmax20").questions()[0]
    for fine in ("rand-m10", "rand", "rand-m15-mmax20", {"magnitude": 10}, None):
        assert not AugmentationConfig(randaugment=fine).questions()


def test_randaugment_as_keys_means_the_same_as_text():
    from timm.data.auto_augment import rand_augment_transform

    keys = RandAugmentConfig(magnitude=7, layers=3, probability=0.4, magnitude_std=0.25, increasing=True)
    ours, text = rand_augment_transform(keys.text, {}), rand_augment_transform("rand-m7-n3-p0.4-mstd0.25-inc1", {})
    assert repr(ours) == repr(text)
    assert ours.num_layers == 3


@pytest.mark.parametrize("name", [name for name in SWIN_SHAPES if name != "swin"])
def test_our_models_may_change_single_fields(name):
    assert section(ModelConfig, name=name).given == {}
    assert section(ModelConfig, name=name).swin_shape() == SWIN_SHAPES[name]
    assert section(ModelConfig, name=name, window_size=8).swin_shape() == replace(SWIN_SHAPES[name], window_size=8)


def test_a_swin_of_ones_own_shape_needs_its_shape(load):
    shape = {"embed_dim": 48, "depths": [2, 2, 2], "num_heads": [2, 4, 8]}
    config = load({**DIGITS, "model": {"name": "swin", **shape, "patch_size": 2, "window_size": 4}})
    assert config.model.given == {
        "embed_dim": 48, "depths": (2, 2, 2), "num_heads": (2, 4, 8), "patch_size": 2, "window_size": 4,
    }  # fmt: skip
    with pytest.raises(UserError, match="also needs embed_dim and num_heads"):
        load({**DIGITS, "model": {"name": "swin", "depths": [2, 2]}})
    with pytest.raises(UserError, match="one entry per stage"):
        load({**DIGITS, "model": {"name": "swin", **shape, "depths": [2, 2]}})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("swin_tinny", "no model 'swin_tinny'; did you mean 'swin_tiny'"),
        ("timm/resnet5", "no model 'timm/resnet5'; did you mean 'timm/resnet5.*'"),
        ("resnet50", "no model 'resnet50'; did you mean 'timm/resnet50'"),
        ("timm/resnet50.a1_in2k", r"no model 'timm/resnet50\.a1_in2k'; did you mean 'timm/resnet50\.a1_in1k'"),
        ("timm/!", "no model 'timm/!'; there are swin_tiny, .* and timm/NAME"),
    ],
)
def test_an_unknown_model_offers_the_nearest(load, name, text):
    with pytest.raises(UserError, match=rf"run\.yaml:\d+: model\.name: {text}"):
        load({**DIGITS, "model": {"name": name}})


@pytest.mark.parametrize("name", ["resnet50", "resnet50.a1_in1k", "tf_efficientnet_lite0"])
def test_timms_models_are_known_with_and_without_tag(name):
    assert timm.is_model(name)
    assert section(ModelConfig, name=f"timm/{name}").timm_name == name
    assert section(ModelConfig, name="swin_tiny").timm_name is None


def test_another_model_on_the_command_line_leaves_out_a_swins_shape(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model: {name: swin_tiny, window_size: 4, depths: [1, 1, 1, 1]}\ndata: {source: digits}\n")
    found = load_config(ClassificationConfig, path, ["model.name=timm/resnet18"]).model
    assert found == TimmModel(name="timm/resnet18")


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            {"name": "timm/resnet50", "window_size": 7},
            r"model\.window_size: timm/resnet50 has no such key; it is swin_tiny's, .* \(model\.name\)",
        ),
        ({"name": "swin_tiny", "embed_dim": 100}, r"model: a stage of 100 channels cannot be split over 3 heads"),
        (
            {"name": "swin_tiny", "patch_size": 256},
            r"data\.image_size: must be at least model\.patch_size \(256\), not 224",
        ),
        (
            {"name": "timm/resnet50", "pretrained": True},
            r"run\.yaml:\d+: model\.pretrained: unknown key; finetune\.weights: timm starts from the weights that timm",
        ),
    ],
)
def test_keys_that_do_not_belong_to_a_model_are_refused(load, model, text):
    with pytest.raises(UserError, match=text):
        load({**DIGITS, "model": model})


def test_weights_that_timm_publishes_are_asked_for_by_a_word(load, tmp_path):
    published = {**DIGITS, "model": {"name": "timm/resnet18"}, "finetune": {"weights": "timm"}}
    config = load(published)
    assert config.finetune.weights == "timm"
    (tmp_path / "resolved.yaml").write_text(dump_config(config))
    assert load_config(ClassificationConfig, tmp_path / "resolved.yaml") == config
    assert load(published, "finetune.weights=./timm").finetune.weights == Path.cwd() / "timm"
    assert load(published, "model.name=swin_tiny", "finetune.weights=null").finetune.weights is None
    assert load(published, "finetune.weights=5").finetune.weights == Path.cwd() / "5"


def test_weights_that_timm_does_not_publish_are_refused(load):
    without = next(name for name in timm.list_models() if not timm.models.is_model_pretrained(name))
    tree = {"finetune": {"weights": "timm"}, **DIGITS, "model": {"name": f"timm/{without}"}}
    with pytest.raises(UserError, match=rf"run\.yaml:4: finetune\.weights: timm publishes none for '{without}'"):
        load(tree)
    with pytest.raises(UserError, match=r"^command line: model\.name: finetune\.weights: timm is for timm's .* give a"):
        load(tree, "model.name=swin_tiny")
    with pytest.raises(UserError, match=r"^command line: finetune\.weights: timm is for timm's"):
        load(DIGITS, "finetune.weights=timm")


def test_the_schema_documents_every_key():
    schema = json_schema(ClassificationConfig, "classification")
    text = json.dumps(schema)
    assert "Mixup (arXiv:1710.09412)" in text
    undocumented = [
        f"{section}.{key}"
        for section, body in schema["$defs"].items()
        for key, field in body.get("properties", {}).items()
        if "description" not in field
    ]
    assert undocumented == []
