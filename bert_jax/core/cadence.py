"""Convert durations of a config to steps, and decide at which steps periodic work is due."""

import dataclasses
import fractions
import itertools
import re
from typing import Any

from bert_jax.core.errors import UserError

_DURATION = re.compile(r'\s*(\d[\d_]*(?:\.\d+)?(?:[eE]\d+)?)\s*(steps?|epochs?|examples?)\s*')


# The global batch size, or (steps, batch size) of each phase of a run in which it changes.
BatchSize = int | tuple[tuple[int, int], ...]


def duration_to_steps(
    duration: int | float | str,
    *,
    total: int = 0,
    batch_size: BatchSize = 0,
    examples: int = 0,
    from_end: bool = False,
) -> int:
    """Convert a duration of a config to a number of steps.

    Args:
      duration: an integer number of steps, a float up to 1 as a fraction of `total`, or a string
        'N steps' with a whole N, 'N epochs' or 'N examples'.
      total: steps of the whole run, needed for fractions.
      batch_size: global batch size, needed for epochs and examples.
      examples: number of training examples, needed for epochs.
      from_end: whether the duration is at the end of the run, not at its start, which matters if the batch size changes.

    Returns:
      The number of steps. Epochs and examples are rounded up, fractions to the nearest step.

    Raises:
      UserError: if the duration has none of these forms, or `batch_size` or `examples` is needed but 0.
    """
    if type(duration) is int and duration >= 0:  # not a bool
        return duration
    if isinstance(duration, float) and 0 <= duration <= 1:
        return round(duration * total)
    if isinstance(duration, float) and duration >= 0 and duration.is_integer():
        return int(duration)
    match = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    number, unit = (fractions.Fraction(match[1]), match[2].rstrip('s')) if match else (None, '')
    if number is None or (unit == 'step' and number.denominator > 1):
        raise UserError(
            f'{duration!r} is not a duration. Set whole steps (1000), a fraction of the run (0.1), '
            '"3 epochs" or "5e6 examples".'
        )
    if unit == 'step':
        return int(number)
    if not batch_size or (unit == 'epoch' and not examples):
        raise UserError(
            f'{duration!r} cannot be converted to steps, because the number of examples is unknown here. '
            'Set a number of steps.'
        )
    if unit == 'epoch':
        number *= examples
    return _examples_to_steps(number, batch_size, from_end)


def _examples_to_steps(number: fractions.Fraction, batch_size: BatchSize, from_end: bool = False) -> int:
    """Return the number of steps that read `number` examples, rounded up."""
    sizes = ((0, batch_size),) if isinstance(batch_size, int) else batch_size[:: -1 if from_end else 1]
    steps = 0
    for phase_steps, size in sizes[:-1]:
        if number <= phase_steps * size:
            return steps - int(-number // size)
        steps, number = steps + phase_steps, number - phase_steps * size
    return steps - int(-number // sizes[-1][1])


def check_durations(section: Any, prefix: str, *names: str) -> None:
    """Raise UserError if a field of a section is not a duration.

    Args:
      section: dataclass of the section.
      prefix: name of the section, for the message.
      *names: fields to check.
    """
    for name in names:
        try:
            duration_to_steps(getattr(section, name), batch_size=1, examples=1)
        except UserError as e:
            raise UserError(f'{prefix}.{name}={e}') from e


@dataclasses.dataclass(frozen=True)
class Every:
    """Predicate that is true at each multiple of `steps` and at the last step; never at step 0.

    Step s means the state after s updates.

    Attributes:
      steps: interval in steps; with 0, only the last step is due.
      total: the last step of the run.
      at: steps that take the place of the multiples, if an interval in examples has different numbers of steps.
    """

    steps: int
    total: int
    at: frozenset[int] | None = None

    def __call__(self, step: int) -> bool:
        is_multiple = self.steps > 0 and step > 0 and step % self.steps == 0
        return (is_multiple if self.at is None else step in self.at) or step == self.total


def make_every(duration: int | float | str, *, total: int, batch_size: BatchSize, examples: int) -> Every:
    """Return when the end of an interval of a config is due. The arguments are those of `duration_to_steps`."""
    steps = duration_to_steps(duration, total=total, batch_size=batch_size, examples=examples)
    match = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    if not steps or isinstance(batch_size, int) or match is None or match[2].startswith('step'):
        return Every(steps, total)
    interval = fractions.Fraction(match[1]) * (examples if match[2].startswith('epoch') else 1)
    seen = itertools.accumulate(size for phase_steps, size in batch_size for _ in range(phase_steps))
    # Number of whole intervals after each step.
    counts = [0, *(int(n // interval) for n in seen)]
    due = (step for step, (a, b) in enumerate(itertools.pairwise(counts), start=1) if b > a)
    return Every(steps, total, frozenset(due))
