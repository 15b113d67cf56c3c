"""``python -m rmdp_jax``."""

from rmdp_jax.cli import main

main()
