"""What a reviewer should look at first, in plain sentences: each names the figure that it goes by."""

from collections.abc import Callable
from typing import Any

Policy = dict[str, Any]


def notes_of(policy: Policy) -> list[str]:
    """Sentences about a policy of a dossier; none where nothing stands out."""
    return [text for text in (rule(policy) for rule in _RULES) if text]


def _serves_nobody(policy: Policy) -> str:
    return "" if policy["agents"] else "It serves nobody."


def _diverged(policy: Policy) -> str:
    episodes = policy["episodes"]
    found = 0 if episodes is None else episodes["diverged"]["number"]
    return f"The physics broke in {found} of {episodes['number']} episodes." if found else ""


def _falls(policy: Policy) -> str:
    falls = policy["episodes"] and policy["episodes"]["falls"]
    return f"It fell in {falls['number']} of {falls['of']} episodes." if falls and falls["number"] else ""


def _better_elsewhere(policy: Policy) -> str:
    found = 0 if policy["sureness"] is None else policy["sureness"]["better_elsewhere"]
    return f"{found} of its {policy['agents']} agents would surely be better served by another policy." if found else ""


def _open(policy: Policy) -> str:
    found = 0 if policy["sureness"] is None else policy["sureness"]["open"]
    return (
        f"For {found} of its {policy['agents']} agents the episodes do not tell it from the second best policy."
        if found
        else ""
    )


def _unserved(policy: Policy) -> str:
    share = policy["returns"] and policy["returns"]["agents"]["unserved"]
    return f"{share:.0%} of its agents are unserved: they get next to nothing." if share else ""


def _put_back(policy: Policy) -> str:
    times = policy["training_faults"]["recovered"]
    return f"In training it was not finite {times} time(s), and put back." if times else ""


_RULES: tuple[Callable[[Policy], str], ...] = (
    _serves_nobody,
    _diverged,
    _falls,
    _unserved,
    _better_elsewhere,
    _open,
    _put_back,
)
