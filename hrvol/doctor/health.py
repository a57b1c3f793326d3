"""Describe an installation: the results of checks, and what engines and extras lack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ok", "missing", "problem"]


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes
    ----------
    name, found
        What was checked, and the result in one line.
    state
        ``ok``, ``missing`` (optional and absent) or ``problem``.
    remedy
        What would help, mostly a command.
    """

    name: str
    state: State
    found: str
    remedy: str | None = None


@dataclass(frozen=True)
class Capability:
    """An engine or an extra; it is ready if ``missing``, the list of what it lacks, is empty."""

    name: str
    missing: tuple[str, ...]
    remedy: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, without the name."""
        return {"ready": not self.missing, "missing": list(self.missing), "remedy": self.remedy}


@dataclass(frozen=True)
class Health:
    """The results of all checks, engines and extras, in the order in which they are shown."""

    checks: tuple[Check, ...]
    engines: tuple[Capability, ...]
    extras: tuple[Capability, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing that is installed is broken, so that the engines of the CPU work."""
        return all(check.state != "problem" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "healthy": self.healthy,
            "checks": [dict(vars(check)) for check in self.checks],
            "engines": {engine.name: engine.to_dict() for engine in self.engines},
            "extras": {extra.name: extra.to_dict() for extra in self.extras},
        }
