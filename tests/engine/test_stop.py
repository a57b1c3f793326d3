"""Signals: the first one requests a stop; a second one and the end of the grace period abandon the run."""

import os
import signal
import threading
import time

import pytest

from hrvol.engine.stop import ECHO, Abandoned, Stop, postponed, program_signals, stop_signals

SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT]


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python handles it between two instructions


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_requests_a_stop_and_a_second_one_abandons(number):
    with stop_signals() as stop:
        stop.working = True
        assert not stop.requested
        send(number)
        assert (stop.requested, stop.signal) == (True, number)
        with pytest.raises(Abandoned, match=signal.SIGINT.name):
            send(signal.SIGINT)
        assert stop.signal == number


def test_before_there_is_work_the_first_signal_ends_the_run():
    with stop_signals() as stop:
        with pytest.raises(Abandoned, match="SIGTERM"):
            send(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_after_sigterm_there_is_a_grace_and_no_more(number):
    with stop_signals(grace=0.2) as stop:
        stop.working = True
        send(number)
        start = time.monotonic()
        with pytest.raises(Abandoned, match="SIGALRM"):
            time.sleep(30)
        assert 0.1 < time.monotonic() - start < 10


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_after_other_signals_blocks_have_all_the_time_they_need(number):
    with stop_signals(grace=0.1) as stop:
        stop.working = True
        send(number)
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        time.sleep(0.2)


def test_signal_handlers_are_restored():
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    with stop_signals(grace=0.2) as stop:
        stop.working = True
        send(signal.SIGTERM)
    assert {number: signal.getsignal(number) for number in before} == before
    time.sleep(0.3)  # the grace ends with the run


def test_a_program_that_ends_is_not_spoilt_by_a_late_signal():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with stop_signals(ends=True):
            pass
        assert {number: signal.getsignal(number) for number in before} == before  # no stop was requested
        with stop_signals(ends=True) as stop:
            stop.working = True
            send(signal.SIGINT)
        for number in before:
            send(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_errors_of_a_run_propagate():
    with pytest.raises(ZeroDivisionError), stop_signals():
        1 / 0  # noqa: B018
    assert not issubclass(Abandoned, Exception)  # no task may swallow it


def test_a_thread_handles_no_signals_but_can_be_stopped():
    seen = []

    def run():
        with stop_signals() as stop:
            seen.append(stop.requested)
            stop.request(signal.SIGUSR1)
            seen.append(stop.signal)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False, signal.SIGUSR1]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_first_request_is_kept():
    stop = Stop()
    stop.request(signal.SIGUSR1)
    stop.request()
    assert stop.signal == signal.SIGUSR1


@pytest.fixture
def nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("handling", [stop_signals, program_signals])
def test_under_nohup_the_end_of_the_terminal_is_ignored(nohup, handling):
    with handling():
        send(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_program_that_handles_none_itself(number):
    before = {one: signal.getsignal(one) for one in SIGNALS}
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Abandoned), program_signals():
        send(number)
    assert {one: signal.getsignal(one) for one in SIGNALS} == before


def test_a_program_that_does_not_end_is_ended_by_a_second_signal():
    pid = os.fork()
    if pid == 0:
        with program_signals():
            for _ in range(3):  # one to end, an echo of it, and one that is meant
                try:
                    send(signal.SIGTERM)
                except Abandoned:
                    send(signal.SIGTERM)
                    time.sleep(ECHO)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75


def test_signals_are_postponed_where_they_would_do_harm():
    done = []
    with stop_signals() as stop:

        def work():
            with postponed():
                send(signal.SIGTERM)
                with postponed():
                    done.append(stop.requested)
                done.append(stop.requested)

        with pytest.raises(Abandoned, match="SIGTERM"):
            work()
        assert done == [False, False]
        assert stop.signal == signal.SIGTERM
