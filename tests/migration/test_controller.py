"""The adaptive controller, and the predictor that simulates it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xiatb.migration.controller import FIRST_LIMIT_MS, Bounds, Controller, Decision, Sample
from xiatb.migration.predictor import Costs, Path, Workload, predict

MB = 1_000_000


def passes(
    bounds: Bounds, sizes: list[int], *, dirty: float = 1 * MB, goodput: float = 10 * MB
) -> list[Decision]:
    """The decisions over passes that begin with these sizes, one a second."""
    controller = Controller(bounds)
    for number, size in enumerate(sizes, 1):
        controller.observe(Sample(float(number), number, size, dirty, goodput))
    return controller.decisions


def test_a_calm_guest_is_left_alone() -> None:
    made = passes(Bounds(), [100 * MB, 10 * MB, MB, MB // 10])
    assert [(one.kind, one.value) for one in made] == [("downtime", FIRST_LIMIT_MS)]


def test_the_users_limit_is_never_exceeded() -> None:
    assert passes(Bounds(downtime_ms=20), [100 * MB])[0].value == 20


def test_round_trips_are_part_of_the_users_limit() -> None:
    for round_trip, limit in ((0.0, 100), (0.02, 70), (1.0, 25)):
        controller = Controller(Bounds(downtime_ms=100))
        for second in range(1, 30):
            controller.observe(Sample(float(second), second, 50 * MB, 9 * MB, 10 * MB, round_trip))
        assert controller.limit_ms == limit


def test_a_hot_set_that_fits_gets_the_limit_it_needs() -> None:
    made = passes(Bounds(), [100 * MB, 2 * MB, 2 * MB, 2 * MB, 2 * MB])
    assert [(one.kind, one.value) for one in made[1:]] == [("downtime", 250)]
    assert "1953 KiB" in made[1].reason and "80.0 Mbit/s" in made[1].reason


@pytest.mark.parametrize(
    ("bounds", "kinds"),
    [
        (Bounds(postcopy=True), ["postcopy"]),
        (Bounds(throttle=40), ["throttle", "throttle", "throttle", "downtime"]),
        (Bounds(), ["downtime"]),
        (Bounds(bandwidth=MB, bandwidth_most=4 * MB, postcopy=True), ["bandwidth", "bandwidth", "postcopy"]),
    ],
)
def test_a_guest_that_dirties_too_fast_is_dealt_with_by_the_mildest_means(
    bounds: Bounds, kinds: list[str]
) -> None:
    made = passes(bounds, [100 * MB] + [50 * MB] * 14, dirty=9 * MB)
    assert [one.kind for one in made[1:]] == kinds
    assert "72.0 Mbit/s of 80.0 Mbit/s" in made[1].reason


def test_throttle_goes_in_steps_to_what_is_allowed() -> None:
    made = passes(Bounds(throttle=50), [100 * MB] + [50 * MB] * 14, dirty=9 * MB)
    steps = [(one.t, one.value) for one in made if one.kind == "throttle"]
    assert [value for _, value in steps] == [20, 35, 50]


def test_a_step_of_the_throttle_has_its_effect_in_the_next_pass_only() -> None:
    controller = Controller(Bounds(throttle=50, deadline_s=2.0))
    made = [controller.observe(Sample(3 + n / 2, 1, 100 * MB, 9 * MB, 10 * MB)) for n in range(6)]
    assert [one.kind for some in made for one in some] == ["downtime", "throttle"]
    later = controller.observe(Sample(7.0, 2, 50 * MB, 9 * MB, 10 * MB))
    assert [(one.kind, one.value) for one in later] == [("throttle", 35)]


def test_hybrid_switches_after_the_passes_asked_for() -> None:
    made = passes(Bounds(postcopy=True, after_passes=2), [100 * MB, 10 * MB, MB, MB])
    assert [(one.t, one.kind) for one in made[1:]] == [(3.0, "postcopy")]


def test_a_deadline_that_would_be_missed_ends_precopy() -> None:
    made = passes(Bounds(postcopy=True, deadline_s=5.0), [100 * MB])
    assert [one.kind for one in made] == ["downtime", "postcopy"]
    assert "deadline" in made[1].reason


def test_decisions_are_apart_and_none_follow_the_switch() -> None:
    controller = Controller(Bounds(throttle=90))
    for tick in range(100):
        controller.observe(Sample(tick / 100, 1 + tick // 5, 50 * MB, 9 * MB, 10 * MB))
    times = [one.t for one in controller.decisions[1:]]
    assert len(times) == 3
    assert all(b - a >= 0.4 for a, b in zip(times, times[1:], strict=False))
    switched = Controller(Bounds(postcopy=True, after_passes=1))
    for number in range(1, 9):
        switched.observe(Sample(float(number), number, 50 * MB, 9 * MB, 10 * MB))
    assert [one.kind for one in switched.decisions] == ["downtime", "postcopy"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1 << 34), st.floats(0, 1e10), st.floats(0, 1e10)), max_size=60),
    st.builds(
        Bounds, downtime_ms=st.integers(1, 5000), throttle=st.integers(0, 99), postcopy=st.booleans(),
        bandwidth=st.integers(0, 1 << 30), bandwidth_most=st.integers(0, 1 << 30),
        deadline_s=st.floats(0, 100), after_passes=st.integers(0, 5),
    ),
)  # fmt: skip
def test_whatever_is_measured_the_bounds_hold(rows: list[tuple[int, float, float]], bounds: Bounds) -> None:
    controller = Controller(bounds)
    for number, (remaining, dirty, goodput) in enumerate(rows):
        controller.observe(Sample(number * 0.1, 1 + number // 3, remaining, dirty, goodput))
    for one in controller.decisions:
        assert one.reason
        assert one.kind != "downtime" or one.value <= bounds.downtime_ms
        assert one.kind != "throttle" or one.value <= bounds.throttle
        assert one.kind != "bandwidth" or one.value <= bounds.bandwidth_most
        assert one.kind != "postcopy" or bounds.postcopy


def test_an_idle_guest_takes_one_pass_and_a_short_stop() -> None:
    costs = Costs(prepare_s=1.0, stop_s=0.05, finish_s=0.5, device_bytes=100_000)
    found = predict(Workload(160 << 20, 100 * MB), Path(10 * MB, 0.02), Bounds(), costs=costs)
    memory = 100 * MB / 4096 * 4104 + ((160 << 20) - 100 * MB) / 4096 * 9
    assert found.memory_bytes == pytest.approx(memory + 100_000, rel=1e-6)
    assert found.downtime_s == pytest.approx(0.01 + 0.03 + 0.05)
    assert found.total_s == pytest.approx(1.5 + memory / 10 / MB + found.downtime_s, rel=1e-3)
    assert found.converges and not found.switches


def test_storage_comes_first_and_takes_its_time() -> None:
    without = predict(Workload(MB, MB), Path(MB), Bounds())
    found = predict(Workload(MB, MB), Path(MB), Bounds(), storage=5 * MB)
    assert found.total_s - without.total_s == pytest.approx(5.0) and found.storage_s == 5.0


def test_a_busy_guest_does_not_converge_unless_something_is_allowed() -> None:
    busy = Workload(160 << 20, 150 * MB, dirty_rate=20 * MB, working_set=80 * MB)
    assert not predict(busy, Path(10 * MB), Bounds()).converges
    found = predict(busy, Path(10 * MB), Bounds(postcopy=True))
    assert found.switches and found.downtime_s < 0.2


def test_more_dirtying_never_takes_less_time() -> None:
    times = [
        predict(
            Workload(160 << 20, 100 * MB, dirty_rate=rate * MB, working_set=4 * MB), Path(10 * MB), Bounds()
        ).total_s
        for rate in range(6)
    ]
    assert times == sorted(times)


def test_calibration_goes_half_way() -> None:
    found = predict(Workload(MB, MB), Path(MB), Bounds())
    costs = Costs().calibrated(found, found.total_s + 1.0, found.downtime_s + 0.1)
    assert costs.finish_s == pytest.approx(Costs().finish_s + 0.5)
    assert costs.stop_s == pytest.approx(Costs().stop_s + 0.05)


def test_no_goodput_no_prediction() -> None:
    with pytest.raises(ValueError, match="goodput"):
        predict(Workload(MB, MB), Path(0.0), Bounds())
