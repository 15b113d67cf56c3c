"""Ctrl-C and its like as an event, so that a compiled program can end what it is at."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Ctrl-C, a closed terminal or a scheduler's SIGTERM set the event, so that the running chunk can end; a second kills."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals belong to the main thread
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: Any) -> None:
        event.set()
        restore()

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heeded = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]  # nohup ignores some
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield event
    finally:
        restore()
