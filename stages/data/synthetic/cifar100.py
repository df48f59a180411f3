"""Generate CIFAR-100's binary archive, from the published description of the format and independently of its reader."""

from stages.config.datasets import DatasetConfig
from stages.data.synthetic._archives import check_byte_labels, file_name, tar_gz
from stages.data.synthetic._strokes import labeled_images, render_rgb

COARSE = 20  # superclasses: `classes` are they if there are so many, else the classes themselves


def generate(name: str, dataset: DatasetConfig) -> dict[str, bytes]:
    """Generate the archive of a dataset of 32 x 32 RGB images with two labels: file name → content."""
    check_byte_labels(name, dataset.classes)
    is_coarse = len(dataset.classes) == COARSE
    other = [f"{'fine' if is_coarse else 'coarse'}_{number}" for number in range(100 if is_coarse else COARSE)]
    members = {}
    for split in ("train", "test"):
        records = []
        for image, label in labeled_images(name, dataset, split, render_rgb):
            labels = [label, label * 5] if is_coarse else [label % COARSE, label]
            records.append(bytes(labels) + image.transpose(2, 0, 1).tobytes())
        members[f"{split}.bin"] = b"".join(records)
    coarse, fine = (list(dataset.classes), other) if is_coarse else (other, list(dataset.classes))
    for file, names in (("coarse", coarse), ("fine", fine)):
        members[f"{file}_label_names.txt"] = "\n".join([*names, ""]).encode()
    archive = tar_gz({f"cifar-100-binary/{file}": data for file, data in members.items()})
    return {file_name(dataset.files, ".tar.gz"): archive}
