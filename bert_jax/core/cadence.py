"""Durations and cadences: every `how long` and every `how often` of a run passes through here."""

import dataclasses
import fractions
import re

from bert_jax.core.errors import UserError

_DURATION = re.compile(r'\s*(\d[\d_]*(?:\.\d+)?(?:[eE]\d+)?)\s*(steps?|epochs?|examples?)\s*')


def duration(value: int | float | str, *, total: int = 0, batch_size: int = 0, examples: int = 0) -> int:
    """Turns a duration of a config into steps.

    Args:
      value: an integer is steps; a float up to 1 a fraction of `total`; a string is
        'N steps', 'N epochs' or 'N examples'.
      total: steps of the whole run, for fractions.
      batch_size: global batch size, for epochs and examples.
      examples: training examples, for epochs.

    Returns:
      A number of steps, rounded up for epochs and examples, to the nearest for fractions.

    Raises:
      UserError: if the value is none of these.
    """
    if isinstance(value, bool):
        raise UserError(f'A duration is a number or a string such as "3 epochs", not {value!r}.')
    if isinstance(value, int) and value >= 0:
        return value
    if isinstance(value, float) and 0 <= value <= 1:
        return round(value * total)
    if isinstance(value, float) and value >= 0 and value.is_integer():
        return int(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise UserError(
            f'{value!r} is no duration: give steps (1000), a fraction of the run (0.1), '
            '"3 epochs" or "5e6 examples".'
        )
    number, unit = fractions.Fraction(match[1]), match[2].rstrip('s')
    if unit == 'step':
        return int(number)
    if not batch_size or (unit == 'epoch' and not examples):
        raise UserError(f'{value!r} cannot be turned into steps here: give a number of steps.')
    if unit == 'epoch':
        number *= examples
    return -int(-number // batch_size)


@dataclasses.dataclass(frozen=True)
class Every:
    """True on multiples of `steps` and, if asked for, on the last step; never on step 0.

    Steps are counted after the update: step 1 is the state after one update.
    """

    steps: int
    total: int
    last: bool = True

    def __call__(self, step: int) -> bool:
        on_multiple = self.steps > 0 and step > 0 and step % self.steps == 0
        return on_multiple or (self.last and step == self.total)
