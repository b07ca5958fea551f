"""`semanticspec serve` as a process of its own, for tests that ask it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Serving:
    """A server in a process of its own; what it logs is read all the time, so that it never waits for that."""

    def __init__(self, *options: str) -> None:
        code = "from semanticspec.commands.main import main; main()"
        command = [sys.executable, "-c", code, "serve", "--port", "0", *options]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.log: list[str] = []
        self._url_came = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._url_came.wait(120), "".join(self.log)
        self.url = next(found[1] for line in self.log if (found := re.search(r"(http://\S+)", line)))

    def _read(self) -> None:
        for line in self.process.stderr:
            self.log.append(line)
            if "http://" in line:
                self._url_came.set()
        self._url_came.set()


@contextmanager
def serving(*options: str) -> Iterator[Serving]:
    server = Serving(*options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
