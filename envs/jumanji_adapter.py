"""Any env of jumanji, also a user's own of its `Environment`, as our unbatched `Env`.

    env = from_jumanji(jumanji.make("Snake-v1"), lambda t: {"fruit": t.reward})

jumanji itself is not imported: `pip install -c constraints.txt -e '.[jumanji]'` gets it.
"""

from typing import Any

from rmdp_jax.env import Env
from rmdp_jax.envs.adapting import Actions, Next, Observe, Outcome, adapted, all_of_it, box, choices, known_length, own_reward
from rmdp_jax.errors import ConfigError, in_line
from rmdp_jax.types import Array, PyTree

_LOOPS = ("AutoResetWrapper", "VmapWrapper", "DMEnvWrapper", "GymWrapper")


def from_jumanji(
    env: Any,
    outcome: Outcome = own_reward,
    *,
    observe: Observe = all_of_it,
    name: str | None = None,
    episode_length: int | None = None,
    discount: float = 0.99,
    **facts: Any,
) -> Env:
    """A jumanji env as an `Env`: a last step whose discount is 0 terminates, any other last step truncates.

    Most envs of jumanji call their own time limit a termination, so that is part of the task; a limit given here truncates.
    Several choices at once (`MultiDiscreteArray`) become one choice among their combinations, bounded numbers are scaled
    from [-1, 1]. Policies here know no masks: an invalid action does what the env does with it, and the mask is a part of the
    observation.

    Args:
        env: as `jumanji.make(name)` gives it. Wrappers that reset or batch are refused; others may stay.
        outcome: a `Transition` -> pytree of numbers that agents' rewards look at; info is the `extras` of the time step.
        observe: the observation -> the part of it that policies see, of any structure; all of it when not given.
        name: for reports; that of the env's class when not given.
        episode_length: steps after which an episode is truncated; the env's `time_limit` when not given.
        discount: gamma of the task.
        **facts: other fields of `EnvSpec`, such as `reference_scale` or `segment_length`.

    Raises:
        ConfigError: this is no env of jumanji, or one that resets or batches by itself, or has no limit of its own, or its
            actions are none that a policy here could choose.
    """
    kind = type(env).__name__
    missing = [name for name in ("reset", "step", "action_spec", "observation_spec") if not hasattr(type(env), name)]
    if missing:
        raise ConfigError(f"env = {kind}: has no {missing[0]}, so it is no env of jumanji; take jumanji.make(name)")
    layer = env
    while layer is not None:
        found = next((of.__name__ for of in type(layer).__mro__ if of.__name__.endswith(_LOOPS)), None)
        if found:
            raise ConfigError(f"env = {kind}: is wrapped in {found}, which resets or batches by itself; take env.unwrapped")
        layer = vars(layer).get("_env") if hasattr(layer, "__dict__") else None

    def begin(key: Array) -> tuple[PyTree, PyTree]:
        state, first = env.reset(key)
        return state, first.observation

    def advance(state: PyTree, action: Array) -> Next:
        state, now = env.step(state, action)
        over = (now.discount == 0).all()  # of several players that one policy moves, once it is over for all
        return Next(state, now.observation, now.reward, now.last() & over, now.last() & ~over, now.extras)

    own = env.unwrapped
    length = known_length(own, episode_length, getattr(own, "time_limit", None))
    named = {"name": name or type(own).__name__, "episode_length": length, "discount": discount}
    return adapted(begin, advance, _actions(env.action_spec), outcome, observe, **{**named, "backend": "jumanji", **facts})


def _actions(spec: Any) -> Actions:
    if hasattr(spec, "num_values"):
        return choices(spec.num_values, spec.dtype)
    if hasattr(spec, "minimum") and hasattr(spec, "maximum"):
        return box(spec.minimum, spec.maximum, spec.shape, spec.dtype)
    raise ConfigError(f"actions = {in_line(spec)}: must be choices or bounded numbers; wrap the env so that it takes these")
