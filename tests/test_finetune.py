"""Fine-tuning: a head on features, joined with its backbone, continues to train on the images."""

import json
import shutil
from argparse import Namespace
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.config import params
from stages.data import reader, writer
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import file_hash
from stages.runtime.numerics import import_tensorflow
from stages.training.train_model import Training, run
from tests.conftest import write_params
from tests.data.random_weights import write_weights
from tools.use.predict import predict

BACKBONE, SIZE = "mobilenet", 32
PARTS: dict[str, Any] = {
    **{"optimizer": {"name": "adam"}, "schedule": {"name": "constant"}, "loss": {"name": "cross_entropy"}},
    **{"learning_rate": 0.001, "batch_size": 8, "epochs": 2, "compute_dtype": "float32"},
}


def change(values: Any) -> None:
    values["train"]["epochs"] = None
    values["kernels"]["synthetic"] = "native"  # for bfloat16
    values["weights"][BACKBONE] = {}
    values["features"]["maps"] = {
        **{"dataset": "imagenette", "backbone": BACKBONE, "image_size": 2 * SIZE, "compute_dtype": "float32"},
        "synthetic": {"image_size": SIZE},
    }
    values["pretrained"] = {"network": {"head": "head", "backbone": BACKBONE, "dataset": "imagenette"}}
    values["models"] = {
        "head": {
            **{"dataset": "maps", "architecture": "dense", "units": [8], **PARTS, "learning_rate": 0.02, "epochs": 8},
            "abstain": {"none_of_these": 0.05},
        },
        "tuned": {
            **{"dataset": "network", "architecture": "pretrained", **PARTS, "compute_dtype": "bfloat16"},
            "groups": {"early": {"variables": "conv1/*", "learning_rate": 0.00001}},
            "frozen": ["conv_dw_1/*"],
        },
    }


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder, which is the working directory, with a trained head, and with the network of it and its backbone."""
    from stages import extract, join, train

    folder = tmp_path_factory.mktemp("finetune")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_params(folder, change)
        import_tensorflow(params.load().threads)  # before a stage that leaves the number of threads open
        classes = params.load().datasets["imagenette"].class_names
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 10, 60)
        images = (rng.integers(0, 100, (60, 40, 40, 3)) + 15 * labels[:, None, None, None]).astype(np.uint8)
        splits = ["train"] * 40 + ["test"] * 20
        keys = [f"n/{number}.JPEG" for number in range(60)]
        writer.write("imagenette", classes, ["train", "test"], zip(splits, keys, images, map(int, labels), strict=True))
        (network,) = params.load().weights[BACKBONE].files
        paths.raw(BACKBONE).mkdir(parents=True)
        write_weights(BACKBONE, paths.raw(BACKBONE) / network)
        extract.extract("maps")
        train.train("head")
        join.join("network")
        yield folder


def tune() -> Generator[Any, None, None]:
    values = params.load()
    yield from run(Training.of("tuned", values), values.memory)


@pytest.mark.usefixtures("joined")
def test_joined_network_predicts_what_the_head_predicts_from_features() -> None:
    import keras

    from stages.prediction.saved_model import load_in

    network = load_in(paths.network("network"), "float32")
    head = keras.models.load_model(paths.model("head"), compile=False)
    found = network.predict(reader.load("imagenette", "test", SIZE).inputs, verbose=0)
    expected = head.predict(reader.load("maps", "test").inputs, verbose=0)
    np.testing.assert_allclose(found, expected, atol=0.002)  # it rounds no features to float16
    assert np.ptp(expected, axis=0).max() > 0.02


@pytest.mark.usefixtures("joined")
def test_picture_unlike_every_class_is_none_of_these(capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(reader.load("imagenette", "test").inputs[0]).save("known.png")
    Image.fromarray(np.indices((40, 40)).sum(0).astype(np.uint8) // 4 % 2 * 255).save("squares.png")
    predict(Namespace(model="head", images=["known.png", "squares.png"], top=1, csv=False))
    known, squares = capsys.readouterr().out.splitlines()[:2]
    assert "(" not in known and squares.endswith("%  (none of these)")


@pytest.mark.usefixtures("joined")
def test_joining_again_gives_the_same_bytes_and_changed_images_others() -> None:
    def hashes() -> dict[str, str]:
        import keras

        from stages import join

        keras.utils.clear_session()  # Keras numbers the layers of a process
        join.join("network")
        return {file.name: file_hash(file, "md5") for file in paths.records("network").iterdir()}

    before = hashes()
    assert hashes() == before
    (record, *_) = sorted(paths.records("imagenette").glob("*train.tfrecord*"))
    content = record.read_bytes()
    record.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    after = hashes()
    record.write_bytes(content)
    assert {name for name in before if before[name] != after[name]} == {"images.json"}
    hashes()


@pytest.mark.usefixtures("joined")
def test_fine_tuning_trains_the_backbone_but_not_what_is_frozen_and_resumes_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import keras

    from stages.inference.predictor import Predictor
    from stages.training import checkpoint

    keras.utils.clear_session()
    list(tune())
    outputs = {path: file_hash(path, "md5") for path in Training.of("tuned", params.load()).outputs}
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    keras.utils.clear_session()
    events = tune()
    assert [next(events), next(events)][1][0] == 1
    events.close()  # as if it was killed after its first epoch
    keras.utils.clear_session()
    list(tune())
    assert {path: file_hash(path, "md5") for path in Training.of("tuned", params.load()).outputs} == outputs

    before = keras.models.load_model(paths.network("network"), compile=False)
    after = keras.models.load_model(paths.model("tuned"), compile=False)
    changed = {
        one.path.partition("/")[2] if one.path.startswith("mobilenet") else one.path: not np.array_equal(one, other)
        for one, other in zip(before.weights, after.weights, strict=True)
    }
    assert changed["conv1/kernel"] and not changed["conv_dw_1/kernel"], changed
    assert not any(value for path, value in changed.items() if "_bn/" in path)  # kept, unless train_batch_norm
    assert sum(changed.values()) > 25

    shutil.move(paths.raw(BACKBONE), "elsewhere")  # the model holds all weights
    test = reader.load("imagenette", "test", SIZE)
    predictor = Predictor(paths.model("tuned"), params.load().threads)
    assert predictor.signature["dataset"] == "imagenette" and predictor.image_shape == (SIZE, SIZE, 3)
    assert predictor.predict_pixels(test.inputs).shape == (20, 10)
    heat = predictor.explain(test.inputs[:2], test.labels[:2])
    assert heat is not None and heat.shape == (2, SIZE, SIZE)
    assert "bfloat16" in json.loads(paths.environment("train", "tuned").read_text(encoding="utf-8"))["compute_dtype"]
    shutil.move("elsewhere", paths.raw(BACKBONE))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda v: v["pretrained"]["network"].update(head="tuned"), "pretrained.network.head: tuned takes no features"),
        (lambda v: v["pretrained"]["network"].update(backbone="vgg16"), "pretrained.network.backbone: vgg16: the feat"),
        (lambda v: v["pretrained"]["network"].update(dataset="mnist"), "pretrained.network.dataset: mnist: the feat"),
        (lambda v: v["pretrained"].update(mnist=v["pretrained"]["network"]), "pretrained.mnist: the name is taken"),
        (lambda v: v["models"]["tuned"].update(image_size=64), "models.tuned.image_size: set it in pretrained.network"),
        (lambda v: v["models"]["tuned"].update(architecture="lenet"), "models.tuned.architecture: lenet: "),
        (lambda v: v["models"]["head"].update(architecture="pretrained"), "models.head.architecture: pretrained: "),
        (
            lambda v: v["models"]["tuned"].update(abstain={"none_of_these": 0.05}),
            "models.tuned.abstain.none_of_these: network holds images, not features",
        ),
        (lambda v: v["models"]["tuned"].update(units=[8]), "models.tuned.units: unknown key"),
        (lambda v: v["features"]["maps"].update(pooling="max"), "features.maps.pooling: 'max': "),
        (lambda v: v["features"]["maps"].update(backbone="resnet5"), "features.maps.backbone: there is no 'resnet5'"),
    ],
)
def test_mistake_in_params_is_one_line(tmp_path: Path, wrong: Any, message: str) -> None:
    def both(values: Any) -> None:
        change(values)
        wrong(values)

    write_params(tmp_path, both)
    with pytest.raises(UserError) as error:
        params.load(tmp_path / "params.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.usefixtures("joined")
def test_head_that_does_not_fit_another_image_size_is_one_line() -> None:
    from stages import join

    def larger(values: Any) -> None:
        change(values)
        values["pretrained"]["network"]["image_size"] = 96

    write_params(Path(), larger)
    try:
        with pytest.raises(UserError, match=r"network.image_size: features of shape \(3, 3, 1024\) do not fit"):
            join.join("network")
    finally:
        write_params(Path(), change)
