"""Convert durations of a config to steps, and decide at which steps periodic work is due."""

import dataclasses
import fractions
import re
from typing import Any

from bert_jax.core.errors import UserError

_DURATION = re.compile(r'\s*(\d[\d_]*(?:\.\d+)?(?:[eE]\d+)?)\s*(steps?|epochs?|examples?)\s*')


def duration_to_steps(
    duration: int | float | str, *, total: int = 0, batch_size: int = 0, examples: int = 0
) -> int:
    """Convert a duration of a config to a number of steps.

    Args:
      duration: an integer number of steps, a float up to 1 as a fraction of `total`, or a string
        'N steps' with a whole N, 'N epochs' or 'N examples'.
      total: steps of the whole run, needed for fractions.
      batch_size: global batch size, needed for epochs and examples.
      examples: number of training examples, needed for epochs.

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
    return -int(-number // batch_size)


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
    """

    steps: int
    total: int

    def __call__(self, step: int) -> bool:
        is_multiple = self.steps > 0 and step > 0 and step % self.steps == 0
        return is_multiple or step == self.total
