"""Signals that end a run: the first requests it, and announcements of batch systems never do more."""

import os
import signal

import pytest

from guided_diffusion.training.stop import stop_on_signals

ANNOUNCEMENTS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGHUP]


@pytest.fixture
def default(request):
    """A signal that would kill this process, put back as it was afterwards."""
    before = signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, before or signal.SIG_DFL)


@pytest.mark.parametrize("default", ANNOUNCEMENTS, indirect=True)
def test_an_announcement_requests_a_stop_however_often_it_comes(default):
    with stop_on_signals() as stop:
        assert not stop.asked
        for _ in range(3):
            os.kill(os.getpid(), default)
        assert stop.asked
    assert signal.getsignal(default) is signal.SIG_DFL


@pytest.mark.parametrize("default", [signal.SIGHUP], indirect=True)
def test_an_ignored_announcement_stays_ignored(default):
    signal.signal(default, signal.SIG_IGN)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), default)
        assert not stop.asked


@pytest.mark.parametrize("default", [signal.SIGTERM], indirect=True)
def test_a_second_order_enforces_it(default):
    def enforce(*_):
        raise TimeoutError

    signal.signal(default, enforce)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), default)
        assert stop.asked
        with pytest.raises(TimeoutError):
            os.kill(os.getpid(), default)
