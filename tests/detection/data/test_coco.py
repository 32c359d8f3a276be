"""Reading COCO files: labels, crowds, empty images, and everything that can be wrong."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from detection.augmentation.sections import AugmentationConfig
from detection.augmentation.transforms import TrainTransform
from detection.data.coco import read_split
from detection.data.open import check_data, described, open_images
from detection.data.sample import read_sample
from detection.data.sections import CocoData
from engine.data.names import Names
from engine.errors import UserError
from engine.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from tests.detection.coco_files import CATEGORIES, box, coco_data, write_split

GOOD = [1, 2, 10, 20]


def read(root, annotations, **changes):
    write_split(root, "train", annotations, **changes)
    return read_split(coco_data(root), "train")


def kinds(findings) -> dict[str, tuple]:
    return {finding.kind: finding.ids for finding in findings}


def test_sparse_ids_in_any_order_become_labels_and_back(tmp_path):
    boxes = [box(1, 103, GOOD, 90), box(2, 101, [0, 0, 5, 5], 7), box(3, 103, [3, 3, 4, 4], 2)]
    images, findings = read(tmp_path, boxes)
    known = images.annotations
    assert not findings
    assert (known.classes, known.category_ids) == (["cat", "dog", "owl"], [2, 7, 90])
    assert known.image_ids.tolist() == [101, 102, 103]
    assert [known.labels[known.of(i)].tolist() for i in range(3)] == [[1], [], [2, 0]]
    assert known.boxes[known.of(2)].tolist() == [[1, 2, 11, 22], [3, 3, 7, 7]]
    assert known.areas[known.of(2)].tolist() == [200, 16]


def test_ids_may_be_texts(tmp_path):
    images = [{"id": name, "file_name": f"{i}.png", "width": 40, "height": 30} for i, name in enumerate("zyx")]
    categories = [{"id": "b", "name": "bee"}, {"id": "a", "name": "ant"}]
    found, findings = read(tmp_path, [box(1, "x", GOOD, "b")], images=images, categories=categories)
    assert not findings
    assert (found.annotations.classes, found.annotations.labels.tolist()) == (["ant", "bee"], [1])
    assert found.annotations.image_ids.tolist() == ["z", "y", "x"]
    assert found.annotations.starts.tolist() == [0, 0, 0, 1]


def test_crowds_are_kept_apart_and_a_missing_iscrowd_is_none(tmp_path):
    boxes = [box(1, 101, GOOD, iscrowd=1, area=33.5), box(2, 101, GOOD, iscrowd=0), box(3, 101, GOOD)]
    known = read(tmp_path, boxes)[0].annotations
    assert known.crowd.tolist() == [True, False, False]
    assert known.areas.tolist() == [33.5, 200, 200]


def test_all_is_kept_as_arrays(tmp_path):
    images, _ = read(tmp_path, [box(1, 101, GOOD)])
    arrays = [value for value in vars(images.annotations).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 7 and not any(array.dtype == object for array in arrays)
    assert len(images.annotations.classes) == 3
    assert not any(isinstance(value, list) for value in vars(images).values())
    assert isinstance(images.names, Names)


@pytest.mark.parametrize(
    ("kind", "bad", "kept"),
    [
        ("degenerate", box(9, 101, [3, 3, 0, 4]), False),
        ("degenerate", box(9, 101, [3, 3, 4, -4]), False),
        ("not_finite", box(9, 101, [3, float("nan"), 4, 4]), False),
        ("not_finite", box(9, 101, [3, 3, float("inf"), 4]), False),
        ("not_finite", box(9, 101, [3, 3, 10**400, 4]), False),
        ("malformed", box(9, 101, [3, 3, 4]), False),
        ("malformed", box(9, 101, [3, 3, "4", 4]), False),
        ("malformed", {"id": 9, "image_id": 101, "category_id": 2}, False),
        ("unknown_image", box(9, 5, GOOD), False),
        ("outside", box(9, 101, [50, 3, 4, 4]), False),
        ("partly_outside", box(9, 101, [30, 20, 14, 14]), True),
        ("partly_outside", box(9, 101, [-400, -300, 440, 330]), True),
        ("far_outside", box(9, 101, [-401, 3, 410, 4]), False),
        ("far_outside", box(9, 101, [3, 3, 4, 1e308]), False),
        ("odd_iscrowd", box(9, 101, GOOD, iscrowd="yes"), True),
        ("odd_area", box(9, 101, GOOD, area=-5), True),
    ],
)
def test_boxes_that_are_wrong_are_counted_named_and_left_out(tmp_path, kind, bad, kept, caplog):
    write_split(tmp_path, "train", [box(1, 101, GOOD), bad])
    with caplog.at_level(logging.WARNING):
        known = open_images(coco_data(tmp_path), "train").annotations
    assert len(known.boxes) == 1 + kept
    (finding,) = read_split(coco_data(tmp_path), "train")[1]
    assert (finding.kind, finding.ids, finding.fatal) == (kind, (9,), False)
    assert "train.json: 1 boxes" in caplog.text and "(ids: 9)" in caplog.text


def test_a_box_may_reach_out_by_what_rounding_does(tmp_path):
    assert not read(tmp_path, [box(1, 101, [30, 20, 10.004, 10])])[1]


@pytest.mark.parametrize(
    ("kind", "ids", "changes"),
    [
        ("unknown_category", (9,), {"annotations": [box(9, 101, GOOD, 3)]}),
        ("duplicate_image_ids", (1,), {"images": [{"id": 1, "file_name": "0.png", "width": 40, "height": 30}] * 2}),
        ("missing_images", (4,), {"images": [{"id": 4, "file_name": "gone.png", "width": 40, "height": 30}]}),
        ("malformed_image", (4,), {"images": [{"id": 4, "file_name": "0.png", "width": 0, "height": 30}]}),
        ("no_images", (), {"images": []}),
        ("duplicate_category_ids", (7,), {"categories": [*CATEGORIES, {"id": 7, "name": "wolf"}]}),
        ("malformed_category", ("none",), {"categories": [*CATEGORIES, {"name": "wolf"}]}),
        ("no_categories", (), {"categories": []}),
    ],
)
def test_what_training_cannot_do_without_is_refused_by_name(tmp_path, kind, ids, changes):
    write_split(tmp_path, "train", **{"annotations": [], **changes})
    assert kinds(f for f in read_split(coco_data(tmp_path), "train")[1] if f.fatal)[kind] == ids
    with pytest.raises(UserError, match=rf"train\.json: .*\(ids: {ids[0]}" if ids else r"train\.json: the|there"):
        open_images(coco_data(tmp_path), "train")


def test_files_are_found_however_their_names_are_spelt(tmp_path):
    names = {"caf\u00e9 0.png": "0.png", "sub/1.png": "1.png", "2.PNG": "2.png"}
    listed = ("cafe\u0301%200.png", "sub\\1.png", "2.png")
    images = [{"id": 101 + k, "file_name": name, "width": 40, "height": 30} for k, name in enumerate(listed)]
    write_split(tmp_path, "train", [box(1, 101, GOOD)], images=images)
    (tmp_path / "train" / "sub").mkdir()
    for name, before in names.items():
        (tmp_path / "train" / before).rename(tmp_path / "train" / name)
    opened, (finding,) = read_split(coco_data(tmp_path), "train")
    assert [opened.name(k) for k in range(3)] == list(names) and opened.image(0).size == (40, 30)
    assert (finding.kind, finding.ids, finding.fatal) == ("spelt_otherwise", (101, 102, 103), False)


def test_images_that_no_entry_lists_are_counted_unless_another_split_has_them(tmp_path):
    images = [{"id": 4, "file_name": "./1.png", "width": 40, "height": 30}]
    write_split(tmp_path, "train", [], images=images)
    (tmp_path / "train" / "notes.txt").touch()
    (finding,) = read_split(coco_data(tmp_path), "train")[1]
    assert (finding.kind, finding.fatal) == ("unlisted", False)
    assert finding.text == f"2 other images lie in the same folders; left out; the first: {tmp_path}/train/0.png"
    shared = coco_data(tmp_path, val={"images": "train/", "annotations": "val.json"})
    assert not read_split(shared, "train")[1]


def test_a_missing_file_is_named_with_the_nearest(tmp_path):
    images = [{"id": 4, "file_name": "img_0.png", "width": 40, "height": 30}]
    write_split(tmp_path, "train", [], images=images)
    (tmp_path / "train" / "img_00.png").touch()
    text = f"images that are not in {tmp_path}/train, such as img_0.png; the nearest is 'img_00.png'"
    assert [finding.text for finding in read_split(coco_data(tmp_path), "train")[1]] == [text]


def test_folders_and_files_that_may_not_be_read_are_called_so(tmp_path, monkeypatch):
    write_split(tmp_path, "train", [box(1, 101, GOOD)])

    def denied(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / "train"))

    with monkeypatch.context() as patched:
        patched.setattr("engine.images.file_names.os.listdir", denied)
        (finding,) = read_split(coco_data(tmp_path), "train")[1]
    assert finding.fatal and finding.text == f"the folder {tmp_path}/train cannot be read: Permission denied"
    monkeypatch.setattr("detection.data.coco_json.Path.open", denied)
    with pytest.raises(UserError, match=r"train\.json: cannot be read: Permission denied"):
        read_split(coco_data(tmp_path), "train")
    monkeypatch.setattr("engine.files.os.stat", denied)
    with pytest.raises(UserError, match=r"/train cannot be read: Permission denied"):
        read_split(coco_data(tmp_path), "train")


def test_categories_that_look_alike_are_told(tmp_path):
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "Cat"}, {"id": 3, "name": "dog"}]
    (finding,) = read(tmp_path, [], categories=categories)[1]
    assert (finding.kind, finding.ids, finding.fatal) == ("look_alike_categories", (1, 2), False)
    assert finding.text.endswith("such as 'cat', 'Cat'")


@pytest.mark.parametrize(
    "images",
    [
        {"id": 4, "file_name": "0.png", "width": float("inf"), "height": 30},
        {"id": 4, "file_name": "0.png", "width": 10**40, "height": 30},
        {"id": 4, "file_name": "0.png", "width": 40.5, "height": 30},
        {"id": 4, "file_name": "\ud800.png", "width": 40, "height": 30},
        {"id": 4, "file_name": "0\0.png", "width": 40, "height": 30},
        {"id": 4.5, "file_name": "0.png", "width": 40, "height": 30},
        {"id": True, "file_name": "0.png", "width": 40, "height": 30},
    ],
)
def test_images_of_impossible_names_and_sizes_are_named(tmp_path, images):
    _, findings = read(tmp_path, [], images=[images])
    assert kinds(findings) == {"malformed_image": (images["id"],)}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"width": None}, "images without width"),
        ({"file_name": None}, "images without file_name"),
        ({"width": 0}, "images whose width is no whole number from 1 on, such as 0"),
        ({"height": "160"}, 'images whose height is no whole number from 1 on, such as the text "160"'),
        ({"file_name": 7}, "images whose file_name is no name of a file, such as 7"),
        ({"id": 4.5}, "images whose id is no whole number of 64 bits or text, such as 4.5"),
        ({"id": 2**63}, "images whose id is no whole number of 64 bits or text, such as 9223372036854775808"),
        ({"id": 1e30}, "images whose id is no whole number of 64 bits or text, such as 1e+30"),
        ({"id": None}, "images without id"),
    ],
)
def test_what_is_wrong_with_a_image_is_told_and_nothing_of_its_boxes(tmp_path, wrong, text):
    images = [{"id": 101 + i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(3)]
    images[0] |= wrong
    boxes = [box(1, images[0]["id"] or 101, GOOD), box(2, 102, GOOD, 7), box(3, 103, GOOD, 90)]
    write_split(tmp_path, "train", boxes, images=images)
    write_split(tmp_path, "val", [box(1, 101, GOOD)])
    (finding,) = check_data(coco_data(tmp_path), 1.0)[1]
    assert (finding.kind, finding.text, finding.fatal) == ("malformed_image", text, True)


def test_boxes_of_unlisted_images_are_told_beside_faulty_ones(tmp_path):
    images = [{"id": 4, "file_name": "0.png", "width": 0, "height": 30}]
    assert kinds(read(tmp_path, [box(1, 4.0, GOOD), box(2, 5, GOOD)], images=images)[1])["unknown_image"] == (2,)


@pytest.mark.parametrize(
    ("key", "listed", "given", "text"),
    [
        (
            "category_id",
            2,
            "2",
            'categories that are not listed (the text "2"; the text "2" is the number 2 in the list)',
        ),
        ("category_id", "2", 2.0, 'categories that are not listed (2; 2 is the text "2" in the list)'),
        ("category_id", 2, 55, "categories that are not listed (55)"),
        ("category_id", 2, None, "categories that are not listed (none)"),
        ("image_id", 101, "101", '(the text "101"; the text "101" is the number 101 in the list); left out'),
        ("image_id", "101", 101, '(101; 101 is the text "101" in the list); left out'),
        ("image_id", 101, [1], "images that are not listed ([1]); left out"),
    ],
)
def test_ids_that_are_not_listed_are_named_with_the_other_type_that_is(tmp_path, key, listed, given, text):
    ids = {"image_id": 101, "category_id": 2, key: listed}
    images = [{"id": ids["image_id"], "file_name": "0.png", "width": 40, "height": 30}]
    boxes = [{**box(9, ids["image_id"], GOOD, ids["category_id"]), key: given}]
    categories = [{"id": ids["category_id"], "name": "cat"}]
    (finding,) = read(tmp_path, boxes, count=1, images=images, categories=categories)[1]
    assert finding.ids == (9,) and text in finding.text


def test_a_few_of_many_unknown_ids_are_named(tmp_path):
    (finding,) = read(tmp_path, [box(i, 101, GOOD, i) for i in range(100, 107)])[1]
    assert finding.text == "boxes of categories that are not listed (100, 101, 102, 103, 104, ...)"


@pytest.mark.parametrize(
    ("kind", "categories"),
    [
        ("no_categories", []),
        ("malformed_category", [*CATEGORIES[1:], {"name": "dog"}]),
        ("duplicate_category_ids", [*CATEGORIES, {"id": 7, "name": "wolf"}]),
    ],
)
def test_what_follows_from_faulty_categories_is_not_told(tmp_path, kind, categories):
    boxes = [box(1, 101, GOOD, 2), box(2, 102, GOOD, 7), box(3, 103, GOOD, 90)]
    write_split(tmp_path, "train", boxes, categories=categories)
    write_split(tmp_path, "val", [box(1, "101", GOOD)])
    findings = check_data(coco_data(tmp_path), 1.0)[1]
    assert [(f.kind, f.fatal) for f in findings] == [(kind, True), ("unknown_image", False), ("no_objects", False)]


def test_whole_numbers_may_be_written_with_a_point(tmp_path):
    images = [{"id": float(i), "file_name": f"{i}.png", "width": 40.0, "height": 30.0} for i in range(2)]
    categories = [{"id": 0.0, "name": "ant"}, {"id": 3.0, "name": "bee"}]
    found, findings = read(tmp_path, [box(1.0, 1, GOOD, 3.0)], count=2, images=images, categories=categories)
    assert not findings
    known = found.annotations
    assert known.image_ids.tolist() == [0, 1] and known.image_ids.dtype == np.int64
    assert known.category_ids == [0, 3] and [type(i) for i in known.category_ids] == [int, int]
    assert known.labels.tolist() == [1] and known.starts.tolist() == [0, 0, 1]


def test_a_crowd_may_be_any_0_or_1_and_what_else_it_is_is_told(tmp_path):
    boxes = [box(i, 101, GOOD, iscrowd=value) for i, value in enumerate([0, 1, False, True, 0.0, 1.0, None])]
    images, findings = read(tmp_path, boxes)
    assert not findings and images.annotations.crowd.tolist() == [False, True] * 3 + [False]
    odd = ["1", 2, -1, 0.5, float("nan"), "0", "yes", "true", [1], {}]
    images, findings = read(tmp_path, [box(i, 101, GOOD, iscrowd=value) for i, value in enumerate(odd)])
    assert images.annotations.crowd.tolist() == [True] * 5 + [False] * 5
    assert [(f.text, f.ids) for f in findings] == [
        ("boxes whose iscrowd is neither 0 nor 1; taken as 0", (5, 6, 7, 8, 9)),
        ("boxes whose iscrowd is neither 0 nor 1; taken as 1", (0, 1, 2, 3, 4)),
    ]


def test_an_area_that_is_none_is_the_boxs_and_told_unless_it_is_missing(tmp_path):
    odd = [0, 0.0, -5, float("nan"), float("inf"), 10**400, "big", "12", True, [3]]
    boxes = [box(i, 101, GOOD, area=value) for i, value in enumerate(odd)]
    images, findings = read(tmp_path, [*boxes, box(90, 101, GOOD), box(91, 101, GOOD, area=None)])
    assert images.annotations.areas.tolist() == [200] * 12
    assert [(f.kind, f.ids) for f in findings] == [("odd_area", tuple(range(10)))]
    images, findings = read(tmp_path, [box(1, 102, GOOD, area=0.5), box(2, 101, [0, 0, 3, 3], area=7)])
    assert not findings and images.annotations.areas.tolist() == [7, 0.5]


def test_images_that_share_a_file_are_told(tmp_path):
    images = [
        {"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(["0.png", "1.png", "./0.png"])
    ]
    assert kinds(read(tmp_path, [], count=2, images=images)[1]) == {"shared_files": (0, 2)}


def test_ids_that_occur_twice_are_told_and_their_boxes_used(tmp_path):
    images, findings = read(tmp_path, [box(5, 101, GOOD), box(5, 102, GOOD)])
    assert kinds(findings) == {"duplicate_annotation_ids": (5,)}
    assert len(images.annotations.boxes) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON file"),
        ('{"images": [], "images": []}', r"is no JSON file \(an object has the key 'images' more than once\)"),
        ("[" * 100_000, "is no JSON file"),
        ("[]", "needs a list of objects 'images'"),
        ('{"images": [], "annotations": {}, "categories": []}', "needs a list of objects 'annotations'"),
        ('{"images": [], "annotations": [], "categories": [1]}', "needs a list of objects 'categories'"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    write_split(tmp_path, "train", [])
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(UserError, match=message):
        open_images(coco_data(tmp_path), "train")


def test_folders_and_files_that_are_not_there(tmp_path):
    write_split(tmp_path, "train", [])
    with pytest.raises(UserError, match=r"data\.val\.images: there is no folder .*/val"):
        open_images(coco_data(tmp_path), "val")
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match=r"data\.val\.annotations: there is no file .*/val\.json"):
        open_images(coco_data(tmp_path), "val")
    with pytest.raises(UserError, match=r"data\.test: is not set"):
        open_images(coco_data(tmp_path), "test")


def test_a_image_of_another_size_is_refused_when_it_is_read(tmp_path):
    images, _ = read(tmp_path, [])
    Image.new("RGB", (30, 40)).save(tmp_path / "train" / "1.png")
    assert images.image(0).size == (40, 30)
    with pytest.raises(UserError, match=r"1\.png: the image has 30 x 40 pixels, .* for 40 x 30"):
        images.image(1)


def test_outlines_are_dropped_and_images_may_lie_in_folders(tmp_path):
    write_split(tmp_path, "train", [box(1, 1, GOOD, segmentation=[[1.0] * 1000])])
    (tmp_path / "train" / "a").mkdir()
    (tmp_path / "train" / "0.png").rename(tmp_path / "train" / "a" / "ü.png")
    document = json.loads((tmp_path / "train.json").read_text())
    document["images"] = [{"id": 1, "file_name": "a/ü.png", "width": 40.0, "height": 30}]
    (tmp_path / "train.json").write_text(json.dumps(document))
    images, findings = read_split(coco_data(tmp_path), "train")
    assert not findings
    assert images.name(0) == "a/ü.png" and images.image(0).size == (40, 30)


def test_the_blood_cells_have_one_degenerate_box_in_each_split(shared_data):
    files = {s: {"images": s, "annotations": f"annotations/instances_{s}.json"} for s in ("train", "val")}
    config = CocoData.model_validate({"source": "coco", "root": str(shared_data / "bccd"), **files})
    opened, findings = check_data(config, 1.0)
    assert [(finding.kind, finding.ids) for finding in findings] == [("degenerate", (2288,)), ("degenerate", (887,))]
    assert described("train", opened["train"]).startswith("train: 205 images (0 without objects), 2804 objects of 3")
    known = open_images(config, "val").annotations
    assert (known.classes, known.category_ids) == (["RBC", "WBC", "Platelets"], [2, 5, 11])
    assert len(known) == 87 and len(known.boxes) == 1137


def test_boxes_go_with_an_image_that_is_decoded_smaller(tmp_path, monkeypatch):
    write_split(tmp_path, "train", [box(1, 101, [5, 10, 20, 16])])
    images = open_images(coco_data(tmp_path), "train")
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(values).save(images.path(0), "JPEG")
    whole = read_sample(images, 0)
    for module in ("image_io", "lazy_image"):
        monkeypatch.setattr(f"engine.images.{module}.MOST_BYTES", 4 * 30 * 40 - 1)
    half = read_sample(images, 0)
    assert whole.image.pixels().shape == (30, 40, 3) and half.image.pixels().shape == (15, 20, 3)
    assert whole.image.size == half.image.size == (40, 30), "that of the file, which boxes are for"
    assert whole.boxes.tolist() == half.boxes.tolist() == [[5, 10, 25, 26]]
    plain = AugmentationConfig(zoom_out=None, iou_crop=None, horizontal_flip=0.0, photometric=None)
    ready = Preprocessing(15, 20, "squash", 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    seen = [TrainTransform(ready, plain)(sample, 0) for sample in (whole, half)]
    assert torch.equal(seen[0]["boxes"], seen[1]["boxes"])
    assert torch.allclose(seen[0]["boxes"], torch.tensor([[5 / 40, 10 / 30, 25 / 40, 26 / 30]]))
