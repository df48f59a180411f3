"""Learning-rate schedules."""

import numpy as np
import pytest

from stages.training.schedules import constant, cosine, exponential, flat_cosine, one_cycle, triangular


def test_schedule_gives_a_float32_rate_for_every_step() -> None:
    np.testing.assert_array_equal(constant.build(0.1, 3, 1), np.full(3, 0.1, np.float32))
    rates = cosine.build(0.1, 100, 1)
    assert rates.dtype == np.float32 and rates.shape == (100,)
    assert rates[0] == np.float32(0.1) and rates[50] == np.float32(0.05) and 0 < rates[-1] < 1e-4
    assert (np.diff(rates) < 0).all()


def test_triangular_rises_and_falls_on_straight_lines() -> None:
    rates = triangular.build(2.0, 100, 10, start=0.2, warmup=0.23, end=0.07)
    expected = 2 * np.interp(np.arange(100), [0, 23, 100], [0.2, 1, 0.07])
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    np.testing.assert_allclose(triangular.build(1.0, 4, 2), [1, 0.75, 0.5, 0.25])


def test_triangular_is_zero_after_until() -> None:
    rates = triangular.build(1.0, 9, 9, until=1 / 3, end=0.4)
    np.testing.assert_allclose(rates, [1, 0.8, 0.6, 0, 0, 0, 0, 0, 0], rtol=1e-6)


def test_one_cycle_has_the_rates_and_momenta_of_pytorch() -> None:
    values = one_cycle.build(0.01, 20, 2, warmup=0.3, start=0.04, end=4e-6, momentum=[0.95, 0.85])
    assert values.dtype == np.float32 and values.shape == (20, 2)
    np.testing.assert_allclose(values[[0, 5, 19], 0], [0.0004, 0.01, 4e-8], rtol=1e-5)  # the peak is step 0.3 · 20 - 1
    np.testing.assert_allclose(values[[0, 5, 12, 19], 1], [0.95, 0.85, 0.9, 0.95], rtol=1e-6)
    np.testing.assert_allclose(values[12, 0], (0.01 + 4e-8) / 2, rtol=1e-5)  # half of the way down
    rates = one_cycle.build(0.01, 20, 2, warmup=0.3, start=0.04, end=4e-6)
    np.testing.assert_array_equal(rates, values[:, 0])


def test_flat_cosine_falls_after_the_flat_part() -> None:
    rates = flat_cosine.build(0.01, 100, 1, flat=0.75, end=1e-5)
    assert rates.dtype == np.float32
    assert (rates[:76] == np.float32(0.01)).all() and (np.diff(rates[75:]) < 0).all()
    np.testing.assert_allclose(rates[[80, 99]], [0.00904508, 3.95e-5], rtol=0.02)


def test_exponential_falls_between_epochs() -> None:
    np.testing.assert_allclose(exponential.build(1.0, 6, 3, factor=0.5), [1, 1, 0.5, 0.5, 0.25, 0.25])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_schedules_of_few_steps_are_finite(steps: int) -> None:
    found = [
        one_cycle.build(1.0, steps, 1, warmup=0.3, start=0.04, end=4e-6, momentum=[0.95, 0.85]),
        triangular.build(1.0, steps, 1, start=0.2, warmup=0.23, end=0.07, until=0.25),
        flat_cosine.build(1.0, steps, 1, flat=0.75),
    ]
    assert all(len(rates) == steps and np.isfinite(rates).all() and (rates >= 0).all() for rates in found)
    assert all((rates <= 1).all() for rates in found)
