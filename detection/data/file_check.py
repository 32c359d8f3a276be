"""A cheap look at picture files, so that a broken one is not first met in the middle of training."""

from __future__ import annotations

from PIL import Image

from detection.data.coco import CocoPictures
from detection.data.issues import Finding, Findings
from engine.images.file_check import look_at_some
from engine.images.image_io import may_be_sideways, upright


def look_at_pictures(pictures: CocoPictures) -> list[Finding]:
    """Fatal findings about files that are no pictures, or pictures of another size than their annotations are for.

    Pixels are decoded only where the size is not the one expected, or the picture may have to be turned upright. Files
    that are not there are left to :func:`detection.data.coco.read_split`.
    """
    faults = look_at_some(len(pictures), lambda index: _fault(pictures, index))
    findings = Findings(str(pictures.folder))
    ids = pictures.annotations.picture_ids
    for kind, text in (
        ("unreadable", "files that are no pictures"),
        ("other_size", "pictures whose width and height are not those of their annotations"),
    ):
        wrong = [ids[index].item() for index, fault in faults.items() if fault == kind]
        findings.add(kind, text, wrong, fatal=True)
    return findings.found


def _fault(pictures: CocoPictures, index: int) -> str:
    """The kind of what is wrong with a file; empty if nothing is."""
    expected = tuple(pictures.annotations.sizes[index].tolist())
    try:
        with Image.open(pictures.path(index)) as picture:
            if picture.size == expected and not may_be_sideways(picture):
                return ""
            picture.load()
            return "" if upright(picture).size == expected else "other_size"
    except FileNotFoundError:
        return ""
    except Exception:  # a decoder that meets broken data raises whatever its parsing trips over
        return "unreadable"
