"""Several devices of one machine share a batch, and the result is that of one."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("devices.py")


@pytest.mark.slow
def test_two_devices_say_what_one_says(tmp_path):
    found = []
    for count in (1, 2):
        path = tmp_path / f"{count}.npz"
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
        subprocess.run(
            [sys.executable, str(SCRIPT), str(path)], check=True, timeout=600,
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        found.append(np.load(path))
    one, two = found
    assert (int(one["devices"]), int(two["devices"])) == (1, 2)
    assert (int(one["on"]), int(two["on"])) == (1, 2)
    for name in set(one.files) - {"devices", "on"}:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-9, atol=1e-12, err_msg=name)
