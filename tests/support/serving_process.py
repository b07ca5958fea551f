"""`semanticspec serve` as a separate process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Serving:
    """A server process. A thread reads its log, so that the pipe never blocks it."""

    def __init__(self, *options: str) -> None:
        code = "from semanticspec.commands.main import main; main()"
        command = [sys.executable, "-c", code, "serve", "--port", "0", *options]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.log: list[str] = []
        self._has_url = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._has_url.wait(120), "".join(self.log)
        self.url = next(found[1] for line in self.log if (found := re.search(r"(http://\S+)", line)))

    def _read(self) -> None:
        for line in self.process.stderr:
            self.log.append(line)
            if "http://" in line:
                self._has_url.set()
        self._has_url.set()


@contextmanager
def serving(*options: str) -> Iterator[Serving]:
    server = Serving(*options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
