"""Settings for all tests: no hub access, and the bundled demo is registered as it is on the command line."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_configure() -> None:
    from semanticspec.commands.demo_registration import register_demo

    register_demo()
