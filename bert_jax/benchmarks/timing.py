"""Timers of the benchmarks."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def median_time(step: Callable[[], Any], seconds: float) -> float:
    """Measure the median time of a step, over about `seconds` but at least five steps, after two warm-up steps."""
    step()
    step()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def runs_per_second(run: Callable[[int], Any], seconds: float) -> float:
    """Measure the number of runs per second, over about `seconds` but at least one run, after a warm-up run.

    `run` takes the index of the run: 0 for the warm-up, then 1, 2, ...
    """
    run(0)
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < seconds:
        count += 1
        run(count)
    return count / (time.perf_counter() - start)
