"""The package llama-cpp-python: imported when it is needed, and kept quiet."""

from __future__ import annotations

import ctypes
from typing import Any

from semanticspec.errors import EngineError

_PROBLEM_LEVELS = (3, 4)  # of llama.cpp's log: warnings and errors


def bindings() -> Any:
    """The low-level bindings of llama-cpp-python, with llama.cpp's log kept off the terminal.

    Raises:
        EngineError: the package is missing or cannot be loaded.
    """
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            "the engine llama-cpp needs the package llama-cpp-python: pip install semanticspec[llama-cpp] "
            f"({error})"
        ) from error
    if not LOG.connected:
        LOG.connect(llama_cpp)
        llama_cpp.llama_backend_init()
    return llama_cpp


class _Log:
    """Keeps the last problem that llama.cpp told, for the error that follows it."""

    def __init__(self) -> None:
        self.connected = False
        self._last = ""
        self._callback: Any = None  # referred to from C: it must outlive the process's last call there

    def connect(self, llama: Any) -> None:
        def keep(level: int, text: bytes, _: ctypes.c_void_p) -> None:
            line = text.decode(errors="replace").strip()
            if level in _PROBLEM_LEVELS and line:
                self._last = line

        self._callback = llama.llama_log_callback(keep)
        llama.llama_log_set(self._callback, ctypes.c_void_p(0))
        self.connected = True

    def clear(self) -> None:
        self._last = ""

    def last(self) -> str:
        return self._last or "it does not say why"


LOG = _Log()
