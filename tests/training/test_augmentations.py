"""Augmentations, against what NumPy and SciPy do to each image."""

from typing import Any

import numpy as np
import pytest

from stages.config.models import PartConfig
from stages.training import random
from stages.training.augment import Batch, augment_images, build_augmentations

EACH: dict[str, dict[str, Any]] = {
    "horizontal_flip": {},
    "contrast": {"factor": 0.5},
    "rotation": {"factor": 0.1},
    "translation": {"factor": 0.2},
    "zoom": {"factor": 0.3},
    "random_crop": {"padding": 2, "mode": "reflect"},
    "alternating_flip": {},
    "cutout": {"size": 5},
    "random_erasing": {"size": 5, "max_squares": 3},
    "mixup": {"alpha": 1.0},
    "cutmix": {"alpha": 1.0},
    "affine": {"rotation": 0.1, "translation": 0.1, "zoom": 0.2},
    "random_resized_crop": {"scale": 0.3, "ratio": 1.5},
    "color_jitter": {"brightness": 0.3, "contrast": 0.4, "saturation": 0.5},
}
KERAS = ("horizontal_flip", "contrast", "rotation", "translation", "zoom")  # with state in variables
MIXING = ("mixup", "cutmix")
SEED = 1


def batch_of(count: int = 40, shape: tuple[int, ...] = (12, 10, 3), epoch: int = 0) -> Batch:
    """Random images and labels of three classes."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    return Batch(
        tf.constant(rng.integers(0, 256, (count, *shape)).astype(np.float32)),
        tf.constant(rng.integers(0, 3, count), tf.int32),
        tf.constant(rng.permutation(1000)[:count], tf.int64),
        tf.constant(epoch, tf.int64),
        3,
        count,
    )


def parts(*names: str) -> list[PartConfig]:
    return [PartConfig(name=name, **EACH[name]) for name in names]


def augment(name: str, batch: Batch, seed: int = SEED, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets after one augmentation."""
    (augmentation,) = build_augmentations([PartConfig(name=name, **(options or EACH[name]))], seed)
    augmented = augmentation(batch)
    return augmented.inputs.numpy(), augmented.targets.numpy()


def test_augmentations_are_independent_of_each_other() -> None:
    """With one seed for all, an image would be flipped whenever it is rotated in one direction."""
    augmentations: list[Any] = build_augmentations(parts(*KERAS), seed=1)
    states = [tuple(np.asarray(augmentation.variables[0]).tolist()) for augmentation in augmentations]
    assert len(set(states)) == len(KERAS)


@pytest.mark.parametrize("name", EACH)
def test_augmentation_changes_images_in_the_same_way_for_the_same_seed(name: str) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8), rng.integers(0, 3, 8)
    changed, again, other = (
        augment_images(build_augmentations(parts(name), seed), images, labels, 3) for seed in (1, 1, 2)
    )
    assert changed.shape == images.shape
    assert not np.array_equal(changed, images)
    assert np.array_equal(again, changed)
    assert not np.array_equal(other, changed)


def test_order_of_params_is_the_order_of_the_augmentations() -> None:
    augmentations: list[Any] = build_augmentations(parts("zoom", "horizontal_flip"), seed=1)
    assert [type(augmentation._layer).__name__ for augmentation in augmentations] == ["RandomZoom", "RandomFlip"]


@pytest.mark.parametrize("name", [name for name in EACH if name not in (*KERAS, *MIXING, "random_erasing")])
def test_augmentation_of_an_image_does_not_depend_on_the_split_of_its_batch(name: str) -> None:
    batch = batch_of()
    whole, _ = augment(name, batch)
    halves = [batch._replace(inputs=batch.inputs[start::2], indices=batch.indices[start::2]) for start in (0, 1)]
    for start, half in enumerate(halves):
        # Not every bit: sines of vectors and of what is left over are rounded differently
        np.testing.assert_allclose(augment(name, half)[0], whole[start::2], atol=1e-2)
    assert not np.array_equal(augment(name, batch_of(epoch=1))[0], whole)


@pytest.mark.parametrize("name", [name for name in EACH if name not in KERAS])
def test_augmentation_in_a_graph_gives_what_it_gives_outside(name: str) -> None:
    """In the graph of a training the number of examples may be unknown when it is built."""
    import tensorflow as tf

    batch = batch_of()
    (augmentation,) = build_augmentations(parts(name), SEED)
    expected, targets = augment(name, batch)

    def inputs_and_targets(inputs: Any, labels: Any) -> Any:
        return augmentation(batch._replace(inputs=inputs, targets=labels))[:2]

    signature = [tf.TensorSpec([None, 12, 10, 3]), tf.TensorSpec([None], tf.int32)]
    found = tf.function(inputs_and_targets, input_signature=signature)(batch.inputs, batch.targets)
    np.testing.assert_allclose(found[0], expected, atol=1e-3)
    np.testing.assert_allclose(found[1], targets, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "pad"),
    [
        ({"mode": "reflect"}, {"mode": "reflect"}),
        ({"mode": "constant"}, {"constant_values": 0}),
        ({"mode": "constant", "fill": [1.0, 2.0, 3.0]}, None),
    ],
)
@pytest.mark.parametrize("padding", [1, 3, 15])
def test_random_crop_is_a_window_of_each_padded_image(options: Any, pad: Any, padding: int) -> None:
    batch = batch_of()
    found, _ = augment("random_crop", batch, padding=padding, **options)
    shifts = random.integers(SEED, batch, [2 * padding + 1] * 2).numpy()
    assert len(set(map(tuple, shifts))) > 5
    for image, cropped, (top, left) in zip(batch.inputs.numpy(), found, shifts, strict=True):
        if pad is None:
            padded = np.full((12 + 2 * padding, 10 + 2 * padding, 3), [1, 2, 3], np.float32)
            padded[padding:-padding, padding:-padding] = image
        else:
            padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), **pad)
        assert np.array_equal(cropped, padded[top : top + 12, left : left + 10])


def test_random_crop_fills_grayscale_images_with_the_mean_of_the_colors() -> None:
    found, _ = augment("random_crop", batch_of(shape=(8, 8, 1)), padding=20, mode="constant", fill=[30.0, 60.0, 0.0])
    assert (found == 30).any(axis=(1, 2, 3)).mean() > 0.9


def test_alternating_flip_flips_every_image_in_every_other_epoch() -> None:
    images = batch_of().inputs.numpy()
    epochs = [augment("alternating_flip", batch_of(epoch=epoch))[0] for epoch in range(3)]
    flipped = [(epoch == images[:, :, ::-1]).all(axis=(1, 2, 3)) for epoch in epochs]
    kept = [(epoch == images).all(axis=(1, 2, 3)) for epoch in epochs]
    assert np.array_equal(kept, ~np.array(flipped))
    assert 8 < flipped[0].sum() < 32
    assert np.array_equal(flipped[1], ~flipped[0])
    assert np.array_equal(flipped[2], flipped[0])


@pytest.mark.parametrize(("fill", "color"), [(0.0, [0, 0, 0]), ([1.5, 2.5, 3.5], [1.5, 2.5, 3.5])])
def test_cutout_erases_one_square_of_each_image(fill: Any, color: list[float]) -> None:
    batch = batch_of()
    found, targets = augment("cutout", batch, size=4, fill=fill)
    places = random.integers(SEED, batch, [12 - 4 + 1, 10 - 4 + 1]).numpy()
    for image, erased, (top, left) in zip(batch.inputs.numpy(), found, places, strict=True):
        image[top : top + 4, left : left + 4] = color
        assert np.array_equal(erased, image)
    assert np.array_equal(targets, batch.targets)


def test_cutout_larger_than_the_images_erases_them() -> None:
    """Progressive resizing makes images smaller."""
    assert (augment("cutout", batch_of(), size=100)[0] == 0).all()


def test_random_erasing_fills_up_to_the_largest_number_of_squares_with_noise() -> None:
    batch = batch_of(400, (16, 16, 1))
    images, (found, _) = batch.inputs.numpy(), augment("random_erasing", batch, size=3, max_squares=2)
    changed = (found != images).sum(axis=(1, 2, 3))
    assert set(changed) <= {0, *range(7, 19)}  # squares may overlap; noise that is clipped may equal a pixel
    shares = [(changed == 0).mean(), ((changed > 0) & (changed <= 9)).mean(), (changed > 9).mean()]
    np.testing.assert_allclose(shares, [1 / 3] * 3, atol=0.1)
    noise = found[found != images]
    assert noise.min() == 0 and noise.max() == 255
    inside = noise[(noise > 0) & (noise < 255)]
    mean, deviation = images.mean(), images.std()
    from scipy.stats import truncnorm

    expected = truncnorm((0 - mean) / deviation, (255 - mean) / deviation, mean, deviation)
    assert inside.mean() == pytest.approx(expected.mean(), abs=5)
    assert inside.std() == pytest.approx(expected.std(), abs=5)


@pytest.mark.parametrize("labels", ["labels", "probabilities"])
def test_mixup_blends_images_and_labels_in_the_same_proportion(labels: str) -> None:
    import tensorflow as tf

    batch = batch_of()
    one_hot = np.eye(3, dtype=np.float32)[batch.targets]
    if labels == "probabilities":
        batch = batch._replace(targets=tf.constant(one_hot))
    found, targets = augment("mixup", batch, alpha=0.4)
    share = random.beta(SEED, batch, 0.4).numpy()
    images = batch.inputs.numpy()
    other = np.roll(images, 1, axis=0)
    np.testing.assert_allclose(
        found, share[:, None, None, None] * images + (1 - share)[:, None, None, None] * other, atol=1e-3
    )
    expected = share[:, None] * one_hot + (1 - share)[:, None] * np.roll(one_hot, 1, axis=0)
    np.testing.assert_allclose(targets, expected, atol=1e-6)


def test_cutmix_pastes_a_box_and_mixes_labels_by_its_area() -> None:
    batch = batch_of(200, (16, 12, 3))
    found, targets = augment("cutmix", batch)
    images, one_hot = batch.inputs.numpy(), np.eye(3)[batch.targets]
    other = np.roll(images, 1, axis=0)
    pasted = (found != images).any(axis=-1)  # two random pixels are hardly ever the same
    for number, mask in enumerate(pasted):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = np.zeros_like(mask)
        if len(rows):
            box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert np.array_equal(mask, box)
        assert np.array_equal(found[number], np.where(box[..., None], other[number], images[number]))
        expected = (1 - box.mean()) * one_hot[number] + box.mean() * one_hot[number - 1]
        np.testing.assert_allclose(targets[number], expected, atol=1e-6)
    assert 0.2 < pasted.mean() < 0.45  # half of the area on average, less what lies outside of the images


def test_affine_is_rotation_shift_and_zoom_around_the_center() -> None:
    from scipy.ndimage import affine_transform

    batch = batch_of(shape=(16, 12, 2))
    found, _ = augment("affine", batch)
    draws = 2 * random.uniform(SEED, batch, 5).numpy().astype(float) - 1
    center = np.array([7.5, 5.5])
    for image, transformed, (turn, *rest) in zip(batch.inputs.numpy(), found, draws, strict=True):
        angle, (y, x), (zoom_y, zoom_x) = 2 * np.pi * 0.1 * turn, rest[:2], 1 + 0.2 * np.array(rest[2:])
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        matrix = rotation @ np.diag([zoom_y, zoom_x])
        offset = center + rotation @ np.array([0.1 * 16 * y, 0.1 * 12 * x]) - matrix @ center
        for channel in range(2):
            expected = affine_transform(image[..., channel], matrix, offset, order=1, mode="nearest")
            np.testing.assert_allclose(transformed[..., channel], expected, atol=0.02)


def test_affine_without_changes_keeps_the_images() -> None:
    batch = batch_of()
    found, _ = augment("affine", batch, rotation=0.0)
    np.testing.assert_allclose(found, batch.inputs, atol=1e-3)


def test_random_resized_crop_resizes_a_box_of_its_area_and_ratio_inside_each_image() -> None:
    batch = batch_of(400, (12, 10, 2))
    y, x = np.mgrid[:12, :10].astype(np.float32)
    batch = batch._replace(inputs=np.broadcast_to(np.stack([y, x], axis=-1), (400, 12, 10, 2)).copy())
    found, _ = augment("random_resized_crop", batch, scale=0.3, ratio=1.5)  # the positions that pixels come from
    inner = found[:, 3:-3, 3:-3]  # at the border, positions half a pixel outside of the image repeat it
    rows, columns = (inner[:, 1, 0, 0] - inner[:, 0, 0, 0]), (inner[:, 0, 1, 1] - inner[:, 0, 0, 1])
    top, left = (inner[:, 0, 0, 0] + 0.5 - 3.5 * rows, inner[:, 0, 0, 1] + 0.5 - 3.5 * columns)
    areas, ratios = rows * columns, columns / rows
    assert 0.3 <= areas.min() + 1e-4 < 0.32 and 0.9 < areas.max() < 1 + 1e-4
    assert 1 / 1.5 <= ratios.min() + 1e-4 < 0.7 and 1.4 < ratios.max() < 1.5 + 1e-4
    for starts, sides, size in ((top, rows, 12), (left, columns, 10)):
        assert starts.min() > -1e-4 and (starts + sides * size).max() < size + 1e-3
        assert np.corrcoef(starts, sides)[0, 1] < 0 and np.ptp(starts) > 0.3 * size
    for position in range(4):  # a straight line, of the same step everywhere
        np.testing.assert_allclose(inner[:, position, 0, 0], inner[:, 0, 0, 0] + position * rows, atol=1e-4)


def test_color_jitter_is_what_it_is_in_numpy() -> None:
    batch = batch_of()
    found, _ = augment("color_jitter", batch)
    factors = 1 + np.array([0.3, 0.4, 0.5]) * (2 * random.uniform(SEED, batch, 3).numpy() - 1)
    for image, jittered, (brightness, contrast, saturation) in zip(batch.inputs.numpy(), found, factors, strict=True):
        gray = image.mean(axis=-1, keepdims=True)
        expected = gray + saturation * (image - gray)
        expected = brightness * (gray.mean() + contrast * (expected - gray.mean()))
        np.testing.assert_allclose(jittered, np.clip(expected, 0, 255), atol=1e-3)
