"""``python -m rmdp_jax``."""

from rmdp_jax.commands.cli import main

main()
