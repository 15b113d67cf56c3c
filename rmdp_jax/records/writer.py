"""Writes one run down while it trains: lines of metrics, checkpoints, the result."""

from dataclasses import dataclass, field
from typing import Any

from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.spec import Sink
from rmdp_jax.trainer import TrainState


@dataclass(frozen=True)
class RunWriter:
    """Keeps the lines of a run in memory, and writes to its folder where it has one.

    Of several processes one writes and tells `on_metrics`. All of them see the folder, and save checkpoints together.
    """

    folder: RunFolder | None = None
    on_metrics: Sink | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    writes: bool = True

    def add(self, line: dict[str, Any]) -> None:
        """A line of metrics."""
        self.history.append(line)
        if self.folder and self.writes:
            self.folder.append_metrics(line)
        if self.on_metrics and self.writes:
            self.on_metrics(line)

    def rewind_to(self, iteration: int) -> None:
        """Keep the lines up to a checkpoint; later ones will be made again."""
        if self.folder:
            self.history[:] = [line for line in self.folder.read_metrics() if line["iteration"] <= iteration]
            if self.writes:
                self.folder.write_metrics(self.history)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint."""
        from rmdp_jax.records.checkpoint import save_checkpoint  # orbax takes half a second to import

        if self.folder:
            save_checkpoint(self.folder.checkpoints, state)

    def restore(self, like: TrainState) -> TrainState | None:
        """The latest state, or nothing where the run ended before its first checkpoint."""
        from rmdp_jax.records.checkpoint import has_checkpoint, restore_checkpoint

        if self.folder is None or not has_checkpoint(self.folder.checkpoints):
            return None
        return restore_checkpoint(self.folder.checkpoints, like)

    def close(self, summary: dict[str, Any], trained: bool) -> dict[str, Any]:
        """Write the result and return it; a finished run that was resumed, and only evaluated, keeps how long it took."""
        if self.folder is None or not self.writes:
            return summary
        summary = summary if trained else summary | self.folder.previous_timing()
        self.folder.write_result(summary)
        return summary
