"""Tables, figures and sentences of every plot, for two classes up to 21,000."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from stages.evaluation import metrics
from stages.evaluation.predictions import Predictions
from stages.plots import _registry, classes, confusion, coverage, curves, reliability
from stages.plots._style import DARK, SOME_CLASSES
from stages.prediction.calibration import with_temperature
from stages.reporting import drawings
from tests.evaluation.test_metrics import CLASSES, FOUR
from tests.reporting.project import AWKWARD, make_predictions


def texts(document: str) -> list[str]:
    """All texts of an SVG document."""
    root = ElementTree.fromstring(document)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def some_predictions(names: list[str], images: int, share: float) -> Predictions:
    """The first images of every class are predicted as the next class, and `share` of them correctly."""
    size = len(names)
    true = np.repeat(np.arange(size), images)
    correct = np.tile(np.arange(images) >= round(images * (1 - share)), size)
    predicted = np.where(correct, true, (true + 1) % size)
    probabilities = np.full((len(true), size), 0.1 / size, np.float32)
    probabilities[np.arange(len(true)), predicted] = 0.9
    return make_predictions(true, probabilities, names)


def test_confusion_table_of_few_classes_has_every_pair() -> None:
    table = confusion.table(FOUR).set_index(["actual", "predicted"])
    assert len(table) == 16
    assert table["count"].sum() == 4
    assert table.loc[("dog", "cat"), "count"] == 1
    assert table.loc[("dog", "cat"), "share"] == 0.5
    assert table.loc["fox"]["share"].sum() == 0  # a class without images


def test_classes_table_has_precision_recall_and_f1() -> None:
    table = classes.table(FOUR).set_index("class")
    assert list(table.index) == CLASSES
    assert table.loc["cat"].tolist() == [0.5, 1, 0.6667, 1]  # one of two predicted cats is a cat
    assert table.loc["dog"].tolist() == [1, 0.5, 0.6667, 2]
    assert table.loc["fox"].tolist() == [0, 0, 0, 0]


def test_reliability_table_has_the_bins_of_the_calibration_error() -> None:
    assert reliability.table(FOUR)["confidence"].tolist() == [0.5, 0.6, 0.7]


def test_every_plot_has_its_parts() -> None:
    plots = _registry.all_plots()
    assert list(plots)[:4] == ["curves", "confusion", "classes", "reliability"]
    for name, table in _registry.tables(FOUR).items():
        assert list(table) == list(plots[name].COLUMNS)


def test_a_heatmap_of_few_classes_has_names_and_shares() -> None:
    found = texts(_svg(confusion.figure(confusion.table(some_predictions(AWKWARD, 10, 0.7)))))
    for name in ["<script>alert(1)</s…", "NA", "1", "$x^$", "a class whose name …", "T-shirt/top"]:
        assert found.count(name) == 2, name
    assert found.count("70") == found.count("30") == len(AWKWARD)
    assert "0" not in found  # an empty cell has no text


def test_a_heatmap_of_thirty_classes_has_no_numbers_in_its_cells() -> None:
    names = [f"class {number}" for number in range(30)]
    found = texts(_svg(confusion.figure(confusion.table(some_predictions(names, 10, 0.7)))))
    assert "class 29" in found
    assert "70" not in found


@pytest.mark.parametrize("number", [2, 41, 21_000])
def test_tables_and_figures_are_bounded_for_any_number_of_classes(number: int) -> None:
    names = [f"class {label}" for label in range(number)]
    random = np.random.default_rng(0)
    predicted = make_predictions(random.integers(0, number, 500), random.random((500, number)), names)
    metrics = {"ece": 0.1}
    plots = _registry.all_plots()
    for name, table in _registry.tables(predicted).items():
        assert len(table) <= 1681, name
        figure = plots[name].figure(table)
        assert max(figure.get_size_inches()) < 10, name
        assert len(_svg(figure)) < 100_000, name
        assert plots[name].description(table, metrics, number)
        some = f"Of {number:,} classes: " in plots[name].description(table, metrics, number)
        assert some == (number > 40 and name in ("confusion", "classes")), name


def test_confusion_of_many_classes_shows_the_most_confused_ones() -> None:
    names = [f"class {label}" for label in range(100)]
    true = np.repeat(np.arange(100), 10)
    predicted = true.copy()
    predicted[[700, 701, 702, 703, 704]] = 90  # five images of class 70
    predicted[[330, 331]] = 12
    table = confusion.table(make_predictions(true, np.eye(100)[predicted], names))
    assert len(table) == SOME_CLASSES**2
    cell = table.set_index(["actual", "predicted"]).loc[("class 70", "class 90")]
    assert (cell["count"], cell["share"]) == (5, 0.5)
    found = texts(_svg(confusion.figure(table)))
    assert {"class 70", "class 90", "class 33", "class 12"} < set(found)
    assert "class 99" not in found
    assert confusion.description(table, {}, 100).startswith(
        "The largest confusion: 50.00\N{NO-BREAK SPACE}% of “class 70”"
    )


def test_classes_of_a_large_dataset_are_the_best_and_the_worst_that_have_images() -> None:
    size = 3000
    true = np.arange(1, size).repeat(2)  # class 0 has no images
    predicted = true.copy()
    predicted[:1600] = 0  # classes 1 to 800 are never recognised
    table = classes.table(
        make_predictions(true, np.eye(size, dtype=np.float32)[predicted], list(map(str, range(size))))
    )
    assert len(table) == 1000
    assert (table["f1"] == 0).sum() == 500
    assert "0" not in set(table["class"])
    assert list(table.index) == sorted(table.index)


def test_largest_confusion_is_a_sentence() -> None:
    table = pd.DataFrame(
        {
            "actual": ["cat", "cat", "dog", "dog"],
            "predicted": ["cat", "dog", "cat", "dog"],
            "count": [9, 1, 40, 60],
            "share": [0.9, 0.1, 0.4, 0.6],
        }
    )
    assert confusion.description(table, {}, 2) == (
        "The largest confusion: 40.00\N{NO-BREAK SPACE}% of “dog” (40 images) are taken for “cat”."
    )
    assert confusion.description(table[table["actual"] == table["predicted"]], {}, 2).startswith("No image")


def test_largest_confusion_of_many_classes_is_the_one_of_most_images() -> None:
    """Also where the classes that occur are so few that every pair of them has a row."""
    true = np.array([0] * 10 + [1] * 10 + [2])
    predicted = np.array([0] * 6 + [1] * 4 + [1] * 10 + [0])
    table = confusion.table(make_predictions(true, np.eye(41)[predicted], [f"class {label}" for label in range(41)]))
    assert "40.00\N{NO-BREAK SPACE}% of “class 0” (4 images)" in confusion.description(table, {}, 41)


def test_curves_of_a_single_epoch_have_markers() -> None:
    history = pd.DataFrame([[1, 0.5, 1.0, 0.4, 1.2]], columns=list(curves.COLUMNS))
    assert [line.get_marker() for line in curves.figure(history).axes[0].lines] == ["o", "o"]


def test_svg_documents_follow_the_readers_colors_and_need_nothing_else() -> None:
    document = _svg(reliability.figure(reliability.table(FOUR)))
    assert "prefers-color-scheme:dark" in document
    style, drawing = document.split("</style>", 1)
    for light, dark in DARK.items():
        assert light in style and dark in style
        assert light not in drawing
    assert drawing.count("http") == 0
    assert ElementTree.fromstring(document).tag == "{http://www.w3.org/2000/svg}svg"


def test_class_names_in_any_script_stay_text_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    """A browser has fonts for them, whatever Matplotlib has."""
    names = ["猫", "狗", "قطة", "कुत्ता", "🦊", "$x$", "Straße", "犬" * 30, "कुत्ता " * 3]
    document = _svg(confusion.figure(confusion.table(some_predictions(names, 10, 0.7))))
    assert {"猫", "狗", "قطة", "कुत्ता", "🦊", "$x$"} < set(texts(document))
    assert [str(warning.message) for warning in recwarn] == []


def test_reliability_shows_probabilities_before_and_after_the_temperature() -> None:
    calibrated = some_predictions(["a", "b", "c"], 30, 0.6)
    true, original = calibrated.true, calibrated.probabilities / calibrated.probabilities.sum(axis=1, keepdims=True)
    scaled = with_temperature(original, 2.0)
    table = reliability.table(replace(calibrated, probabilities=scaled, temperature=2.0))
    expected = reliability.table(make_predictions(true, original, ["a", "b", "c"]))
    before = table[table["temperature"] == "before"].drop(columns="temperature")
    pd.testing.assert_frame_equal(before, expected.drop(columns="temperature"))
    assert {"before the temperature", "after the temperature"} < set(texts(_svg(reliability.figure(table))))
    assert "before the temperature" in reliability.description(table, {"ece": 0.1}, 3)
    assert set(expected["temperature"]) == {"after"}


def test_coverage_marks_the_threshold_with_the_metrics_of_the_answers() -> None:
    predicted = replace(some_predictions(["a", "b"], 101, 0.6), not_sure_below=0.7)
    values = metrics.compute(predicted)
    table = coverage.table(predicted)
    (row,) = table[table["threshold"] == 1].itertuples()
    assert (row.answered, row.accuracy) == (round(values["answered"], 4), round(values["answered_accuracy"], 4))
    assert row.confidence >= 0.7 and table["answered"].iloc[-1] == 1
    assert table["accuracy"].iloc[-1] == round(values["accuracy"], 4)
    assert "threshold" in texts(_svg(coverage.figure(table)))
    never = coverage.table(replace(predicted, not_sure_below=1.01))
    assert not never["threshold"].any() and "threshold" not in texts(_svg(coverage.figure(never)))


def _svg(figure: Figure) -> str:
    return drawings.draw(figure)[0]
