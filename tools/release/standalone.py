"""`python -m tools.release.standalone MODEL FILE`: a model on features with its backbone, as one .keras file."""

from pathlib import Path

from stages.config import params
from stages.inference.locate import find_model
from stages.inference.predictor import Predictor
from stages.prediction.saved_model import save
from stages.runtime.cli import run
from stages.runtime.errors import UserError


def standalone(model: str, target: str) -> None:
    """Write `target`, which predicts the same without the file of the backbone's weights.

    Args:
        model: name of a model on features, or the path of its file.
        target: the .keras file to write.

    Raises:
        UserError: the model takes images: its file is standalone already.
    """
    source, path = find_model(model), Path(target)
    if path.suffix != ".keras":
        raise UserError(f"{target}: a model file ends with .keras; choose such a name")
    predictor = Predictor(source, params.load().threads)
    if predictor.backbone is None:
        raise UserError(f"{source}: it takes images, not features, so it is standalone already; copy the file")
    from stages.inference.backbone import join

    joined = join(predictor.backbone, predictor.model)
    signature = {**predictor.signature, "image_size": predictor.image_shape[0], "backbone": None}
    signature |= {} if predictor.fit == "crop" else {"fit": predictor.fit}
    save(joined, path, signature)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    run(standalone, "model", "file")
