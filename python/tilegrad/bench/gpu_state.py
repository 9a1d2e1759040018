# SPDX-License-Identifier: MIT
"""Clocks, power and temperature of the GPU, as nvidia-smi tells them; nothing is ever changed."""

from __future__ import annotations

import re
import subprocess

# name in a stored run: nvidia-smi's
_QUERY = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "most_sm_mhz": "clocks.max.sm",
    "watts": "power.draw",
    "limit_watts": "power.limit",
    "celsius": "temperature.gpu",
}


def parsed(text: str) -> dict[str, float]:
    """Return the numbers of nvidia-smi's answer; what it does not know is left out.

    Example:
        >>> parsed("1980, 3201, 1980, 689.31, 700.00, [N/A]")["watts"]
        689.31
    """
    values = [value.strip() for value in (text.splitlines() or [""])[0].split(",")]
    return {
        name: float(value)
        for name, value in zip(_QUERY, values, strict=False)
        if re.fullmatch(r"\d+(\.\d+)?", value)
    }


def read(device: str = "cuda") -> dict[str, float]:
    """Return the state of a device now; {} where nvidia-smi cannot tell.

    Args:
        device: "cuda" or "cuda:N"; numbered as nvidia-smi does.
    """
    number = device.partition(":")[2] or "0"
    command = ["nvidia-smi", f"--id={number}", f"--query-gpu={','.join(_QUERY.values())}"]
    try:
        done = subprocess.run(
            [*command, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parsed(done.stdout) if done.returncode == 0 else {}
