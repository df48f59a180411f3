"""A trained head and its backbone → one network of pixels that a model continues to train, in data/records/NAME."""

from stages.config import params
from stages.config.messages import lookup
from stages.inference.locate import find_weights
from stages.prediction.saved_model import read_signature, save
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.files import atomic_write, file_hash, open_input, write_json
from stages.runtime.numerics import import_tensorflow


def join(name: str) -> None:
    """Write the network of an entry of `pretrained` and hashes of its images: `train` has no dep of its own on them."""
    values = params.load()
    config = lookup(values.pretrained, name, "pretrained")
    path = paths.model(config.head)
    with open_input(path, f"train@{config.head}"):
        signature = read_signature(path)
    features = values.resolved_features[values.models[config.head].dataset]
    image_size = config.image_size or features.image_size
    weights = find_weights(signature["backbone"])
    import_tensorflow(values.threads, values.model_kernels(config.head), gpu=False)
    import keras

    from stages.inference.backbone import build_backbone, join_for_training

    keras.utils.set_random_seed(0)  # of layers with random numbers of their own, which the file holds
    backbone = build_backbone({**signature["backbone"], "image_size": image_size, "compute_dtype": "bfloat16"}, weights)
    with open_input(path, f"train@{config.head}"):
        head = keras.models.load_model(path, compile=False, safe_mode=True)
    network = join_for_training(backbone, head, f"pretrained.{name}.image_size")
    folder = paths.records(config.dataset)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    hashes = {str(file.relative_to(folder)): file_hash(file, "md5") for file in files}
    with atomic_write(paths.records(name)) as target:
        target.mkdir()
        save(network, target / paths.network(name).name, {**signature, "backbone": None, "image_size": image_size})
        write_json({config.dataset: hashes}, target / "images.json", indent=1)
    print(f"{paths.network(name)}: {network.count_params():,} parameters, images of {image_size} pixels")


if __name__ == "__main__":
    run(join, "pretrained")
