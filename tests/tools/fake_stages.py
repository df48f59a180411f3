"""The stages of the fake pipeline, which take no time: models exist only as predictions.

A model of this pipeline misclassifies `learning_rate` × 40,000 of 400 images, in training as in test. The environment
variable FAKE_MACHINE stands for everything about a machine that changes the bytes of a training: on any machine but `a`
other images are misclassified, and three more.

A training has two epochs, each of FAKE_SECONDS, and prints them as `stages.train` does. With a learning rate above
0.008 its loss is not a number; at 0.007 it fails.

Only a training imports more than a few modules: the tests run hundreds of these processes.
"""

import json
import os
import sys
import time

from stages.runtime import paths

IMAGES = 400
CLASSES = "class,precision,recall,f1,images\na,1,1,1,396\nNA,1,0.5,0.67,4\nghost,0,0,0,0\n"  # NA is no missing value


def main(stage: str, name: str, value: str) -> None:
    """Run a stage."""
    outputs = [paths.counts(name), paths.model(name), paths.predictions(name), paths.history(name), paths.metrics(name)]
    for path in (*outputs, paths.plot("classes", name), paths.environment("train", name)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if stage == "preprocess":
        paths.records(name).mkdir(parents=True)
        (paths.records(name) / "features.json").write_text(value, encoding="utf-8")
        paths.counts(name).write_text(
            json.dumps({"train": {"a": 3000, "b": 1000}, "test": {"a": IMAGES}}), encoding="utf-8"
        )
    elif stage == "train":
        train(name, float(value), os.environ.get("FAKE_MACHINE", "a"))
    else:
        accuracy = float(paths.history(name).read_text(encoding="utf-8").split(",")[-1])
        metrics = {"accuracy": accuracy, "validation_accuracy": accuracy, "validation_images": IMAGES}
        facts = {"parameters": 1, "compute_dtype": "float32"}
        paths.metrics(name).write_text(json.dumps({"images": IMAGES, **metrics, **facts}, indent=2), encoding="utf-8")
        paths.plot("classes", name).write_text(CLASSES, encoding="utf-8")


def train(name: str, learning_rate: float, machine: str) -> None:
    """Print what `train` prints and write what it writes."""
    wrong = round(learning_rate * 40_000) + (0 if machine == "a" else 3)
    for epoch in (1, 2):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        loss = "nan" if learning_rate > 0.008 else f"{learning_rate:.4f}"
        validation = f"validation loss {loss}, accuracy {1 - wrong / IMAGES:.4f}"
        print(f"epoch {epoch}/2: loss {loss}, accuracy 0.5000, {validation}", flush=True)
    if learning_rate == 0.007:
        sys.exit("error: fake: no")
    import numpy as np

    from stages.evaluation.predictions import Predictions, write

    shift = 0 if machine == "a" else 200
    true = (np.arange(IMAGES) % 10).astype(np.int32)
    missed = (np.arange(IMAGES) >= shift) & (np.arange(IMAGES) < shift + wrong)
    predicted = ((true + missed) % 10).astype(np.int32)
    probabilities = np.full((IMAGES, 10), 0.02, np.float32)
    probabilities[np.arange(IMAGES), predicted] = 0.82
    keys = np.array([f"{image:05}" for image in range(IMAGES)], dtype=object)
    classes = [str(label) for label in range(10)]
    facts = "0", 1, "float32", IMAGES
    write(paths.predictions(name), Predictions(keys, true, predicted, probabilities, classes, *facts))
    paths.model(name).write_text(machine, encoding="utf-8")
    paths.environment("train", name).write_text(json.dumps({"threads": "4", "processor": machine}), encoding="utf-8")
    paths.history(name).write_text(f"epoch,val_accuracy\n1,{1 - wrong / IMAGES}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
