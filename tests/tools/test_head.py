"""`make dataset BACKBONE=` and `make finetune`: entries for heads on backbones and for fine-tuned models."""

from pathlib import Path

import pytest

from stages.backbones._networks import BUILT_IN
from stages.config import params
from stages.preprocess_folder import preprocess_folder
from stages.runtime.errors import UserError
from tests.conftest import ROOT
from tests.data.test_folder import image, write
from tools.data.dataset import dataset
from tools.data.head import finetune

NO_COLUMNS = dict.fromkeys(("image", "label", "split", "group"))


@pytest.fixture(autouse=True)
def published_params(project: Path) -> None:
    """The params.yaml of the repository, byte by byte, instead of a smaller one."""
    (project / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())


def add(name: str, backbone: str) -> None:
    dataset(name, "", None, None, NO_COLUMNS, backbone=backbone)


def test_backbone_is_a_word_and_its_weights_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    add("imagenette", "efficientnetv2b0")
    values = params.load()
    ((file, (mirror,)),) = values.weights["efficientnetv2b0"].files.items()
    assert file == "efficientnetv2-b0_notop.h5" and mirror.url.endswith(f"/efficientnet_v2/{file}")
    assert mirror.hash == "md5:893217f2bb855e2983157299931e43ff"
    assert values.models["imagenette_efficientnetv2b0"].dataset == "imagenette_efficientnetv2b0"
    said = capsys.readouterr().out
    assert "efficientnetv2b0: a download of 23.7 MB, 1.4 GFLOP an image; 78.7 % on ImageNet (published)" in said
    assert said.endswith("next: make repro TARGETS=evaluate@imagenette_efficientnetv2b0\n")


def test_backbone_in_git_needs_no_weights_and_is_fine_tuned(capsys: pytest.CaptureFixture[str]) -> None:
    add("imagenette", BUILT_IN)
    finetune("imagenette_mobilenetv2")
    values = params.load()
    assert BUILT_IN not in values.weights
    start = values.pretrained["imagenette_mobilenetv2_network"]
    assert (start.head, start.backbone, start.dataset) == ("imagenette_mobilenetv2", BUILT_IN, "imagenette")
    tuned = values.resolved_models["imagenette_mobilenetv2_finetuned"]
    assert (tuned.dataset, tuned.image_size) == ("imagenette", 224)
    assert (tuned.learning_rate, tuned.epochs) == (0.0005, 30)
    assert "next: make repro TARGETS=evaluate@imagenette_mobilenetv2_finetuned\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "backbone", "message"),
    [
        ("imagenette", "resnet5", "BACKBONE=resnet5: there is no such network; did you mean 'resnet50'"),
        ("imagenette", "vgg16", "weights.vgg16.synthetic: the sample uses random weights of vgg16; remove this line"),
        ("flowers", "resnet50", "datasets and folders: there is no 'flowers'"),
    ],
)
def test_impossible_head_is_one_line(name: str, backbone: str, message: str) -> None:
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError) as caught:
        add(name, backbone)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert Path("params.yaml").read_bytes() == before


def test_images_with_one_channel_are_not_for_a_backbone(project: Path) -> None:
    gray = {f"{name}/{index}.png": image(index, "PNG", "L") for name in ("cat", "dog") for index in range(20)}
    source = str(write(project / "pets", gray))
    message = r"^BACKBONE=resnet50: the images of pets have one channel, and a backbone takes RGB; .*"
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError, match=message):
        dataset("pets", source, None, None, NO_COLUMNS, backbone="resnet50")
    assert Path("params.yaml").read_bytes() == before
    dataset("pets", source, None, None, NO_COLUMNS)
    preprocess_folder("pets")
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError, match=message):
        add("pets", "resnet50")
    assert Path("params.yaml").read_bytes() == before


def test_model_without_a_backbone_cannot_be_fine_tuned() -> None:
    with pytest.raises(UserError, match=r"models.mnist_cnn: it takes no features of a backbone; .*imagenette_vgg16"):
        finetune("mnist_cnn")
