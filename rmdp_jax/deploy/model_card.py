"""README.md of a release: what a hub shows of it."""

from typing import Any

from rmdp_jax.env import describe_options
from rmdp_jax.limits import describe_limits
from rmdp_jax.records.folder import plain_result
from rmdp_jax.records.loading import Run
from rmdp_jax.welfare import describe_terms

_CARD = """---
library_name: rmdp-jax
pipeline_tag: reinforcement-learning
tags:
- reinforcement-learning
- personalization
- jax
- {env}
{index}---

# {k} policies for {n} agents: {env}

Learned by `{algorithm}` of rmdp_jax, which learns k policies together with the assignment of n people to them, who have reward
functions of their own ([represented MDPs](https://arxiv.org/abs/2401.06514)).

| | |
|---|---|
| welfare, {terms} of the {n} agents{limits}, of 100 | {welfare}{error} |
| acting by the most likely action | {deterministic} |
| proved upper bound for k = {bound_k}{without} | {bound} |
| transitions per policy | {transitions:,} |
| seed | {seed} |
| agents of each policy | {sizes} |
| backend | {backend} |
| versions | {versions} |

With `pip install 'rmdp-jax[hub]'`, where DIR is this folder or `hf://USER/NAME`:

    rmdp-jax evaluate DIR      # fresh episodes, and whether they agree with the figure above
    rmdp-jax export DIR --out policies

```python
import jax
from rmdp_jax import make_act
from rmdp_jax.envs import make
from rmdp_jax.records.loading import load_run

run = load_run("DIR", make)
act = make_act(run.env, run.config)
state, obs = run.env.reset(jax.random.key(0))
action = act(run.policies, run.assignment[0], obs)  # of the policy that serves agent 0
```

`checksums.json` has sizes and SHA-256 of the files; they are checked when it is loaded.
"""

_INDEX = """model-index:
- name: {env}, k = {k}
  results:
  - task:
      type: reinforcement-learning
    dataset:
      name: {env}
      type: {env}
    metrics:
    - type: {metric}
      name: {terms} of {n} agents, 0 to 100
      value: {welfare}
"""  # which has to have a value


def model_card(run: Run, described: dict[str, Any]) -> str:
    """The text; `described` is what config.json holds."""
    result = plain_result(run.result)
    error, bound = result["welfare_standard_error"], result["upper_bound"]
    versions = result.get("versions", {})
    terms, limits = describe_terms(result), describe_limits(result)
    fields = {
        "env": " ".join(filter(None, [described["env"], describe_options(described["env_options"])])),
        "metric": "welfare" if terms else "mean_reward",
        "terms": terms or "mean return",
        "k": run.config.k,
        "n": run.config.n,
        "welfare": "-" if result["welfare"] is None else f"{result['welfare']:.2f}",
    }
    return _CARD.format(
        **fields,
        index="" if result["welfare"] is None else _INDEX.format(**fields),
        algorithm=described["algorithm"],
        backend=described["backend"],
        limits=f", with {limits}" if limits else "",
        seed=run.config.seed,
        error="" if error is None else f" ± {error:.2f}",
        deterministic="-" if result["welfare_deterministic"] is None else f"{result['welfare_deterministic']:.2f}",
        bound_k=run.config.n if described["env_options"].get("context") else run.config.k,  # which can behave in n ways
        without=" without limits" if limits else "",
        bound="-" if bound is None else f"{bound:.2f}",
        transitions=result["transitions_per_policy"],
        sizes=", ".join(map(str, result["policy_sizes"])) if run.config.k <= 20 else "see result.json",
        versions=", ".join(f"{name} {versions[name]}" for name in ("rmdp-jax", "jax", "python") if versions.get(name)),
    )
