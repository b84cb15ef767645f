"""Commands that are killed at some moments, as by the system, and started again."""

import os
import signal
import subprocess
import sys
import time


def killed_and_resumed(command, after):
    """Start a command of phojax again and again, killed after so many seconds but the last time."""
    for wait in after:
        process = subprocess.Popen([sys.executable, "-m", "phojax", *command])
        time.sleep(wait)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return subprocess.run([sys.executable, "-m", "phojax", *command], check=False).returncode
