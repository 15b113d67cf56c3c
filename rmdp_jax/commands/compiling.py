"""What commands that compile have in common."""

from dataclasses import dataclass

import jax

from rmdp_jax.devices.settings import check_settings
from rmdp_jax.running.cache import use_cache


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """A command that compiles programs and keeps them for the next start, unless told not to."""

    no_cache: bool = False
    """Compile anew: neither keep compiled programs for the next start nor use kept ones."""

    @property
    def starts_jax(self) -> bool:
        """Whether JAX may start now, rather than once this process has met others."""
        return True

    def prepare(self) -> None:
        """Check what was set for JAX from outside, and switch the cache on."""
        if self.starts_jax:
            check_settings()
        if self.no_cache:
            jax.config.update("jax_enable_compilation_cache", False)  # also where a folder was set for JAX from outside
        else:
            use_cache()
