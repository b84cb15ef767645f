"""Progress on standard error: one line that moves on a terminal, few lines in a file."""

import sys
import time

_QUIET = 10.0  # s between lines where the output is no terminal


class Progress:
    """Tells stages of one input, with the time that a stage still needs.

    Args:
        label: Begins every line.
        stream: Where to; standard error by default.
        several: Other inputs are told of at the same time: no line may be overwritten.
    """

    def __init__(self, label: str, stream=None, several: bool = False) -> None:
        self._label = label
        self._stream = stream or sys.stderr
        self._moves = self._stream.isatty() and not several
        self._stage, self._since, self._told, self._first = "", 0.0, 0.0, 0
        self._width = 0

    def __call__(self, stage: str, done: int, of: int) -> None:
        """Report that `done` parts of a stage are finished (`of` = 0: not known)."""
        now = time.monotonic()
        fresh = stage != self._stage
        if fresh:
            self._stage, self._since, self._told, self._first = stage, now, 0.0, done
        if not self._moves and not fresh and now - self._told < _QUIET:
            return
        self._told = now
        text = f"{self._label}: {stage}"
        if of > 1:
            text += f" {done}/{of}"
            if self._first < done < of:
                left = (now - self._since) / (done - self._first) * (of - done)
                text += f", about {seconds(left)} left"
        elif done:
            text += f", step {done}"
        self._write(text)

    def end(self, text: str) -> None:
        """Finish with a line that stays."""
        self._write(f"{self._label}: {text}")
        if self._moves:
            self._stream.write("\n")
            self._stream.flush()

    def _write(self, text: str) -> None:
        if self._moves:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def seconds(duration: float) -> str:
    """Return a duration for people: 8 s, 3 min, 2.5 h."""
    if duration < 90:
        return f"{duration:.0f} s"
    return f"{duration / 60:.0f} min" if duration < 5400 else f"{duration / 3600:.1f} h"
