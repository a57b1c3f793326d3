"""What was found of a machine: checks, and what engines and extras lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ok", "missing", "problem"]


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes
    ----------
    name
        What it is.
    state
        ``ok``, ``missing`` (it is optional, and not there) or ``problem``.
    found
        One line.
    remedy
        What would help, mostly a command.
    """

    name: str
    state: State
    found: str
    remedy: str | None = None


@dataclass(frozen=True)
class Capability:
    """An engine or an extra.

    Attributes
    ----------
    name
        Of the engine or the extra.
    missing
        What it lacks; nothing where it is ready.
    remedy
        What would help.
    """

    name: str
    missing: tuple[str, ...]
    remedy: str | None = None


@dataclass(frozen=True)
class Health:
    """All that was found.

    Attributes
    ----------
    checks, engines, extras
        In the order in which they are shown.
    """

    checks: tuple[Check, ...]
    engines: tuple[Capability, ...]
    extras: tuple[Capability, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing that is there is broken, so that the engines of the CPU work."""
        return all(check.state != "problem" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""

        def abilities(several: Sequence[Capability]) -> dict[str, Any]:
            return {
                one.name: {"ready": not one.missing, "missing": list(one.missing), "remedy": one.remedy}
                for one in several
            }

        return {
            "healthy": self.healthy,
            "checks": [dict(vars(check)) for check in self.checks],
            "engines": abilities(self.engines),
            "extras": abilities(self.extras),
        }
