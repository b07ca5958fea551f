"""The option `--role`, which several stages share."""

from __future__ import annotations

from typing import Annotated, cast, get_args

from semanticspec.commands.option_groups import option
from semanticspec.errors import ConfigError
from semanticspec.records import Author

PackagedRole = Annotated[
    str, option("target or draft; only needed if --probe is the name of a packaged pair.")
]


def checked_role(role: str) -> Author:
    """Returns the role, or raises ConfigError if it is neither target nor draft."""
    if role not in get_args(Author):
        raise ConfigError(f"--role is {role!r}; expected target or draft")
    return cast(Author, role)


def trained_role(role: str) -> tuple[Author, bool]:
    """Returns whose probe a role of `probe train` means, and whether it is a joint one.

    Raises:
        ConfigError: the role is none of target, draft and joint.
    """
    if role == "joint":
        return "target", True
    if role not in get_args(Author):
        raise ConfigError(f"--role is {role!r}; expected target, draft or joint")
    return checked_role(role), False
