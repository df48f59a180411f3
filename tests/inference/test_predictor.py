"""A predictor answers as the evaluation does: the same pixels, the same probabilities."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.config.sections import FeaturesConfig
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

CLASSES = ["猫", "dog", "=1+1"]
GELU = {  # a kernel computes it in prediction, too, with other roundings than TensorFlow's operations
    **dict.fromkeys(("filters", "padding", "units")),
    "architecture": "airbench",
    "mean": [0.5],
    "std": [0.25],
    "widths": [8],
    "convolutions": 2,
    "norm_momentum": 0.6,
    "logit_scale": 0.2,
}


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


@pytest.mark.parametrize("changes", [{}, {"test_time": {"name": "mirror_shift", "shift": 1}}, GELU])
def test_predictor_gives_the_probabilities_of_the_evaluation_to_the_bit(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, changes: dict[str, Any]
) -> None:
    monkeypatch.chdir(records)
    facts = {"temperature": 0.25, "not_sure_below": 0.5}
    entry = write_model(tmp_path / "a.keras", CLASSES, facts=facts, policy="mixed_bfloat16", **changes)
    predictor = Predictor(tmp_path / "a.keras", threads)
    test = reader.load("photos", "test", 16)
    upright = test.keys != "5"
    files = stored("photos")
    pixels = np.stack([predictor.decode(data)[0] for data in files])
    np.testing.assert_array_equal(pixels[upright], test.inputs[upright])
    assert not np.array_equal(pixels[~upright], test.inputs[~upright])  # it lies on its side there
    expected = predict(tmp_path / "a.keras", test, entry.test_time, CLASSES).probabilities
    found = predictor.predict(files)
    answers = predictor.answer(pixels)
    np.testing.assert_array_equal([answer.probabilities for answer in answers], found)
    assert [answer.verdict for answer in answers] == ["not sure" if row.max() < 0.5 else None for row in found]
    assert found.dtype == np.float32 and predictor.classes == CLASSES
    np.testing.assert_array_equal(found[upright], expected[upright])
    predictor.batch_size = 2
    np.testing.assert_allclose(predictor.predict(files), found, atol=1e-6)
    assert predictor.predict([]).shape == (0, 3)


def sixteen_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


def gray_palette(image: Image.Image) -> Image.Image:
    return image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)


def ycck(data: bytes) -> bytes:
    """A CMYK JPEG file whose Adobe marker says that its colors are YCCK."""
    end = data.index(b"Adobe") + 11
    return data[:end] + b"\x02" + data[end + 1 :]


CMYK = encode(make_image("CMYK"), quality=95)
RGB, GRAY = make_image(), make_image("L")
ALPHA = Image.new("L", RGB.size, 255)
MODES = {  # a file, and the image that a person sees
    "CMYK": (CMYK, Image.open(io.BytesIO(CMYK))),
    "YCCK": (ycck(CMYK), Image.open(io.BytesIO(ycck(CMYK)))),
    "turned CMYK": (
        rotated(make_image("CMYK")),
        Image.open(io.BytesIO(rotated(make_image("CMYK")))).rotate(-90, expand=True),
    ),
    "gray JPEG": (encode(GRAY, quality=95), Image.open(io.BytesIO(encode(GRAY, quality=95)))),
    "JPEG": (encode(RGB, quality=95), Image.open(io.BytesIO(encode(RGB, quality=95)))),
    "1": (encode(GRAY.convert("1"), "PNG"), GRAY.convert("1")),
    "L": (encode(GRAY, "PNG"), GRAY),
    "LA": (encode(Image.merge("LA", (GRAY, ALPHA)), "PNG"), GRAY),
    "P": (encode(gray_palette(RGB), "PNG"), RGB),
    "GIF": (encode(GRAY, "GIF"), GRAY),
    "I;16": (encode(sixteen_bits(GRAY), "PNG"), GRAY),
    "RGB": (encode(RGB, "WEBP", lossless=True), RGB),
    "RGBA": (encode(Image.merge("RGBA", (*RGB.split(), ALPHA)), "PNG"), RGB),
    "BMP": (encode(RGB, "BMP"), RGB),
}


@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_of_an_image_is_luma_or_colors_as_the_model_takes_them(
    tmp_path: Path, threads: int, channels: int, capfd: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "a.keras", CLASSES, channels=channels)
    predictor = Predictor(tmp_path / "a.keras", threads)
    for mode, (data, seen) in MODES.items():
        found = predictor.decode(data)[0]
        expected = predictor.decode(encode(seen.convert("RGB").convert("L" if channels == 1 else "RGB"), "PNG"))[0]
        # Decoders of JPEG round differently, and so do conversions of CMYK
        np.testing.assert_allclose(
            found.astype(int), expected, atol=6 if "JPEG" in mode or "K" in mode else 0, err_msg=mode
        )
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", [(40, 16), (16, 40)])
def test_model_without_image_size_takes_images_that_are_not_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, size: tuple[int, int]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "a.keras", CLASSES, image_size=size[::-1])
    images = [np.asarray(make_image(size=size)) // divisor for divisor in (1, 2)]
    writer.write("wide", CLASSES, ["test"], [("test", str(number), image, 0) for number, image in enumerate(images)])
    predictor = Predictor(tmp_path / "a.keras", threads)
    test = reader.load("wide", "test")
    pixels = np.stack([predictor.decode(data)[0] for data in stored("wide")])
    np.testing.assert_array_equal(pixels, test.inputs)
    expected = predict(tmp_path / "a.keras", test, None, CLASSES).probabilities
    np.testing.assert_array_equal(predictor.predict(stored("wide")), expected)
    double = make_image(size=(3 * size[0], 2 * size[1]))  # the middle of another shape
    middle = double.crop((size[0] // 2, 0, size[0] // 2 + 2 * size[0], 2 * size[1]))
    found, cut = (predictor.decode(encode(image, "PNG"))[0] for image in (double, middle))
    np.testing.assert_array_equal(found, cut)
    heat = predictor.explain(pixels, np.array([0, 1]))
    assert heat is not None and heat.shape == test.inputs.shape[:3]


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


def test_model_on_features_predicts_through_its_backbone(
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
    features = extractor(pixels)
    np.testing.assert_array_equal(predictor.inputs(pixels), features)
    found = predictor.predict(files)
    np.testing.assert_allclose(found, predictor.model.predict(features, verbose=0), atol=1e-6)
    heat = predictor.explain(pixels, np.array([0, 1, 2]))
    assert heat is not None and heat.shape == (3, 32, 32)

    weights.unlink()
    with pytest.raises(
        UserError, match=r"^data/raw/vgg16: no file has the hash md5:.* `dvc repro download_weights@vgg16`"
    ):
        Predictor(find_model("head"), threads)


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
