"""Calibration maps of saved probes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from semanticspec.errors import ProbeError
from semanticspec.probes import Probe
from semanticspec.probes.calibration import Calibration
from tests.support.collecting import (
    make_probe,
    make_reading,
)


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration("platt", torch.tensor([2.0, -1.0])),
        Calibration("isotonic", torch.tensor([[-1.0, 0.5, 2.0], [0.1, 0.5, 0.9]])),
    ],
)
def test_a_calibrated_probe_is_loaded_without_scikit_learn(tmp_path: Path, calibration: Calibration) -> None:
    plain = make_probe()
    probe = Probe(replace(plain.card, calibration=calibration.kind), plain.network, calibration)
    probe.save(tmp_path)
    readings = [make_reading(seed) for seed in range(8)]
    estimates = Probe.load(tmp_path).estimate_many(readings)
    assert estimates == probe.estimate_many(readings)
    assert estimates != plain.estimate_many(readings)
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['scipy'] = None\n"
        f"from semanticspec.probes import Probe; print(Probe.load({str(tmp_path)!r}).calibration.kind)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == calibration.kind
    with pytest.raises(ProbeError, match="its card says 'none'"):
        Probe(plain.card, plain.network, calibration)
