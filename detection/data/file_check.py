"""A cheap look at image files, so that a broken one is not first met in the middle of training."""

from __future__ import annotations

from PIL import Image

from detection.data.coco import CocoImages
from detection.data.issues import Finding, Findings
from engine.images.file_check import look_at_some
from engine.images.image_io import may_be_sideways, upright


def look_at_images(images: CocoImages) -> list[Finding]:
    """Fatal findings about files that are no images, or images of another size than their annotations are for.

    Pixels are decoded only where the size is not the one expected, or the image may have to be turned upright. Files
    that are not there are left to :func:`detection.data.coco.read_split`.
    """
    faults = look_at_some(len(images), lambda index: _fault(images, index))
    findings = Findings(str(images.folder))
    ids = images.annotations.image_ids
    for kind, text in (
        ("unreadable", "files that are no images"),
        ("other_size", "images whose width and height are not those of their annotations"),
    ):
        wrong = [ids[index].item() for index, fault in faults.items() if fault == kind]
        findings.add(kind, text, wrong, fatal=True)
    return findings.found


def _fault(images: CocoImages, index: int) -> str:
    """The kind of what is wrong with a file; empty if nothing is."""
    expected = tuple(images.annotations.sizes[index].tolist())
    try:
        with Image.open(images.path(index)) as image:
            if image.size == expected and not may_be_sideways(image):
                return ""
            image.load()
            return "" if upright(image).size == expected else "other_size"
    except FileNotFoundError:
        return ""
    except Exception:  # a decoder that meets broken data raises whatever its parsing trips over
        return "unreadable"
