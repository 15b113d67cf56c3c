"""Faults that training survives, said once each, and the end where they are most of what happens.

Diverged steps bring nothing and end their episode, rewards that are not finite count as 0, policies that are not finite are put
back: nobody else's learning changes. But a run of which much is lost has to say so while it can be mended.
"""

from collections.abc import Callable
from typing import Any

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import EnvSpec
from rmdp_jax.errors import TrainingError

WORTH_SAYING = 0.01  # share of diverged steps from which it is said
WINDOW = 20  # iterations, or those between two lines if they are more, in which a policy may be put back again and again


class FaultWatch:
    """Reads the lines of metrics of one run.

    Args:
        spec, config: of the run.
        warn: takes what is to be said.
        before: iteration of the line before.
        name: of the run among others, with which all that is said begins.
    """

    def __init__(
        self, spec: EnvSpec, config: TrainConfig, warn: Callable[[str], None], before: int = 0, name: str = ""
    ) -> None:
        self.spec, self.config, self.warn, self.before, self.name = spec, config, warn, before, name
        self.said: set[str] = set()
        self.window, self.recovered = 0, [0] * config.k

    def read(self, line: dict[str, Any]) -> None:
        """One more line.

        Raises:
            TrainingError: more than `config.max_fault_share` of the steps since the line before are lost.
        """
        iterations, self.before = line["iteration"] - self.before, line["iteration"]
        when = f"up to iteration {line['iteration']}"
        self._read_diverged(line, iterations, when)
        self._read_rewards(line, iterations, when)
        self._read_recovered(line, iterations, when)

    def _read_diverged(self, line: dict[str, Any], iterations: int, when: str) -> None:
        share = sum(line["diverged"]) / (iterations * self.config.k * self.config.sizes.transitions)
        limit = self.spec.observation_limit
        what = (
            f"{share:.0%} of the steps diverged {when}: an observation or outcome is not finite, or an observation of size "
            f"{limit:g} or more; mend the env" + ("" if limit == float("inf") else ", or raise its observation_limit")
        )
        self._weigh("diverged", what, share, WORTH_SAYING)

    def _read_rewards(self, line: dict[str, Any], iterations: int, when: str) -> None:
        by_agent = line.get("nonfinite_rewards_by_agent")
        if not by_agent:
            return
        sizes = self.config.sizes
        scored = min(sizes.utility_steps, sizes.transitions) if self.config.estimated else sizes.transitions
        agent, count = max(by_agent.items(), key=lambda item: item[1])
        others = f" (and of {len(by_agent) - 1} others)" if len(by_agent) > 1 else ""
        share = count / (iterations * self.config.k * scored)
        what = f"the reward of agent {agent}{others} was not finite in {count} steps ({share:.1%}) {when}: counted as 0"
        self._weigh("rewards", f"{what}; mend its reward function", share, 0.0)

    def _read_recovered(self, line: dict[str, Any], iterations: int, when: str) -> None:
        self.window += iterations
        for j, times in enumerate(line["recovered"]):
            self.recovered[j] += times
            if self.recovered[j]:
                what = f"policy {j} was not finite and was put back to its last finite state {self.recovered[j]} time(s) {when}"
                share = self.recovered[j] / self.window if self.window >= WINDOW else 0.0
                self._weigh(f"policy {j}", f"{what}; a smaller learning_rate, or rewards without outliers, help", share, -1.0)
        if self.window >= WINDOW:
            self.window, self.recovered = 0, [0] * self.config.k

    def _weigh(self, kind: str, what: str, share: float, worth_saying: float) -> None:
        if share > self.config.max_fault_share:
            raise TrainingError(f"{self.name}{what} (max_fault_share = {self.config.max_fault_share:g})")
        if share > worth_saying:
            self._say(kind, what)

    def _say(self, kind: str, what: str) -> None:
        if kind not in self.said:
            self.said.add(kind)
            self.warn(self.name + what)
