"""``rmdp-jax envs``: what can be trained on."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Envs:
    """List the tasks, their options and what steps them here."""

    def run(self) -> None:
        """Print the table."""
        from rmdp_jax.commands.tables import print_envs
        from rmdp_jax.envs import describe_envs

        print_envs(describe_envs())
        print("your own: a function that returns (Env, Population),\n  as my_env.py:make or package.module:make")
