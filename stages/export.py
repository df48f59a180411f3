"""Export one model to LiteRT: data/export/NAME.float32.tflite and NAME.int8.tflite, and how well they agree with it."""

from typing import Any

import numpy as np

from stages.config import params
from stages.config.messages import lookup
from stages.evaluation import predictions
from stages.prediction.saved_model import SYNTHETIC, read_signature
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, open_input, write_json
from stages.runtime.numerics import import_tensorflow

CALIBRATION_IMAGES = 200  # the first of the training split; they show the ranges of 8-bit numbers


def export(name: str) -> None:
    """Write both files and reports/export/NAME.json; print what they are worth.

    Raises:
        UserError: a file often disagrees with the model; it is not written.
    """
    values = params.load()
    model = lookup(values.resolved_models, name, "models")
    stored = predictions.read(name)
    import_tensorflow(values.threads, values.model_kernels(name), gpu=False)
    from stages.data import reader
    from stages.inference import litert

    splits = reader.info(model.dataset).splits
    with open_input(paths.model(name), f"train@{name}"):
        signature = read_signature(paths.model(name))
        source = signature.get("source")
        twin = litert.float32_twin(paths.model(name), signature.get("temperature", 1.0))

    def first(split: str, count: int) -> Any:
        count = min(count, splits[split].num_examples)
        return next(reader.batches(model.dataset, f"{split}[:{count}]", count, model.image_size))

    calibration = first("train", CALIBRATION_IMAGES)["input"]
    contents = {"float32": litert.to_float32(twin), "int8": litert.to_int8(twin, calibration)}
    test = first("test", litert.COMPARED_IMAGES)
    count = len(test["label"])
    predicted = stored.plain[:count]
    metrics: dict[str, Any] = {
        **({"source": source} if source else {}),
        "images": count,
        "calibration_images": len(calibration),
        "accuracy": float(np.mean(predicted == test["label"])),
    }
    broken = ""
    for kind, content in contents.items():
        path = paths.export(name, kind)
        outputs, seconds = litert.run(content, test["input"], values.threads)
        labels = outputs.argmax(axis=1)
        agreement = float(np.mean(labels == predicted))
        accuracy = float(np.mean(labels == test["label"]))
        metrics[kind] = {"agreement": agreement, "accuracy": accuracy, "bytes": len(content)}
        agree = f"{agreement:.2%} of {count} predictions agree with the model's"
        if agreement < litert.AGREEMENT:
            path.unlink(missing_ok=True)
            broken = broken or f"{path}: not written: {agree}, less than {litert.AGREEMENT:.0%}"
            continue
        with atomic_write(path) as part:
            part.write_bytes(content)
        # Only printed: it differs from run to run, and the metrics do not
        took = f"{1000 * seconds:.3g} ms an image with {values.threads} threads"
        print(f"{path}: {len(content):,} bytes, {agree}, {took}", flush=True)
    write_json(metrics, paths.export_metrics(name), indent=1)
    if source == "synthetic":
        print(f"{name} was {SYNTHETIC}")
    if broken:
        raise UserError(f"{broken}; rounding changes its answers: use a more exact file, or train it longer")


if __name__ == "__main__":
    run(export, "model")
