"""Configs of runs, evaluations and tables."""

from ml_collections import ConfigDict


def new_config() -> ConfigDict:
    """Return an empty config. Values may change their type, such as train.steps from '3 epochs' to 30."""
    return ConfigDict(type_safe=False)


def check_argument(arg: str, known: tuple[str, ...], is_valid: bool = False) -> None:
    """Check the argument of `get_config`, the word after the colon in `--config=FILE.py:WORD`.

    Args:
      arg: the argument.
      known: the arguments that the config takes; for an open set, such as languages, their forms in words.
      is_valid: whether the argument belongs to an open set.

    Raises:
      ValueError: if the config does not take the argument.
    """
    if arg not in known and not is_valid:
        raise ValueError(f'choose from {", ".join(known)}.')
