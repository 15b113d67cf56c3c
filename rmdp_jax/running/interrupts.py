"""Signals that ask a program to end: as an event where work can be ended, as `KeyboardInterrupt` where it can be dropped.

SIGINT (Ctrl-C), SIGTERM (schedulers, containers), SIGHUP (a closed terminal), SIGUSR1 and SIGUSR2 (SLURM's --signal).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_seen = threading.Event()  # the main thread has run a handler; it cannot while it is in compiled code
_ending_by_itself = threading.Event()  # within `interrupts`


class Stopped(KeyboardInterrupt):
    """A signal that asks the program to end; the text names it."""


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Signals that ask for an end set the event, so that the running chunk can end and be saved; a second one kills."""
    event = threading.Event()

    def handle(number: int, frame: Any) -> None:
        _seen.set()
        event.set()
        restore()

    with _handlers(handle) as restore:
        inside = _ending_by_itself.is_set()
        _ending_by_itself.set()
        try:
            yield event
        finally:
            if not inside:
                _ending_by_itself.clear()


@contextmanager
def stops() -> Iterator[threading.Event]:
    """Signals that ask for an end set the event and raise `Stopped` in the main thread, wherever it is."""
    event = threading.Event()

    def handle(number: int, frame: Any) -> None:
        _seen.set()
        event.set()
        raise Stopped(f"stopped by {signal.Signals(number).name}")

    with _handlers(handle):
        yield event


@contextmanager
def watched(end: Callable[[int], None], patience_s: float = 5.0) -> Iterator[None]:
    """Call `end(signal)`, in another thread, where the main thread is in compiled code and does not come to see a signal.

    Not within `interrupts`, whose work ends by itself. `end` has to end the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    numbers = {getattr(signal, name) for name in _NAMES if hasattr(signal, name)}

    def watch() -> None:
        while number := os.read(reading, 1):
            heard = number[0]
            if heard not in numbers or signal.getsignal(heard) == signal.SIG_IGN:
                continue
            if not _seen.wait(patience_s) and not _ending_by_itself.is_set():
                end(heard)
            _seen.clear()

    _seen.clear()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)  # which ends the thread
        thread.join()
        os.close(reading)


@contextmanager
def _handlers(handle: Callable[[int, Any], None]) -> Iterator[Callable[[], None]]:
    """`handle` for all of these signals that are not ignored (nohup ignores some); yields what brings the former ones back."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # signals belong to the main thread
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    heeded = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handle) for number in heeded}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield restore
    finally:
        restore()
