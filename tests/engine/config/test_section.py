"""Configuration: what is read, what is refused and in which words, what is written back."""

import math
import random
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from engine.config.load import differences, dump_config, is_below, load_config
from engine.config.paths import AbsolutePath
from engine.config.reference import json_schema
from engine.config.section import Section, Variants, may_import
from engine.errors import UserError


class Sgd(Section):
    name: Literal["sgd"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    momentum: float = 0.9


class Adam(Section):
    name: Literal["adam", "adamw"]
    lr: Annotated[float, Field(gt=0)] = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


class Ema(Section):
    decay: float = 0.999


class Training(Section):
    """How long and in what batches."""

    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the data."""
    global_batch_size: int = 128
    accumulation: int | Literal["auto"] = "auto"
    compile: bool = False
    clip: float | None = None
    ema: Ema | None = None
    ceiling: float = Field(math.inf, allow_inf_nan=True)

    @model_validator(mode="after")
    def _divisible(self) -> "Training":
        if isinstance(self.accumulation, int) and self.global_batch_size % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} must divide global_batch_size {self.global_batch_size}")
        return self


class Folder(Section):
    source: Literal["folder"]
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    size: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = 8
    part: Annotated[float, Field(gt=0, le=1)] | Literal["all", "auto"] = "auto"
    policy: str | Ema | None = None
    weights: dict[str, float | Literal["auto"]] | Literal["none"] = "none"


class Embedded(Section):
    source: Literal["digits"]


class Nested(Section):
    data: Annotated[Folder | Embedded, Variants("source")]


class Rooted(Section):
    source: Literal["folder"]
    root: AbsolutePath


class Needy(Section):
    data: Annotated[Rooted | Embedded, Variants("source")]


class Data(Section):
    source: Literal["folder", "digits"]
    root: AbsolutePath | None = None
    csv: AbsolutePath | dict[str, AbsolutePath] | None = None
    class_weights: dict[str, float] = {}
    label_columns: list[str] = []


class Run(Section):
    name: str = ""
    root: AbsolutePath = Path("experiments")
    data: Data
    training: Training = Training()
    optimizer: Annotated[Sgd | Adam, Variants("name")] = Sgd()

    @model_validator(mode="after")
    def _mixable(self) -> "Run":
        if self.training.epochs == 13:
            raise ValueError("training.epochs: 13 brings bad luck")
        if self.optimizer.lr > 1:
            raise ValueError(f"optimizer.lr {self.optimizer.lr} is above 1")
        if self.name == "nobody":
            raise ValueError("somebody has to run this")
        return self


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "run.yaml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(text: str, *overrides: str) -> Run:
    return load_config(Run, write(text), overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(text, *overrides)
    return str(caught.value).splitlines()


MINIMAL = "data: {source: digits}\n"


def test_defaults_apply() -> None:
    config = load(MINIMAL)
    assert config.training.epochs == 10
    assert config.optimizer == Sgd()
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "other"


def test_types_are_not_converted_but_integers_are_floats_and_lists_tuples() -> None:
    config = load(MINIMAL + "optimizer: {name: adamw, lr: 1, betas: [0, 0.5]}\ntraining: {clip: 5}\n")
    assert config.optimizer == Adam(name="adamw", lr=1.0, betas=(0.0, 0.5))
    assert config.training.clip == 5.0
    assert isinstance(config.training.clip, float)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs: true", "must be a whole number >= 1, not true"),
        ('epochs: "3"', "must be a whole number >= 1, not '3'"),
        ("epochs: 3.0", "must be a whole number >= 1, not 3.0"),
        ("epochs: 1e1", "must be a whole number >= 1, not 10.0"),
        ("epochs: null", "must be a whole number >= 1, not null"),
        ("epochs: [3]", "must be a whole number >= 1, not a list"),
        ("epochs: -3", "must be a whole number >= 1, not -3"),
        ("clip: true", "must be a number, not true"),
        ("clip: .nan", "must be a finite number, not nan"),
        ("clip: -.inf", "must be a finite number, not -inf"),
        ("compile: yes", "must be true or false, not 'yes'"),
        ("compile: 1", "must be true or false, not 1"),
        ("accumulation: {}", "must be a whole number or 'auto', not a mapping"),
        ("accumulation: auto2", "must be a whole number or 'auto', not 'auto2'; did you mean 'auto'?"),
        ("ema: 3", "must be a section of keys, not 3"),
    ],
)
def test_wrong_values_are_named_with_file_and_line(line: str, message: str) -> None:
    key = line.partition(":")[0]
    assert problems(f"{MINIMAL}training:\n  {line}\n") == [f"run.yaml:3: training.{key}: {message}"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("workers=-1", "workers: must be a whole number >= 0 or 'auto', not -1"),
        ("workers=many", "workers: must be a whole number >= 0 or 'auto', not 'many'"),
        ("workers=aut", "workers: must be a whole number >= 0 or 'auto', not 'aut'; did you mean 'auto'?"),
        ("size=0", "size: must be a whole number >= 1 or a list of 2 values, not 0"),
        ("size=[8, 0]", "size[1]: must be a whole number >= 1, not 0"),
        ("size=[8]", "size: must be a whole number >= 1 or a list of 2 values, not of 1"),
        ("part=2", "part: must be a number > 0 and <= 1, 'all' or 'auto', not 2"),
        (
            "policy=[3]",
            "policy: must be text (in quotes if it looks like something else) or a section of keys, not a list",
        ),
        ("policy={decai: 1}", "policy.decai: unknown key; did you mean 'decay'?"),
        ("weights=3", "weights: must be a mapping or 'none', not 3"),
        ("weights={a: x}", "weights.a: must be a number or 'auto', not 'x'"),
    ],
)
def test_a_union_is_one_line_that_says_all_it_takes(override: str, message: str) -> None:
    """Also within a section that is itself one of several, told apart by a key."""
    with pytest.raises(UserError) as caught:
        load_config(Nested, write("data: {source: folder}"), [f"data.{override}"])
    assert str(caught.value) == f"command line: data.{message}"


def test_what_needs_slow_imports_is_checked_after_all_that_does_not() -> None:
    asked: list[bool] = []

    class Named(Section):
        name: str
        size: int = 1

        @field_validator("name")
        @classmethod
        def _known(cls, name: str, info: ValidationInfo) -> str:
            asked.append(may_import(info))
            if may_import(info):
                raise ValueError(f"nobody knows {name}")
            return name

    def problem(text: str) -> str:
        asked.clear()
        with pytest.raises(UserError) as caught:
            load_config(Named, write(text))
        return str(caught.value)

    assert problem("name: x\nsize: y\n") == "run.yaml:2: size: must be a whole number, not 'y'"
    assert asked == [False]
    assert problem("name: x\n") == "run.yaml:1: name: nobody knows x"
    assert asked == [False, True]
    with pytest.raises(ValidationError, match="nobody knows x"):
        Named(name="x")


def test_all_problems_are_found_at_once_in_order_of_lines() -> None:
    text = """\
name: 3
data:
  source: folderr
  csv: {train: a.csv, val: 7}
optimizer: {name: adam, betas: [1]}
training:
  epochs: 0
  lr: 1
unheard: of
"""
    assert problems(text) == [
        "run.yaml:1: name: must be text (in quotes if it looks like something else), not 3",
        "run.yaml:3: data.source: must be 'folder' or 'digits', not 'folderr'; did you mean 'folder'?",
        "run.yaml:4: data.csv.val: must be a path, not 7",
        "run.yaml:5: optimizer.betas: must be a list of 2 values, not of 1",
        "run.yaml:7: training.epochs: must be a whole number >= 1, not 0",
        "run.yaml:8: training.lr: unknown key; did you mean 'optimizer.lr'?",
        "run.yaml:9: unheard: unknown key; valid are name, root, data, training, optimizer",
    ]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("epoch: 3", "unknown key; did you mean 'epochs'?"),
        ("gobal_batch_size: 3", "unknown key; did you mean 'global_batch_size'?"),
        ("momentum: 0.9", "unknown key; did you mean 'optimizer.momentum'?"),
        ("decay: 0.9", "unknown key; did you mean 'training.ema.decay'?"),
        ("leraning_rate: 0.9", "unknown key; did you mean 'optimizer.lr'?"),
        ("batch_size: 64", "unknown key; did you mean 'global_batch_size'?"),
        ("momentun: 1", "unknown key; did you mean 'optimizer.momentum'?"),
        (
            "pretrained: false",
            "unknown key; finetune.weights: timm starts from the weights that timm publishes, finetune.weights: null "
            "from none",
        ),
    ],
)
def test_unknown_keys_get_the_nearest_known_one(line: str, hint: str) -> None:
    key = line.partition(":")[0]
    assert problems(f"{MINIMAL}training: {{{line}}}") == [f"run.yaml:2: training.{key}: {hint}"]
    assert problems(MINIMAL, f"training.{line.replace(': ', '=')}") == [f"command line: training.{key}: {hint}"]


def test_missing_keys_are_named_at_their_section() -> None:
    assert problems("name: x\ntraining: {}\n") == ["run.yaml:1: data: required but missing"]
    assert problems("name: x\n\ndata:\n  root: y\n") == ["run.yaml:3: data.source: required but missing"]


def test_discriminated_sections() -> None:
    assert problems(MINIMAL + "optimizer: {name: adm}\n") == [
        "run.yaml:2: optimizer.name: must be 'sgd', 'adam' or 'adamw', not 'adm'; did you mean 'adam'?"
    ]
    assert problems(MINIMAL + "optimizer:\n  name: adam\n  momentum: 1\n") == [
        "run.yaml:4: optimizer.momentum: adam has no such key; it is sgd's (optimizer.name)"
    ]
    assert load(MINIMAL + "optimizer: {momentum: 0.5}\n").optimizer == Sgd(momentum=0.5)
    with pytest.raises(UserError, match=r"^run\.yaml:2: data\.source: required but missing$"):
        load_config(Nested, write("# nothing\ndata: {workers: 1}\n"))


def test_checks_over_several_keys_are_placed_at_their_section_or_at_the_key_they_name() -> None:
    assert problems(MINIMAL + "training:\n  accumulation: 3\n") == [
        "run.yaml:2: training: accumulation 3 must divide global_batch_size 128"
    ]
    assert problems(MINIMAL + "training:\n  clip: 1\n  epochs: 13\n") == [
        "run.yaml:4: training.epochs: 13 brings bad luck"
    ]
    assert problems(MINIMAL + "optimizer: {name: sgd,\n  lr: 2}\n") == ["run.yaml:3: optimizer.lr: 2.0 is above 1"]
    assert problems(MINIMAL, "training.epochs=13") == ["command line: training.epochs: 13 brings bad luck"]
    assert problems(MINIMAL + "name: nobody\n") == ["run.yaml:1: somebody has to run this"]


def test_checks_over_several_keys_are_placed_where_the_last_word_was_said() -> None:
    lines = MINIMAL + "training:\n  accumulation: 3\n  global_batch_size: 6\n"
    assert problems(lines, "training.global_batch_size=7") == [
        "command line: training.global_batch_size: accumulation 3 must divide global_batch_size 7"
    ]
    write(lines, "base.yaml")
    assert problems("base: base.yaml\ntraining:\n  accumulation: 4\n") == [
        "run.yaml:2: training: accumulation 4 must divide global_batch_size 6"
    ]


def test_what_a_choice_of_the_command_line_makes_necessary_is_missing_there() -> None:
    text = "command line: data.root: required but missing (data.source: folder)"
    with pytest.raises(UserError) as caught:
        load_config(Needy, write("data: {source: digits}"), ["data.source=folder"])
    assert str(caught.value) == text


def test_overrides_win_and_change_one_leaf_or_replace_a_mapping() -> None:
    text = MINIMAL + "training: {epochs: 5, clip: 1}\n"
    config = load(text, "training.epochs=7", "training.ema.decay=1e-1", "data.label_columns=[a, no]", "name=x=y")
    assert (config.training.epochs, config.training.clip, config.name) == (7, 1.0, "x=y")
    assert config.training.ema == Ema(decay=0.1)
    assert config.data.label_columns == ["a", "no"]
    assert load(text, "training={epochs: 7}").training == Training(epochs=7)
    assert load(text, "training={epochs: 7}", "training.clip=2").training == Training(epochs=7, clip=2)
    assert load(text, "training.epochs=7", "training.epochs=8").training.epochs == 8
    assert load(text, "training.clip=").training.clip is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "'training.epochs' is not of the form key.path=value"),
        ("training..epochs=1", "'training..epochs=1' is not of the form key.path=value"),
        ("=1", "'=1' is not of the form key.path=value"),
        ("--epochs=1", "--epochs: unknown key; did you mean 'training.epochs'?"),
        ("training.epochs.x=1", "training.epochs: must be a whole number >= 1, not a mapping"),
        ("data.source=", "data.source: must be 'folder' or 'digits', not null"),
    ],
)
def test_bad_overrides_are_named_as_the_command_lines(override: str, message: str) -> None:
    assert problems(MINIMAL, override) == [f"command line: {message}"]


def test_an_override_that_is_not_yaml_names_its_key() -> None:
    (problem,) = problems(MINIMAL, "data.label_columns=[a")
    assert problem.startswith("command line: data.label_columns: is not valid YAML: ")


def test_an_override_in_a_section_leaves_the_section_where_the_file_has_it() -> None:
    assert problems("name: x\ndata: {}\n", "data.root=x") == ["run.yaml:2: data.source: required but missing"]


def test_problems_in_a_base_are_named_there() -> None:
    write("training:\n  epoch: 3\n", "bases/common.yaml")
    assert problems("base: bases/common.yaml\n" + MINIMAL) == [
        "bases/common.yaml:2: training.epoch: unknown key; did you mean 'epochs'?"
        " ('training: !replace' in run.yaml starts the section anew)"
    ]


def test_another_variant_than_the_bases_leaves_out_what_it_does_not_have() -> None:
    write(MINIMAL + "optimizer:\n  name: sgd\n  lr: 0.5\n  momentum: 0.8\n", "base.yaml")
    assert load("base: base.yaml\noptimizer: {name: adam}\n").optimizer == Adam(name="adam", lr=0.5)
    assert load("base: base.yaml\noptimizer: !replace {name: adam}\n").optimizer == Adam(name="adam")
    assert load("base: base.yaml\noptimizer: {lr: 0.25}\n").optimizer == Sgd(lr=0.25, momentum=0.8)
    assert problems("base: base.yaml\noptimizer: {betas: [0, 1]}\n") == [
        "run.yaml:2: optimizer.betas: sgd has no such key; it is adam's and adamw's (optimizer.name)"
    ]


def test_paths_are_taken_from_the_current_directory(tmp_path: Path) -> None:
    config = load_config(Run, write("data: {source: folder, root: images}\n", "configs/deep/run.yaml"))
    assert config.data.root == tmp_path / "images"
    assert config.root == tmp_path / "experiments"
    assert load(MINIMAL, "data.root=~/x").data.root == Path.home() / "x"
    assert load(MINIMAL, "data.csv={train: a, val: /b}").data.csv == {"train": tmp_path / "a", "val": Path("/b")}
    assert problems(MINIMAL, "data.root=''") == [
        "command line: data.root: must be a path, not empty text; null, where none is needed"
    ]


def test_dumped_configuration_reproduces_itself_and_says_the_same_to_any_yaml_reader() -> None:
    words = ["no", "on", "010", "12:00", "1e-3", "0o17", "0x1F", "1_000", "null", "~", "", " a ", "a: b", "# x", "é漢"]
    words += ["!x", "*a", "&a", "- a", "2024-01-01", "=", "<<", ".inf", "+1", "'"]
    words += ["line\nbreak\n", "tail \nspace", '"', "\t", "\x85", "\u2028", "\r\n", "\x00", "long words " * 40]
    random.seed(1)
    for _ in range(50):
        weights = {word: random.uniform(-1, 1) * 10.0 ** random.randint(-300, 300) for word in words}
        config = Run(
            name=random.choice(words),
            data=Data(source="folder", root=Path("x"), class_weights=weights, label_columns=words),
            training=Training(clip=1e-5, ema=Ema(decay=1e22), compile=True),
            optimizer=Adam(name="adamw", lr=random.random()),
        )
        text = dump_config(config)
        assert load_config(Run, write(text, "dumped.yaml")) == config
        assert yaml.safe_load(text) == config.model_dump(mode="json")


def test_dump_is_readable() -> None:
    text = dump_config(load(MINIMAL + "name: 'no'\noptimizer: {name: adamw, lr: 1e-5}\n", "root=/runs"))
    assert text.startswith("name: 'no'\nroot: /runs\n\ndata:\n  source: digits\n  root: null\n")
    assert text.endswith("\n\noptimizer:\n  name: adamw\n  lr: 1.0e-05\n  betas: [0.9, 0.999]\n")


def test_differences() -> None:
    old = load(MINIMAL)
    new = load(MINIMAL, "training.epochs=3", "optimizer={name: adam, lr: 0.1}", "data.label_columns=[a]")
    assert differences(old, old) == []
    assert sorted(differences(old, new)) == [
        ("data.label_columns", [], ["a"]),
        ("optimizer.betas", None, [0.9, 0.999]),
        ("optimizer.momentum", 0.9, None),
        ("optimizer.name", "sgd", "adam"),
        ("training.epochs", 10, 3),
    ]
    assert differences({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}) == [("a.c", None, 2)]
    assert differences({"a": 1}, {"a": {"b": 1}}) == [("a", 1, None), ("a.b", None, 1)]


def test_keys_below_a_section() -> None:
    assert is_below("data.root", ["model", "data"]) and is_below("data", ["data"]) and is_below("a.b.c", ["a.b"])
    assert not is_below("database.root", ["data"]) and not is_below("data", ["data.root"])


def test_json_schema_describes_keys_and_lets_a_base_supply_what_is_required() -> None:
    schema = json_schema(Run, "A run")
    assert schema["title"] == "A run"
    assert schema["additionalProperties"] is False
    assert schema["anyOf"] == [{"required": ["base"]}, {"required": ["data"]}]
    assert set(schema["properties"]) == {"base", "name", "root", "data", "training", "optimizer"}
    training = schema["$defs"]["Training"]
    assert training["description"] == "How long and in what batches."
    assert training["properties"]["epochs"]["description"] == "Passes over the data."
    assert training["properties"]["epochs"]["minimum"] == 1
    assert "required" not in schema["$defs"]["Data"]
    assert [variant["$ref"] for variant in schema["properties"]["optimizer"]["anyOf"]] == [
        "#/$defs/Sgd",
        "#/$defs/Adam",
    ]
