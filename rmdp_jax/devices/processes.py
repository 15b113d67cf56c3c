"""Several processes, on one machine or many, as one run: each runs the same program on its share of the devices.

All processes make the same calls in the same order; only the first writes files and shows progress.
"""

import jax
import numpy as np

from rmdp_jax.errors import ConfigError, check, whole_number

MOST_PROCESSES = 10**6


def join(coordinator: str | None = None, processes: int | None = None, process_id: int | None = None) -> None:
    """Become one of several processes; before any computation in JAX.

    What is not given SLURM, Open MPI or cloud TPU tell, as `jax.distributed.initialize` asks them.

    Args:
        coordinator: HOST:PORT of the first process, with a port that is free there.
        processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        ConfigError: something is missing, or the others were not reached.
    """
    port = coordinator is None or str(coordinator).rpartition(":")[2].isdigit()
    check("coordinator", coordinator, port, "HOST:PORT of the first process")
    if processes is not None:
        processes = whole_number("processes", processes, 1, MOST_PROCESSES)
    if process_id is not None:
        most = (MOST_PROCESSES if processes is None else processes) - 1
        process_id = whole_number("process_id", process_id, 0, most, f"from 0 to {most}, one of the processes")
    # Programs that begin side by side on a CPU may talk to other processes in another order than there, and wait for ever.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (ValueError, TypeError, RuntimeError) as error:
        way_out = "outside of SLURM, Open MPI and cloud TPU give coordinator, processes and process_id"
        raise ConfigError(f"distributed: {str(error).splitlines()[0]} ({way_out})") from None


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
