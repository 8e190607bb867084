"""Signals that ask a run to stop."""

import os
import signal

import pytest

from dccd_timm.launch.stop import REQUEUE, StopSignals


@pytest.fixture
def signals():
    signals = StopSignals()
    yield signals
    signals.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_is_noted_and_names_the_code_and_the_way_back(number, code, signals, tmp_path, caplog):
    assert not signals.came()
    os.kill(os.getpid(), number)
    assert signals.came()
    with pytest.raises(SystemExit) as ended:
        signals.leave(tmp_path)
    assert ended.value.code == code
    assert f"{number.name}: saved; resume with --resume {tmp_path}" in caplog.text


def test_the_second_signal_has_its_old_effect(signals):
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_another_ranks_signal_asks_for_a_requeue(signals, tmp_path, caplog):
    with pytest.raises(SystemExit) as ended:
        signals.leave(tmp_path)
    assert ended.value.code == REQUEUE and "another rank was told to stop" in caplog.text


def test_closing_restores_the_handlers():
    before = signal.getsignal(signal.SIGTERM)
    signals = StopSignals()
    assert signal.getsignal(signal.SIGTERM) != before
    signals.close()
    assert signal.getsignal(signal.SIGTERM) == before
