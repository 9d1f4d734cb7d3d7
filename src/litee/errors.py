"""The one family of errors a user may see, each with the place, what is allowed and the fix.

Knows nothing of what failed: the raising code fills in the fields. The command line turns a
`LiteeError` into one message on stderr and the exit code below; anything else is a bug.
"""

from __future__ import annotations

EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_MODEL = 4
EXIT_RESOURCE = 5
EXIT_INTERRUPTED = 130


class LiteeError(Exception):
    """A condition the user can mend.

    Args:
        problem: what is wrong, with the offending value.
        place: where, e.g. `votes.csv, row 17` (rows count from 1, the header is row 1).
        fix: what to do about it.

    >>> print(LiteeError("unknown winner 'X'", place="v.csv, row 2", fix="use a, b or tie"))
    v.csv, row 2: unknown winner 'X'
      fix: use a, b or tie
    """

    exit_code = EXIT_USAGE

    def __init__(self, problem: str, *, place: str = "", fix: str = "") -> None:
        self.problem = problem
        self.place = place
        self.fix = fix
        head = f"{place}: {problem}" if place else problem
        super().__init__(f"{head}\n  fix: {fix}" if fix else head)


class ConfigError(LiteeError):
    """A setting is unknown, out of range or contradicts another (exit code 2)."""

    exit_code = EXIT_USAGE


class InputError(LiteeError):
    """A votes, pairs or document file cannot be used as it is (exit code 3)."""

    exit_code = EXIT_INPUT


class LeakError(InputError):
    """The same prompt lies on both sides of a split (exit code 3)."""


class ModelError(LiteeError):
    """A backbone or judge folder is missing, unsafe or damaged (exit code 4)."""

    exit_code = EXIT_MODEL


class ResourceError(LiteeError):
    """Disk, memory or time ran out (exit code 5)."""

    exit_code = EXIT_RESOURCE


class BudgetError(ResourceError):
    """Nothing fits the wall time or memory that was allowed (exit code 5)."""
