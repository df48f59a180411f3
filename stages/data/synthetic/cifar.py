"""Generate CIFAR-10's binary archive, from the published description of the format and independently of its reader."""

from stages.config.datasets import DatasetConfig
from stages.data.synthetic._archives import file_name, tar_gz
from stages.data.synthetic._strokes import labeled_images, render_rgb


def generate(name: str, dataset: DatasetConfig) -> dict[str, bytes]:
    """Generate the archive of a dataset of 32 x 32 RGB images: file name → content."""
    train, test = (
        [bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in images]
        for images in (labeled_images(name, dataset, split, render_rgb) for split in ("train", "test"))
    )
    members = {"batches.meta.txt": "\n".join([*dataset.classes, "", ""]).encode(), "test_batch.bin": b"".join(test)}
    for number in (1, 3, 4, 5, 2):  # the published archive is not in order either
        members[f"data_batch_{number}.bin"] = b"".join(train[number - 1 :: 5])
    archive = tar_gz({f"cifar-10-batches-bin/{file}": data for file, data in members.items()})
    return {file_name(dataset.files, ".tar.gz"): archive}
