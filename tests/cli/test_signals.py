import multiprocessing
import signal
import time

from lrtool.cli.signals import end_children


def hang(begun):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begun.set()
    time.sleep(60)


def test_a_process_that_hangs_does_not_hold_up_the_end():
    forked = multiprocessing.get_context("fork")
    begun = forked.Event()
    child = forked.Process(target=hang, args=(begun,), daemon=True)
    child.start()
    assert begun.wait(30)
    end_children()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
