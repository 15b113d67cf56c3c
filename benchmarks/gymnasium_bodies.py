"""Bodies of the speed tasks beside those that everybody knows, Gymnasium's v5: models, one step, and learned policies in them.

Ours are brax's XML in C MuJoCo (with --model gymnasium Gymnasium's), with the solver started anew in every control step and
states of float32. Policies that were trained in ours act in Gymnasium's own environments, which are paid as the task pays;
falls end an episode in both. One control step from states of those episodes says how far the models are apart, and the same
with more and more of Gymnasium's changed to ours says why.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from benchmarks.common import clean_exit, emit, machine, read_arguments, show
from benchmarks.gymnasium_results import COLUMNS, TITLE, table_rows, write_table
from rmdp_jax import evaluate, make_act, random_even, train
from rmdp_jax.envs import make, preset
from rmdp_jax.envs.brax_adapter import quiet
from rmdp_jax.envs.native import c_model, xml_iterations
from rmdp_jax.envs.speed import BODIES, SAME_MDP, Outcome, load_body
from rmdp_jax.errors import ConfigError, check, known_name
from rmdp_jax.evaluation.episodes import Episodes, score_episodes
from rmdp_jax.records.files import read_lines, write_lines
from rmdp_jax.records.loading import Run, load_run

NAMES = {"halfcheetah": "HalfCheetah-v5", "walker2d": "Walker2d-v5", "ant": "Ant-v5", "hopper": "Hopper-v5"}
RUNS = Path("runs/gymnasium")
STATES = 512  # from which one step is compared


@dataclass(frozen=True, kw_only=True)
class GymnasiumBodies:
    """Compare one body, with policies of a run that is there or is trained first, and write its line anew."""

    env: str = "hopper_speed"
    """Task, one of the target speeds."""
    model: Literal["brax", "gymnasium"] = "brax"
    """Of the task that policies learn in."""
    run: Path | None = None
    """Folder of a finished run of it. Default: one in runs/gymnasium, which is trained if it is not there."""
    k: int | None = None
    """Policies of the run. Default: 5 where it is trained."""
    transitions: int | None = None
    """Of each of its policies. Default: 1,000,000 where it is trained."""
    episodes: int = 16
    """Of each policy, in each of the two."""
    quick: bool = False
    """k = 2, 5 agents, 2,000 transitions, 2 episodes of at most 100 steps; results go to runs/gymnasium."""
    results: Path | None = None
    """File of lines; the table is written beside it. Default: benchmarks/results/gymnasium.jsonl."""


def narrow(arguments: GymnasiumBodies) -> GymnasiumBodies:
    """`arguments` with the sizes of --quick, checked, and with folders."""
    known_name("env", arguments.env, {f"{body}_speed": None for body in BODIES})
    check("episodes", arguments.episodes, arguments.episodes >= 1, "a whole number of at least 1")
    for name in ("k", "transitions"):
        given = getattr(arguments, name)
        check(name, given, given is None or given >= 1, "a whole number of at least 1")
    for package in ("gymnasium", "imageio"):
        if find_spec(package) is None:
            raise ConfigError(f"{package}: is not installed; install '.[dev]'")
    results = arguments.results or (RUNS if arguments.quick else Path("benchmarks/results")) / "gymnasium.jsonl"
    suffixes = ["gymnasium"] * (arguments.model == "gymnasium") + ["quick"] * arguments.quick
    run = arguments.run or RUNS / "_".join([arguments.env, *suffixes])
    arguments = replace(arguments, results=results, run=run)
    return replace(arguments, episodes=2) if arguments.quick else arguments


class Bodies(NamedTuple):
    """A body as we and as Gymnasium have it."""

    env: Any  # ours, of brax
    ours: mujoco.MjModel  # its model
    theirs: Any  # a Gymnasium environment, unwrapped

    @property
    def frames(self) -> int:
        """Physics steps of one of our control steps."""
        return self.env._n_frames

    @property
    def shift(self) -> np.ndarray:
        """Our positions less theirs in equal poses, (nq,): some heights count from another place."""
        return self.ours.qpos0 - self.theirs.model.qpos0


def load_bodies(body: str, model: str = "brax") -> Bodies:
    """Both models of a body in `BODIES`, with the task's costs and health rules."""
    ours = load_body(body, "native", model)
    options = {**BODIES[body].options, **({"include_cfrc_ext_in_observation": False} if body == "ant" else {})}
    with quiet():
        theirs = import_module("gymnasium").make(NAMES[body], **options).unwrapped
    return Bodies(ours, c_model(xml_iterations(ours.sys)), theirs)


def describe(model: mujoco.MjModel, frames: int) -> dict[str, Any]:
    """What physics of a model depends on, as numbers and words that can be set beside each other."""
    floor, each_other = _contacts(model)
    ranges = model.actuator_ctrlrange
    return {
        "time step (s)": round(float(model.opt.timestep), 6),
        "physics steps": frames,
        "integrator": mujoco.mjtIntegrator(model.opt.integrator).name.removeprefix("mjINT_"),
        "solver": mujoco.mjtSolver(model.opt.solver).name.removeprefix("mjSOL_"),
        "solver iterations": int(model.opt.iterations),
        "line search": int(model.opt.ls_iterations),
        "mass (kg)": round(float(model.body_mass.sum()), 4),
        "gears": _distinct(model.actuator_gear[:, 0]),
        "control range": f"{ranges.min():g} to {ranges.max():g}",
        "joint damping": _distinct(model.dof_damping),
        "joint armature": _distinct(model.dof_armature),
        "joint stiffness": _distinct(model.jnt_stiffness),
        "friction": _distinct(model.geom_friction[:, 0]),
        "shapes": int(model.ngeom),
        "shapes that touch the floor": floor,
        "pairs that touch each other": each_other,
    }


def _distinct(values: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in np.unique(np.round(values, 6)))


def _contacts(model: mujoco.MjModel) -> tuple[int, int]:
    """How many shapes may touch the floor, and how many pairs of others each other."""
    found = [0, 0]
    for a in range(model.ngeom):
        for b in range(a + 1, model.ngeom):
            bodies = (model.geom_bodyid[a], model.geom_bodyid[b])
            related = model.body_weldid[bodies[0]] == model.body_weldid[bodies[1]] or any(
                model.body_weldid[model.body_parentid[model.body_weldid[one]]] == model.body_weldid[other] != 0
                for one, other in (bodies, bodies[::-1])
            )
            meet = model.geom_contype[a] & model.geom_conaffinity[b] or model.geom_contype[b] & model.geom_conaffinity[a]
            if meet and not related:
                found[0 not in bodies] += 1
    return found[0], found[1]


class Played(NamedTuple):
    """Episodes of one policy in Gymnasium, L steps at most; a step that is not `alive` is padding after the end."""

    speed: np.ndarray  # (E, L) float32, m/s
    alive: np.ndarray  # (E, L) bool
    falls: np.ndarray  # (E,) bool
    states: list[tuple[np.ndarray, np.ndarray]]  # positions and velocities, a few


def play(theirs: Any, act: Callable[[jax.Array, jax.Array], jax.Array], episodes: int, steps: int) -> Played:
    """`episodes` of the policy `act` (obs (E, o), key) -> (E, a) in as many copies of Gymnasium's environment."""
    with quiet():  # a copy loads the XML anew
        worlds = [copy.deepcopy(theirs) for _ in range(episodes)]
    observations = np.stack([world.reset(seed=seed)[0] for seed, world in enumerate(worlds)])
    speed, alive = np.zeros((episodes, steps), np.float32), np.zeros((episodes, steps), bool)
    under_way, states = np.ones(episodes, bool), []
    for step in range(steps):
        actions = np.asarray(act(jnp.asarray(observations, jnp.float32), jax.random.key(step)), np.float64)
        for index in np.flatnonzero(under_way):
            world = worlds[index]
            before = world.data.qpos.copy(), world.data.qvel.copy()
            states += [before] * (step % 10 == 0)
            observations[index], _, fallen, _, _ = world.step(actions[index])
            speed[index, step] = (world.data.qpos[0] - before[0][0]) / world.dt
            alive[index, step], under_way[index] = True, not fallen
        if not under_way.any():
            break
    return Played(speed, alive, ~under_way, states)


def one_step(bodies: Bodies, states: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[str, float, float]]:
    """How far one step of theirs is from ours, by what of theirs is set to ours: its name, median and 99th percentile.

    From equal states with equal random actions; a difference is in units of 1 + |value|, that of a state its largest.
    """
    generator = np.random.RandomState(0)
    chosen = [states[i] for i in generator.permutation(len(states))[:STATES]]
    actions = generator.uniform(-1, 1, (len(chosen), bodies.ours.nu)).astype(np.float32)
    q, qd = (np.stack(values).astype(np.float32) for values in zip(*chosen, strict=True))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # brax is not strict
        after = jax.jit(jax.vmap(_control_step(bodies.env)))(q + bodies.shift.astype(np.float32), qd, actions)
    ours = np.concatenate([after.q, after.qd], 1)
    ours[:, : bodies.ours.nq] -= bodies.shift
    for name, model in _variants(bodies):
        theirs = np.stack([_stepped(model, bodies, *one) for one in zip(q, qd, actions, strict=True)])
        difference = (np.abs(theirs - ours) / (1.0 + np.abs(ours))).max(1)
        yield name, float(np.median(difference)), float(np.percentile(difference, 99))


def _control_step(env: Any) -> Callable[[jax.Array, jax.Array, jax.Array], Any]:
    return lambda q, qd, action: env.pipeline_step(env.pipeline_init(q, qd), action)


def _variants(bodies: Bodies) -> Iterator[tuple[str, mujoco.MjModel]]:
    """Gymnasium's model, with more and more of it as ours is."""
    model = copy.copy(bodies.theirs.model)
    yield "as it is", copy.copy(model)
    model.opt.iterations, model.opt.ls_iterations = bodies.ours.opt.iterations, bodies.ours.opt.ls_iterations
    yield "our iterations", copy.copy(model)
    model.opt.integrator = bodies.ours.opt.integrator
    yield "and our integrator", copy.copy(model)
    if bodies.ours.ngeom == model.ngeom:
        for name in ("geom_friction", "geom_contype", "geom_conaffinity"):
            getattr(model, name)[:] = getattr(bodies.ours, name)
        yield "and our friction and contacts", copy.copy(model)
    yield "our model", bodies.ours


def _stepped(model: mujoco.MjModel, bodies: Bodies, q: np.ndarray, qd: np.ndarray, action: np.ndarray) -> np.ndarray:
    shift = bodies.shift if model is bodies.ours else 0.0
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = q + shift, qd, action
    mujoco.mj_step(model, data, bodies.frames)
    return np.concatenate([data.qpos - shift, data.qvel])


def learned(arguments: GymnasiumBodies) -> Run:
    """The run whose policies are compared; the one of the default folder is trained if it is not there."""
    assert arguments.run is not None  # `narrow` sees to it
    if arguments.run.parent == RUNS and not (arguments.run / "result.json").exists():
        sized: dict[str, Any] = {"n": 5, "episode_length": 100} if arguments.quick else {}
        other: dict[str, Any] = {} if arguments.model == "brax" else {"model": arguments.model}
        env, population = make(arguments.env, **other, **sized)
        whole = (2, 2_000) if arguments.quick else (5, 1_000_000)
        k, transitions = arguments.k or whole[0], arguments.transitions or whole[1]
        config = preset(arguments.env, k=k, n=population.n, transitions=transitions)
        assigner = random_even(config.k, config.n) if arguments.quick else None
        train(env, population, config, assigner, out=arguments.run, resume=True)
    run = load_run(arguments.run)
    check("run", arguments.run, bool(run.result["finished"]), "of a run that was not stopped; end it by --resume first")
    spec = run.env.spec
    settings: dict[str, tuple[Any, Any]] = {
        "env": (spec.name, arguments.env),
        "model": (spec.options.get("model", "brax"), arguments.model),
        "k": (run.config.k, arguments.k),
        "transitions": (run.config.transitions, arguments.transitions),
    }
    for name, (found, asked) in settings.items():
        check(name, found, asked in (None, found), f"{asked} as asked, which {arguments.run} is not; name another run by --run")
    check("backend", spec.backend, spec.backend in SAME_MDP, f"{', '.join(SAME_MDP)}, which {arguments.run} is not")
    return run


def measure(arguments: GymnasiumBodies) -> dict[str, Any]:
    """The line of one body."""
    body, run = arguments.env.removesuffix("_speed"), learned(arguments)
    bodies, steps = load_bodies(body, arguments.model), run.env.spec.episode_length
    ours = evaluate(run.env, run.population, run.config, run.policies, run.assignment, seed=1, episodes=arguments.episodes)
    act = make_act(run.env, run.config)
    acting = [partial(act, run.policies, j) for j in range(run.config.k)]
    played = [play(bodies.theirs, one, arguments.episodes, steps) for one in acting]
    speed, alive = np.stack([one.speed for one in played]), np.stack([one.alive for one in played])
    episodes = Episodes(Outcome(jnp.asarray(speed)), jnp.asarray(alive), jnp.zeros(alive.shape, bool))
    returns = jax.jit(lambda episodes: score_episodes(run.population, episodes, run.population.agents))(episodes)
    utility = run.env.spec.reference_scale * np.asarray(returns).mean(1)
    agents = np.arange(run.population.n)
    welfare = float(ours.welfare), float(utility[run.assignment, agents].mean())
    models = describe(bodies.ours, bodies.frames), describe(bodies.theirs.model, bodies.theirs.frame_skip)
    poses = np.asarray(bodies.env.sys.init_q) - bodies.shift, bodies.theirs.init_qpos
    for description, pose in zip(models, poses, strict=True):
        description["an episode starts at"] = ", ".join(f"{value + 0.0:g}" for value in np.round(pose, 3))
    return {
        "benchmark": "gymnasium_bodies",
        "env": arguments.env,
        "model": arguments.model,
        "gymnasium": NAMES[body],
        "gymnasium_version": version("gymnasium"),
        "k": run.config.k,
        "n": run.population.n,
        "seed": run.config.seed,
        "transitions": run.result["transitions_per_policy"],
        "episodes": arguments.episodes,
        "welfare": round(welfare[0], 2),
        "welfare_standard_error": round(float(ours.standard_error), 2),
        "welfare_in_gymnasium": round(welfare[1], 2),
        "welfare_in_gymnasium_chosen_anew": round(float(utility.max(0).mean()), 2),
        "change": round(welfare[1] / welfare[0] - 1.0, 4) if welfare[0] else None,
        "own_pay": [_mean_of(np.asarray(ours.utility)[j], run.assignment == j) for j in range(run.config.k)],
        "own_pay_in_gymnasium": [_mean_of(utility[j], run.assignment == j) for j in range(run.config.k)],
        "episode_length": [round(float(steps), 1) for steps in ours.episode_length],
        "episode_length_in_gymnasium": [round(float(steps), 1) for steps in alive.sum(2).mean(1)],
        "falls_in_gymnasium": [round(float(one.falls.mean()), 3) for one in played],
        "one_step": [
            {"gymnasium": name, "difference_50": median, "difference_99": high}
            for name, median, high in one_step(bodies, [state for one in played for state in one.states])
        ],
        "models": {name: [models[0][name], models[1][name]] for name in models[0] if models[0][name] != models[1][name]},
        **machine(),
    }


def _mean_of(values: np.ndarray, chosen: np.ndarray) -> float | None:
    return round(float(values[chosen].mean()), 1) if chosen.any() else None


def main() -> None:
    """A line of the body on stdout, then the table of all bodies measured so far."""
    with clean_exit("gymnasium_bodies"):
        arguments = narrow(read_arguments(GymnasiumBodies, __doc__))
        results = arguments.results
        assert results is not None  # `narrow` sees to it
        results.parent.mkdir(parents=True, exist_ok=True)
        line = measure(arguments)
        others = [other for other in read_lines(results) if (other["env"], other["model"]) != (arguments.env, arguments.model)]
        write_lines(results, sorted([*others, line], key=lambda line: (line["env"], line["model"])))
        emit({name: value for name, value in line.items() if name not in ("models", "one_step")})
        write_table(results)
    show(TITLE, list(COLUMNS), table_rows(read_lines(results)))


if __name__ == "__main__":
    main()
