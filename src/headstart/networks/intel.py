"""OpenVINO and NNCF as libraries and nothing else: both report their use to their maker unless told not to.

Nobody who runs headstart was asked, so the module that would report is kept out; both then use the stub they carry.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError, MissingExtraError

_REPORTER = "openvino_telemetry"


def import_openvino() -> Any:
    """The module ``openvino``."""
    sys.modules.setdefault(_REPORTER, None)  # type: ignore[arg-type]  # Importing it fails from here on.
    import openvino

    logging.getLogger("openvino").setLevel(logging.ERROR)
    return openvino


def quantise(converted: Any, samples: Sequence[npt.NDArray[np.uint8]], *, half_range: bool) -> Any:
    """A converted network in 8 bits, its ranges taken from samples (h, w, 3): post-training quantisation by NNCF.

    With ``half_range`` all weights take 7 bits (NNCF's ``OverflowFix.ENABLE``); else it is as NNCF has it, those of the
    first layer alone.

    Raises:
        MissingExtraError: NNCF is not installed.
        DataError: there are no samples.
    """
    if not samples:
        raise DataError("None of the images to take the ranges of 8 bits from can be decoded.")
    import_openvino()
    try:
        import nncf
    except ImportError as error:
        raise MissingExtraError("Computing in 8 bits", "NNCF", "int8") from error
    nncf.set_log_level(logging.ERROR)
    options = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE if half_range else None)
    data = nncf.Dataset([each[None] for each in samples])
    with contextlib.redirect_stdout(io.StringIO()):  # Its progress bars have no switch.
        return nncf.quantize(converted, data, subset_size=len(samples), advanced_parameters=options)
