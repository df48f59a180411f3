"""A predictor answers as the evaluation does: the same pixels, the same probabilities."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.config.features import FeaturesConfig
from stages.data import reader, writer
from stages.inference.locate import find_model
from stages.inference.predictor import Predictor
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import file_hash
from stages.runtime.numerics import import_tensorflow
from tests.conftest import write_params
from tests.data.archives import generate
from tests.data.test_jpeg import encode, make_image, rotated
from tests.inference.models import write_model
from tests.training.small import predict
from tools.release.standalone import standalone

CLASSES = ["猫", "dog", "=1+1"]


@pytest.fixture(scope="module", autouse=True)
def threads() -> int:
    """Set before TensorFlow's first operation, after which it cannot be changed."""
    import_tensorflow(2)
    return 2


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with records of JPEG files in several sizes and colors."""
    folder = tmp_path_factory.mktemp("records")
    modes = ["RGB", "L", "RGB", "CMYK", "RGB"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        files = [encode(make_image(mode, (20 + 9 * n, 40 - 3 * n))) for n, mode in enumerate(modes)]
        files.append(rotated(make_image()))  # the pipeline takes it as its pixels lie
        examples = [("test", str(number), file, number % 3) for number, file in enumerate(files)]
        writer.write("photos", CLASSES, ["test"], examples)
    return folder


def stored(name: str) -> list[bytes]:
    return [data for batch in reader.batches(name, "test", 100, decode=False) for data in batch["input"]]


@pytest.mark.parametrize("test_time", [None, {"name": "mirror_shift", "shift": 1}])
def test_predictor_gives_the_probabilities_of_the_evaluation_to_the_bit(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, test_time: Any
) -> None:
    monkeypatch.chdir(records)
    entry = write_model(tmp_path / "a.keras", CLASSES, test_time=test_time)
    predictor = Predictor(tmp_path / "a.keras", threads)
    test = reader.load("photos", "test", 16)
    upright = test.keys != "5"
    files = stored("photos")
    pixels = np.stack([predictor.decode(data)[0] for data in files])
    np.testing.assert_array_equal(pixels[upright], test.inputs[upright])
    assert not np.array_equal(pixels[~upright], test.inputs[~upright])  # it lies on its side there
    expected = predict(tmp_path / "a.keras", test, entry.test_time, CLASSES).probabilities
    found = predictor.predict(files)
    assert found.dtype == np.float32 and predictor.classes == CLASSES
    np.testing.assert_array_equal(found[upright], expected[upright])
    predictor.batch_size = 2
    np.testing.assert_allclose(predictor.predict(files), found, atol=1e-6)
    assert predictor.predict([]).shape == (0, 3)


def test_predictor_takes_any_format_in_the_colors_of_the_model(tmp_path: Path, threads: int) -> None:
    write_model(tmp_path / "gray.keras", CLASSES, channels=1)
    write_model(tmp_path / "color.keras", CLASSES)
    gray, color = (Predictor(tmp_path / f"{name}.keras", threads) for name in ("gray", "color"))
    jpeg = encode(make_image("L"))
    png = encode(Image.open(io.BytesIO(jpeg)), "PNG")
    for predictor in (gray, color):
        np.testing.assert_array_equal(predictor.predict([png]), predictor.predict([jpeg]))
    webp = encode(make_image(), "WEBP", lossless=True)
    luma = encode(make_image("L"), "PNG")
    np.testing.assert_array_equal(gray.decode(webp)[0], gray.decode(luma)[0])
    assert color.decode(rotated(make_image()))[1] == ["EXIF orientation"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"text", "is not an image"),
        (encode(make_image())[:-9], "is truncated"),
        (b"\xff\xd8\xff\xe0 not a JPEG", "is not a JPEG file|is corrupt|is truncated"),
        (encode(make_image()).replace(b"\x00\x20\x00\x30", b"\xff\xff\xff\xff", 1), "has .*more than 67,108,864"),
    ],
)
def test_invalid_image_is_a_value_error(tmp_path: Path, threads: int, data: bytes, reason: str) -> None:
    write_model(tmp_path / "a.keras", CLASSES)
    with pytest.raises(ValueError, match=reason):
        Predictor(tmp_path / "a.keras", threads).predict([encode(make_image()), data])


def test_model_on_features_predicts_through_its_backbone_alone_or_standalone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    import keras

    from stages.data.extraction import Extractor
    from stages.prediction.saved_model import save

    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    generate("vgg16")
    (weights,) = paths.raw("vgg16").glob("*.h5")
    backbone = {"name": "vgg16", "image_size": 32, "pooling": None, "weights": f"md5:{file_hash(weights, 'md5')}"}
    backbone["compute_dtype"] = "float32"  # of the extraction, however fast another format is on this machine
    keras.utils.set_random_seed(0)
    inputs = keras.Input((1, 1, 512), dtype="float16")
    head = keras.layers.Dense(3, activation="softmax", dtype="float32")
    network = keras.Sequential([keras.Input((1, 1, 512)), keras.layers.Flatten(), head])
    signature = {"classes": CLASSES, "image_size": None, "channels": 3, "test_time": None, "backbone": backbone}
    save(keras.Model(inputs, network(inputs)), paths.model("head"), signature)

    predictor = Predictor(find_model("head"), threads)
    files = [encode(make_image(size=(40 + n, 50))) for n in range(3)]
    pixels = np.stack([predictor.decode(data)[0] for data in files])
    extractor = Extractor(
        FeaturesConfig(dataset="x", backbone="vgg16", image_size=32, compute_dtype="float32"), 2, "native", weights
    )
    keras.config.set_dtype_policy("float32")
    _, examples = extractor({"split": "test", "key": [b""] * 3, "input": pixels, "label": [0] * 3})
    features = np.stack([features for _, _, features, _ in examples])
    np.testing.assert_array_equal(predictor.inputs(pixels), features)
    found = predictor.predict(files)
    np.testing.assert_allclose(found, predictor.model.predict(features, verbose=0), atol=1e-6)
    heat = predictor.explain(pixels, np.array([0, 1, 2]))
    assert heat is not None and heat.shape == (3, 32, 32)

    standalone("head", "alone.keras")
    weights.unlink()
    np.testing.assert_allclose(Predictor(Path("alone.keras"), threads).predict(files), found, atol=1e-6)
    with pytest.raises(
        UserError, match=r"^data/raw/vgg16: no file has the hash md5:.* `dvc repro download_weights@vgg16`"
    ):
        Predictor(find_model("head"), threads)
    with pytest.raises(UserError, match=r"^alone.keras: it takes images, not features"):
        standalone("alone.keras", "again.keras")


def test_wrong_model_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nothing", "nothing.keras"):
        with pytest.raises(UserError, match=r"nothing.keras: no such model; "):
            find_model(name)
    with pytest.raises(UserError, match=r"^no model is given"):
        find_model("")
    Path("text.keras").write_text("text", encoding="utf-8")
    with zipfile.ZipFile("other.keras", "w") as file:
        file.writestr("config.json", "{}")
    for name in ("text.keras", "other.keras"):
        with pytest.raises(UserError, match=f"^{name}: not a model of this project"):
            Predictor(find_model(name), threads)
    write_model(Path("a.keras"), CLASSES)
    with zipfile.ZipFile("a.keras") as source, zipfile.ZipFile("b.keras", "w") as target:
        for name in source.namelist():
            target.writestr(name, b"{" if name == "config.json" else source.read(name))
    with pytest.raises(UserError, match=r"^b.keras: corrupt: "):
        Predictor(Path("b.keras"), threads)
