"""Describe the settings of a training config, for `--show`."""

import logging
from collections.abc import Sequence

from bert_jax.core import config as config_lib
from bert_jax.core import paths
from bert_jax.core.errors import UserError
from bert_jax.core.settings import Section, describe_section


def read_sections(spec: str, overrides: Sequence[str]) -> list[Section]:
    """Return the sections of a config file with `a.b=value` overrides; needs neither data nor a tokenizer.

    Raises:
      UserError: if the config is invalid.
    """
    from bert_jax.train import checkpoint
    from bert_jax.train import experiment as experiment_lib

    config = config_lib.load(spec)
    origins = {name: dict.fromkeys(section, 'config') for name, section in config.items()}
    experiment = experiment_lib.read(spec, overrides)
    if experiment.init.checkpoint:
        try:
            _, metadata = checkpoint.read_metadata(paths.make_path(experiment.init.checkpoint))
        except UserError as e:
            logging.warning('%s The section model below is not that of a checkpoint.', e)
        else:
            experiment = experiment_lib.inherit_model(experiment, metadata['config'])
            inherited = {'name', *vars(experiment.model)} - {*experiment_lib.RUNTIME_KEYS}
            origins['model'] |= dict.fromkeys(inherited, 'checkpoint')
    sections = {name: vars(section) for name, section in vars(experiment).items()}
    sections['model'] = {**sections['model'], 'name': experiment.model.name}
    return [
        describe_section(type(getattr(experiment, name)), name, values, origins.get(name, {}), overrides)
        for name, values in sections.items()
    ]
