"""Writes one run down while it trains: lines of metrics, checkpoints, the result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rmdp_jax.errors import ConfigError
from rmdp_jax.records.episodes import KeptEpisodes, kept_number, write_episodes
from rmdp_jax.records.files import warn
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.sinks import Sinks
from rmdp_jax.records.spec import Sink
from rmdp_jax.trainer import TrainState


@dataclass
class RunWriter:
    """Keeps the lines of a run in memory, and writes to its folder where it has one.

    Of several processes one writes and tells `on_metrics`. All of them see the folder, and save checkpoints together.
    """

    folder: RunFolder | None = None
    on_metrics: Sink | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    writes: bool = True
    describe: Callable[[], None] = lambda: None  # writes config.json and agents.npz
    size: int | None = 0  # bytes of metrics.jsonl, as this process left it; None after a failure to write it
    sinks: Sinks | None = None  # of other packages
    saved: int | None = None  # iteration of the last checkpoint that this process wrote or read

    def add(self, line: dict[str, Any]) -> None:
        """A line of metrics."""
        self.history.append(line)
        if self.folder and self.writes:
            self._write_lines(line)

    def make_up(self) -> None:
        """Write the lines that could not be written, if that is possible by now."""
        if self.folder and self.writes and self.size is None:
            self._write_lines()

    def tell(self, line: dict[str, Any]) -> None:
        """Hand a line of metrics to the sinks, and to `on_metrics`, which may raise."""
        if self.sinks and self.writes:
            self.sinks.tell(self.history)
        if self.on_metrics and self.writes:
            self.on_metrics(line)

    def tell_result(self, summary: dict[str, Any]) -> None:
        """Hand the result to the sinks, and close them."""
        if self.sinks and self.writes:
            self.sinks.close(self.history, summary)

    def rewind_to(self, iteration: int) -> None:
        """Say that the run goes on from a checkpoint, which was read; keep the lines up to it, and no checkpoint after it."""
        if self.folder is None:
            return
        self.history[:] = [line for line in self.folder.read_metrics() if line["iteration"] <= iteration]
        if iteration and (not self.history or self.history[-1]["iteration"] != iteration):
            warn(
                f"{self.folder.metrics}: has no line of iteration {iteration}, whose checkpoint is gone on from; lines are lost"
            )
        if self.writes:
            from rmdp_jax.records.checkpoint import remove_later

            self.describe()
            self.folder.write_metrics(self.history)
            self.size = self.folder.metrics.stat().st_size
            remove_later(self.folder.checkpoints, iteration)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint."""
        if self.folder is None:
            return
        from rmdp_jax.records.checkpoint import save_checkpoint, saved_steps  # orbax takes half a second to import

        if self.saved is not None and self.writes and self.saved not in saved_steps(self.folder.checkpoints):
            warn(f"{self.folder.checkpoints}: the checkpoint of iteration {self.saved} was removed while the run went on")
        save_checkpoint(self.folder.checkpoints, state)
        self.saved = int(state.iteration)

    def restore(self, like: TrainState, step: int) -> TrainState:
        """The state of a checkpoint."""
        from rmdp_jax.records.checkpoint import restore_checkpoint

        assert self.folder is not None
        self.saved = step
        return restore_checkpoint(self.folder.checkpoints, like, step=step)

    def check_begun(self) -> None:
        """Raise `ConfigError` where there was a checkpoint that is no longer there, so that beginning anew would lose a run."""
        if self.folder is None or not self.folder.holds_run():
            return
        lines = self.folder.read_metrics()
        last = max((line["iteration"] for line in lines), default=0)
        if self.folder.has_result() or last > self._first_checkpoint():
            raise ConfigError(
                f"resume: {self.folder.checkpoints} holds no checkpoint, though the run came to iteration {last}; bring "
                "it back, or begin anew in another folder"
            )
        if lines:
            warn(f"out = {self.folder.path}: the run ended before its first checkpoint, so it begins again at iteration 0")

    def check_may_begin_anew(self, beside: RunFolder) -> None:
        """Raise `ConfigError` where this run is beyond its first checkpoint, as one `beside` it that has none begins at 0."""
        from rmdp_jax.records.checkpoint import saved_steps

        assert self.folder is not None
        last = max(saved_steps(self.folder.checkpoints), default=0)
        if self.folder.has_result() or last > self._first_checkpoint():
            raise ConfigError(
                f"resume: {beside.path} has no checkpoint, and {self.folder.path} is at iteration {last}; runs that are "
                "trained together go on from one iteration, so train the new ones by themselves (of seeds: a config with the "
                "first new one as its seed), or all by sweep"
            )

    def _first_checkpoint(self) -> float:
        """The iteration of the first checkpoint that the run writes while it goes on."""
        assert self.folder is not None
        train = self.folder.read_config()["train"]
        log_every, every = (train.get(name) for name in ("log_every", "checkpoint_every"))
        known = isinstance(log_every, int) and isinstance(every, int) and log_every > 0
        return -(-every // log_every) * log_every if known and every else float("inf")  # type: ignore[operator]

    def close(
        self, summary: dict[str, Any], state: TrainState, *, trained: bool, kept: KeptEpisodes | None = None
    ) -> dict[str, Any]:
        """Write episodes and result, and return this; a finished run that was only evaluated again keeps how long it took."""
        if self.folder is None:
            return summary
        self.save(state)  # does nothing where it is there, as it should be
        if not self.writes:
            return summary
        if self.history:
            self._write_lines()
        if not self.folder.holds_run():
            self.describe()
        summary = summary if trained else summary | self.folder.previous_timing()
        if summary.get("evaluated", True) or not self._has_result_of(summary["iterations"]):
            there = None if trained else kept_number(self.folder.episodes, summary["iterations"])
            if there is not None and there >= summary["episodes_kept"]:  # by `evaluate --keep`, perhaps
                summary = {**summary, "episodes_kept": there}
            elif kept is not None:  # before the result, so that a finished run has them
                write_episodes(self.folder.episodes, kept)
            self.folder.write_result(summary)
        return summary

    def _has_result_of(self, iterations: int) -> bool:
        """Whether there is a result of this iteration already, which is better than none."""
        assert self.folder is not None
        known = self.folder.earlier_result()
        return known is not None and known["iterations"] == iterations

    def _write_lines(self, *new: dict[str, Any]) -> None:
        """Append lines of the history to metrics.jsonl; where somebody removed or changed it, write all of them again."""
        assert self.folder is not None
        path = self.folder.metrics
        there, left = path.stat().st_size if path.exists() else 0, self.size
        self.size = None
        if there == left:
            for line in new:
                self.folder.append_metrics(line)
        else:
            if left is not None:
                warn(f"{path}: was removed or changed while the run went on; its lines are written again")
                self.folder.path.mkdir(parents=True, exist_ok=True)
                self.describe()
            self.folder.write_metrics(self.history)
        self.size = path.stat().st_size if path.exists() else 0


def common_step(writers: Sequence[RunWriter]) -> int | None:
    """The latest iteration that all runs have a whole checkpoint of; None where all of them have to begin.

    Raises:
        ConfigError: checkpoints are damaged or lost, or no iteration is common to all.
    """
    from rmdp_jax.records.checkpoint import has_checkpoint, latest_step

    folders = [writer.folder.checkpoints for writer in writers if writer.folder is not None]
    for writer in writers:
        if writer.folder is not None and not has_checkpoint(writer.folder.checkpoints):
            writer.check_begun()
            if any(map(has_checkpoint, folders)):
                for other in writers:
                    if other.folder is not None and has_checkpoint(other.folder.checkpoints):
                        other.check_may_begin_anew(writer.folder)
                warn(f"{writer.folder.path}: has no checkpoint yet, so all runs that are trained with it begin at iteration 0")
                return None
    return latest_step(*folders) if folders else None
