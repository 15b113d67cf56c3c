"""Several processes, on one machine or many, as one run: each runs the same program on its share of the devices.

All processes make the same calls in the same order; only the first writes files and shows progress.
"""

import jax
import numpy as np

from rmdp_jax.errors import ConfigError


def join(coordinator: str | None = None, processes: int | None = None, process_id: int | None = None) -> None:
    """Become one of several processes; before any computation in JAX. What is not given is found by JAX, see
    `jax.distributed.initialize`: SLURM, Open MPI and cloud TPU tell.

    Args:
        coordinator: HOST:PORT of the first process, with a port that is free there.
        processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        ConfigError: something is missing, or the others were not reached.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (ValueError, TypeError, RuntimeError) as error:
        way_out = "outside of SLURM, Open MPI and cloud TPU give coordinator, processes and process_id"
        raise ConfigError(f"distributed: {error} ({way_out})") from None


def is_first() -> bool:
    """Whether this process is the one that writes; true where it is the only one."""
    return jax.process_index() == 0


def anyone(flag: bool) -> bool:
    """Whether `flag` is true in any process. All of them have to ask."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.bool_(flag)).any())


def wait_for_all(where: str) -> None:
    """Return once all processes are here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)
