"""Times as people read them, and the time that a training is expected to take."""

import pytest

from dccd_timm.engine import timing
from dccd_timm.engine.timing import Forecast, readable_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (720, "12 min"), (3600, "1 h 00 min"),
        (11_100, "3 h 05 min"), (187_200, "2 d 04 h"),
    ],
)  # fmt: skip
def test_a_time_has_its_two_largest_units(seconds, text):
    assert readable_seconds(seconds) == text


def test_the_expected_time_comes_once_and_leaves_the_first_updates_out(monkeypatch):
    clock = iter([100.0, 130.0])  # after the 5th and the 20th update
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    forecast = Forecast()
    lines = [forecast.after_update(1000 - number) for number in range(1, 41)]
    assert [line for line in lines if line] == [lines[19]]
    assert lines[19] == "about 33 min for the other 980 updates, without validation"
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 0.0)
    assert not any(map(Forecast().after_update, range(19, -1, -1)))  # nothing is left
