"""Timers of the benchmarks."""

import statistics
import time
from collections.abc import Callable
from typing import Any

REPEATS = 5


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


def time_steps(run_steps: Callable[[int], Any], seconds: float) -> dict[str, Any]:
    """Measure the time of a step on a device that computes while the host prepares the next steps.

    Args:
      run_steps: runs a number of steps, and waits for the device once at the end.
      seconds: approximate duration of all `REPEATS` timings together.

    Returns:
      `step_seconds`, the median over the timings, `timings`, the seconds per step in each of them, and
      `steps_per_timing`, at least 2.
    """

    def time_per_step(steps: int) -> float:
        start = time.perf_counter()
        run_steps(steps)
        return (time.perf_counter() - start) / steps

    time_per_step(2)  # warm-up
    steps = max(2, round(seconds / REPEATS / time_per_step(2)))
    timings = [time_per_step(steps) for _ in range(REPEATS)]
    return {'step_seconds': statistics.median(timings), 'timings': timings, 'steps_per_timing': steps}


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
