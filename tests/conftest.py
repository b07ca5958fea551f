"""Settings for all tests: no hub access, caches of their own, and the bundled demo is registered."""

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
_caches = tempfile.TemporaryDirectory(prefix="semanticspec-caches-")  # removed when the tests end
os.environ["SEMANTICSPEC_CACHE"] = _caches.name


def pytest_configure() -> None:
    from semanticspec.commands.demo_registration import register_demo

    register_demo()
