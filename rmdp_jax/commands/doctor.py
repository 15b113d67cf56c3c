"""``rmdp-jax doctor``: whether this machine can train, and what is in the way."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmdp_jax.commands.health import Check, Finding


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Check versions, devices, physics and memory, and train a little. Exit code 1 if a check fails."""

    quick: bool = False
    """Compile nothing: leave out the backends and the self-test."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        """Look, print, and exit with 1 where something needed fails."""
        from rmdp_jax.commands.tables import print_findings
        from rmdp_jax.running.progress import announce

        findings = []
        for name, found in self._findings():
            announce(sys.stderr.isatty() and not self.json, f"{name}: {', '.join(one.status for one in found)}")
            findings += found
        well = all(one.status != "failed" for one in findings)
        if self.json:
            print(json.dumps({"ok": well, "findings": [one._asdict() for one in findings]}))
        else:
            print_findings(findings)
        if not well:
            raise SystemExit(1)

    def _findings(self) -> "Iterator[tuple[str, list[Finding]]]":
        from rmdp_jax.commands import health

        def look(name: str, check: "Check", needed: bool = True) -> "tuple[str, list[Finding]]":
            return name, health.run_check(name, check, needed)

        yield look("versions", health.check_versions)
        devices = look("devices", health.check_devices)
        yield devices
        works = all(one.status != "failed" for one in devices[1])
        if works:  # JAX starts
            yield look("precision", health.check_precision)
        yield look("threads", health.check_threads)
        if works:
            yield look("cache", health.check_cache, needed=False)
            yield look("memory", health.check_free_memory, needed=False)
            if not self.quick:
                for backend, needed in health.backends():
                    yield look(f"backend {backend}", partial(health.check_backend, backend), needed)
                yield look("self-test", health.check_training)
            yield look("drawing", health.check_drawing, needed=False)
