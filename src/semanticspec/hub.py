"""Access to the Hugging Face hub: found out quickly to be unreachable, and then replaced by the local cache."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from semanticspec.errors import ModelError, SemanticSpecError, first_line

TIMEOUT_S = 4.0
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@contextmanager
def hub_or_cache(names: Sequence[str], *, raises: type[SemanticSpecError] = ModelError) -> Iterator[None]:
    """While this context is open, hub names load from the local cache if the hub cannot be reached.

    The libraries that load from the hub try again for a minute or more, file by file; this asks once, for at most
    `TIMEOUT_S`.

    Args:
        names: models; only those that are neither a file nor a folder make it ask the hub.
        raises: type of the error.

    Raises:
        SemanticSpecError: the hub cannot be reached, and one of the names is not in the cache.
    """
    wanted = [name for name in names if _HUB_NAME.fullmatch(name) and not Path(name).exists()]
    if not wanted:
        yield
        return
    from huggingface_hub import constants

    reason = "" if constants.HF_HUB_OFFLINE else why_unreachable()
    if not reason:
        yield
        return
    for name in wanted:
        if not _is_cached(name):
            raise raises(
                f"the Hugging Face hub cannot be reached ({reason}), and {name!r} is neither a local folder nor in the "
                "cache; check the network, or download it elsewhere and give its folder"
            )
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def why_unreachable() -> str:
    """Asks the hub for a sign of life; returns why there is none, or "" if it answers.

    In a thread, because looking up a host name has no time limit.
    """
    reasons = [f"no answer within {TIMEOUT_S:g} s"]

    def ask() -> None:
        try:
            _ask_hub()
            reasons[0] = ""
        except Exception as error:
            reasons[0] = first_line(error)

    thread = threading.Thread(target=ask, name="semanticspec-hub", daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    return reasons[0]


def _ask_hub() -> None:
    """Sends one request; any answer will do. Uses the proxies and certificates that huggingface_hub uses."""
    from huggingface_hub import constants, get_session

    get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)
