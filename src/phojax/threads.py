"""Work in threads: what is in compiled code leaves Python free, and other cores idle."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_threads(f: Callable[[A], B], arguments: Sequence[A], threads: int) -> Iterator[B]:
    """Yield f of each argument as it is found; one after the other in this thread where that is 1.

    Where it stops early, by an error or an interruption, what has not begun is left, and what has
    goes on behind: threads in compiled code cannot be stopped.
    """
    if threads == 1:
        yield from map(f, arguments)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        for found in as_completed([pool.submit(f, argument) for argument in arguments]):
            yield found.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
