"""Measures the resident memory of a pair while it answers 1 and 8 requests at the same time.

    python benchmarks/memory.py --target Qwen/Qwen2.5-1.5B-Instruct --draft draft.gguf --rule token

Every number of requests runs in a process of its own. To compare two versions, run the script in two checkouts. "Peak"
is the most that was resident at any time, "private peak" the part that no file backs (`RssAnon`, Linux only): mapped
weights are resident too, but the system can drop them without writing them anywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

SAMPLE_S = 0.05
_STATUS = Path("/proc/self/status")
_KB_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes per unit of `ru_maxrss`."""


class MemoryRecorder:
    """Samples resident memory on a thread of its own."""

    def __init__(self) -> None:
        self.private_peak_bytes = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the sampling."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(SAMPLE_S):
            self.private_peak_bytes = max(self.private_peak_bytes, status_bytes("RssAnon"))


def status_bytes(name: str) -> int:
    """Returns a field of this process' status, 0 where the system has no such file."""
    if not _STATUS.exists():
        return 0
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def peak_bytes() -> int:
    """Returns the peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KB_UNIT


def prompts(count: int) -> list[str]:
    """Returns word problems."""
    return [
        f"A shop has {37 + 5 * i} boxes with {6 + i} pens each. It sells {12 + 3 * i} pens on Monday and twice as many "
        "on Tuesday. How many pens are left? Please reason step by step."
        for i in range(count)
    ]


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Loads the pair, answers the requests, and returns the figures in bytes."""
    from semanticspec import DecodingConfig, RuleConfig, load_pair
    from semanticspec.decoding.generate import generate_async

    recorder = MemoryRecorder()
    pair = load_pair(
        options.target,
        options.draft,
        target_engine=options.target_engine,
        draft_engine=options.draft_engine,
        target_probe=options.target_probe,
        draft_probe=options.draft_probe,
    )
    loading_peak = peak_bytes()
    loaded = status_bytes("VmRSS")
    config = DecodingConfig(rule=RuleConfig(options.rule), max_new_tokens=options.max_new_tokens)
    results = await generate_async(pair, prompts(options.requests), config)
    recorder.stop()
    return {
        "loaded": loaded,
        "loading_peak": loading_peak,
        "peak": peak_bytes(),
        "private_peak": recorder.private_peak_bytes,
        "after": status_bytes("VmRSS"),
        "tokens": sum(len(result.token_ids) for result in results),
    }


def run_worker(arguments: list[str], requests: int) -> dict[str, Any]:
    """Measures in a new process, with the same arguments as this one."""
    command = [sys.executable, __file__, *arguments, "--requests", str(requests)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return result


def main() -> None:
    """Prints a table with a row per number of requests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for role in ("target", "draft"):
        parser.add_argument(f"--{role}", help="hub name, folder or GGUF file (default: the bundled pair)")
        parser.add_argument(f"--{role}-engine", default="auto", help="with options, as in the command line")
        parser.add_argument(f"--{role}-probe", help="for the rule semantic")
    parser.add_argument("--rule", default="token")
    parser.add_argument("--max-new-tokens", type=int, default=150)
    parser.add_argument("--concurrency", default="1,8", help="comma-separated numbers of requests")
    parser.add_argument("--requests", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.requests is not None:
        print(json.dumps(asyncio.run(measure(options))))
        return
    print("| Requests | Loading peak | Loaded | Peak | Private peak | Afterwards | Tokens |")
    print("|---|---|---|---|---|---|---|")
    for requests in map(int, options.concurrency.split(",")):
        figures = run_worker(sys.argv[1:], requests)
        names = ("loading_peak", "loaded", "peak", "private_peak", "after")
        row = " | ".join(f"{figures[name] / 2**20:,.0f} MiB" for name in names)
        print(f"| {requests} | {row} | {figures['tokens']} |", flush=True)


if __name__ == "__main__":
    main()
