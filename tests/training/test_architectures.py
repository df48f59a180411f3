"""Initial weights and layouts of the architectures whose published form starts from special weights."""

import numpy as np
import pytest

from stages.models import airbench, fashion_resnet, mini_net, xresnet

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]


def test_airbench_convolutions_start_as_the_identity_of_their_first_channels() -> None:
    network = airbench.build(
        (32, 32, 3), 10, mean=MEAN, std=STD, widths=[64, 8], convolutions=2, norm_momentum=0.6, logit_scale=1 / 9
    )
    kernel = np.asarray(network.get_layer("group1_conv1").kernel)  # 24 → 64
    images = np.random.default_rng(0).normal(size=(2, 5, 5, 24)).astype(np.float32)
    np.testing.assert_allclose(network.get_layer("group1_conv1")(images)[..., :24], images, atol=1e-6)
    others = kernel[..., 24:]
    assert 0.95 < np.abs(others).max() * (9 * 24) ** 0.5 <= 1  # uniform between ±1/√(9 · 24)
    assert others.std() * (9 * 24) ** 0.5 == pytest.approx(3**-0.5, rel=0.02)
    narrow = np.asarray(network.get_layer("group2_conv1").kernel)  # 64 → 8: only identities
    assert narrow.sum() == np.count_nonzero(narrow) == 8
    assert not np.any(network.get_layer("whitening").bias)
    assert np.abs(network.get_layer("head").kernel).max() <= 8**-0.5


def test_airbench_of_muon_starts_with_random_bias_and_unit_variance_head() -> None:
    network = airbench.build(
        (32, 32, 3),
        10,
        mean=MEAN,
        std=STD,
        widths=[64],
        convolutions=2,
        norm_momentum=0.6,
        logit_scale=1 / 256,
        random_whitening_bias=True,
        unit_variance_head=True,
    )
    assert np.asarray(network.get_layer("head").kernel).std(ddof=1) == pytest.approx(1, rel=1e-5)
    bias = np.abs(network.get_layer("whitening").bias)
    assert 0.5 * 12**-0.5 < bias.max() <= 12**-0.5


def test_airbench_residual_group_adds_its_first_activation() -> None:
    """With identities as convolutions and no statistics yet, batch normalization in validation changes nothing."""
    import keras

    network = airbench.build(
        (32, 32, 3),
        10,
        mean=MEAN,
        std=STD,
        widths=[24],
        convolutions=3,
        norm_momentum=0.9,
        logit_scale=1 / 9,
        residual=True,
    )
    images = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    first = network.get_layer("group1_norm1").output
    last = next(layer for layer in reversed(network.layers) if isinstance(layer, keras.layers.Activation)).output
    before, found = keras.Model(network.input, [first, last])(images, training=False)
    start = keras.activations.gelu(before)
    np.testing.assert_allclose(found, keras.activations.gelu(start + keras.activations.gelu(start)), atol=1e-5)


def test_fashion_resnet_normalizes_its_inputs_and_halves_four_times() -> None:
    network = fashion_resnet.build((28, 28, 1), 10, mean=0.28, std=0.35, widths=[4, 4, 8, 8, 8])
    rescaled = network.layers[1](np.full((1, 28, 28, 1), 0.63, np.float32))
    np.testing.assert_allclose(rescaled, 1, atol=1e-6)
    kernels = [np.asarray(weight) for weight in network.weights if weight.path.endswith("kernel")]
    assert kernels[0].shape == (5, 5, 1, 4)
    head = next(layer for layer in network.layers if layer.__class__.__name__ == "Flatten")
    assert head.output.shape == (None, 2 * 2 * 8)


def test_xresnet_blocks_start_as_their_shortcuts() -> None:
    network = xresnet.build(
        (32, 32, 3), 10, mean=MEAN, std=STD, stem=[8, 8], widths=[8, 16], blocks=[2, 1], activation="relu"
    )
    gammas = [np.asarray(weight) for weight in network.weights if weight.path.endswith("gamma")]
    assert sum(not gamma.any() for gamma in gammas) == 3  # the last one of each block
    with pytest.raises(ValueError, match="widths has 1 stages, blocks has 2"):
        xresnet.build((32, 32, 3), 10, mean=MEAN, std=STD, stem=[8], widths=[8], blocks=[2, 1], activation="relu")


def test_mini_net_convolves_each_group_of_channels_alone() -> None:
    """Two groups of two channels with three filters each: group g has the channels g and 2 + g."""
    import keras

    network = mini_net.build((32, 32, 3), 10, channel_groups=2, reduction=1, widths=[4, 4], inner_widths=[4, 6])
    first, second = [layer for layer in network.layers if isinstance(layer, keras.layers.DepthwiseConv2D)][-2:]
    assert first.kernel.shape == second.kernel.shape == (3, 3, 2, 3)
    assert np.asarray(first.kernel).std() == pytest.approx((2 / (9 * 2)) ** 0.5, rel=0.3)  # He: 9 · 2 inputs
    total = next(
        layer for layer in network.layers if isinstance(layer, keras.layers.Add) and layer.output.shape[-1] == 6
    )
    activations = [layer.output for layer in network.layers if isinstance(layer, keras.layers.Activation)]
    source = [output for output in activations if output.shape == (None, 8, 8, 4)][-1]  # of the first block
    images = np.zeros((1, 8, 8, 4), np.float32)
    images[..., 3] = 1
    outputs = np.asarray(keras.Model(source, total.output)(images))
    assert outputs.shape == (1, 4, 4, 6)
    assert not outputs[..., :3].any()
    assert outputs[..., 3:].any()
    with pytest.raises(ValueError, match="3 groups do not divide"):
        mini_net.build((32, 32, 3), 10, channel_groups=3, reduction=1, widths=[4], inner_widths=[6])
