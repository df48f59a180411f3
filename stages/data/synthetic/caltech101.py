"""Generate Caltech-101's archive in an archive, independently of its reader: both splits together, as it has none."""

import io
import zipfile

from PIL import Image

from stages.config.datasets import DatasetConfig
from stages.data.synthetic._archives import file_name, tar_gz
from stages.data.synthetic._strokes import labeled_images, render_photo


def generate(name: str, dataset: DatasetConfig) -> dict[str, bytes]:
    """Generate the archive of a dataset of photos of varying size: file name → content."""
    folders = list(dataset.classes)
    images = [example for split in ("train", "test") for example in labeled_images(name, dataset, split, render_photo)]
    members = {"101_ObjectCategories/.DS_Store": b"not an image"}
    for index, (pixels, label) in enumerate(sorted(images, key=lambda example: example[1])):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        # Some folders of the published archive have names with capitals.
        folder = folders[label].capitalize() if label % 5 == 0 else folders[label]
        members[f"101_ObjectCategories/{folder}/image_{index:04d}.jpg"] = buffer.getvalue()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:  # members have a fixed date
        archive.writestr(zipfile.ZipInfo("caltech-101/Annotations.tar"), b"")
        archive.writestr(zipfile.ZipInfo("caltech-101/101_ObjectCategories.tar.gz"), tar_gz(members))
    return {file_name(dataset.files, ".zip"): content.getvalue()}
