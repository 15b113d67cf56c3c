"""Signals that ask a program to end: as an event where work can be ended, as `KeyboardInterrupt` where it can be dropped.

SIGINT (Ctrl-C), SIGTERM (schedulers, containers), SIGHUP (a closed terminal), SIGUSR1 and SIGUSR2 (SLURM's --signal).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

BACKGROUND = "rmdp_jax-"  # how names of threads begin that XLA may hold for long

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_KILLS = 3  # the signal that ends everything, wherever it is
_seen = threading.Event()  # the main thread has run a handler; it cannot while it is in compiled code
_ending_by_itself = threading.Event()  # within `interrupts`


class Stopped(KeyboardInterrupt):
    """A signal that asks the program to end; the text names it."""


TRAINING = (
    "interrupted: ending after the running iterations; the best so far is evaluated then, unless you interrupt again",
    "interrupted again: what was learned is kept, without evaluation; a third interrupt ends at once and drops it",
)
WRITING = 2 * ("interrupted: the result is all but there, and kept; only a third interrupt drops it",)


class Ending:
    """The signals of one run, from its first chunk to its result: the first ends training, the second the evaluation.

    Before training each raises `Stopped`. From then on the run is kept: the event is set, and the third raises. What may be
    dropped then, the evaluation, is run in `dropping`.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.heard, self.event, self.tell = 0, threading.Event(), tell
        self.keeps = False  # what was learned is worth keeping
        self.answers = TRAINING

    @property
    def hurried(self) -> bool:
        """Whether the evaluation is to be left out, too."""
        return self.heard > 1

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """Work that the next signal drops: it raises `Stopped` there."""
        self.keeps = False
        _ending_by_itself.clear()
        try:
            yield
        finally:
            self.keep()

    def keep(self, answers: tuple[str, str] = TRAINING) -> None:
        """From here on what was learned is kept; signals get these answers, the first and the second."""
        self.keeps, self.answers = True, answers
        _ending_by_itself.set()

    def handle(self, number: int, frame: Any) -> None:
        """What a signal does."""
        _seen.set()
        self.event.set()
        kept, self.heard = self.keeps, self.heard + 1
        if not kept or self.heard >= _KILLS:
            raise Stopped(f"stopped by {signal.Signals(number).name}")
        self.tell(self.answers[self.heard - 1])


_here = threading.local()  # `.ending` of this thread, where there is one


@contextmanager
def ending(tell: Callable[[str], None]) -> Iterator[Ending]:
    """Signals of one run, which `tell` answers at once with a sentence; `interrupts` within is part of it."""
    this, outside = Ending(tell), getattr(_here, "ending", None)
    with _handlers(this.handle):
        _here.ending = this
        try:
            yield this
        finally:
            _here.ending = outside
            _ending_by_itself.clear()


def aside(function: Callable[..., T], *arguments: Any) -> T:
    """`function` in another thread, while this one hears signals, which it does not in compiled code.

    Where a signal raises here, the other thread is left to come to its end by itself. Settings of JAX for a thread are not
    those of this one there: call what is compiled, compiles or waits, and traces nothing.
    """
    threads = ThreadPoolExecutor(1, thread_name_prefix=BACKGROUND + "aside")
    try:
        return threads.submit(function, *arguments).result()
    finally:
        threads.shutdown(wait=False)


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Signals that ask for an end set the event, so that the running chunk can end and be saved.

    Within `ending` they are its own, and stay so afterwards; elsewhere a second one kills.
    """
    if (whole := getattr(_here, "ending", None)) is not None:
        whole.keep()
        yield whole.event
        return
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
