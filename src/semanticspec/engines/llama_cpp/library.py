"""Imports llama-cpp-python on first use, and keeps llama.cpp's log off the terminal."""

from __future__ import annotations

import ctypes
from typing import Any

from semanticspec.errors import EngineError
from semanticspec.install_hints import install_hint

_PROBLEM_LEVELS = (3, 4)  # llama.cpp's log levels for warnings and errors


def import_llama_cpp() -> Any:
    """Returns the low-level bindings of llama-cpp-python.

    Raises:
        EngineError: The package is missing or cannot be loaded.
    """
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            f"the engine llama-cpp needs the package llama-cpp-python: {install_hint('llama-cpp')} ({error})"
        ) from error
    if not LOG.connected:
        LOG.connect(llama_cpp)
        llama_cpp.llama_backend_init()
    return llama_cpp


class _Log:
    """Keeps llama.cpp's last warning or error, for our error message."""

    def __init__(self) -> None:
        self.connected = False
        self._last = ""
        self._callback: Any = None  # referenced from C, so it must not be freed

    def connect(self, llama: Any) -> None:
        """Receives llama.cpp's log from now on."""

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
        return self._last or "llama.cpp gave no reason"


LOG = _Log()
