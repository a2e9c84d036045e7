"""Results of many images as one document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zeg._errors import SettingsError


def merge_coco(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins documents of COCO, such as those of ``Segmentation.to_coco``, into one.

    The order of the documents is that of the images. Images and annotations are numbered anew from 1; all documents must
    have the same categories. The result equals what ``zeg segment --write coco`` writes for the same images in the same
    order.
    """
    merged: dict[str, Any] = {}
    names: set[str] = set()
    for document in documents:
        if not merged:
            merged = {**document, "annotations": [], "images": []}
        elif document["categories"] != merged["categories"]:
            first = document["images"][0]["file_name"] if document["images"] else "a document"
            raise SettingsError(
                f"{first} has other categories than the documents before it", "segment all images with the same classes"
            )
        numbers = {}
        for image in document["images"]:
            if image["file_name"] in names:
                raise SettingsError(
                    f"two images have the name {image['file_name']}", "give them names with to_coco(file_name=…)"
                )
            names.add(image["file_name"])
            numbers[image["id"]] = len(merged["images"]) + 1
            merged["images"].append({**image, "id": numbers[image["id"]]})
        for annotation in document["annotations"]:
            number = len(merged["annotations"]) + 1
            merged["annotations"].append({**annotation, "id": number, "image_id": numbers[annotation["image_id"]]})
    if not merged:
        raise SettingsError("there is no document to merge", "give at least one document")
    return merged
