"""A trained model in Python, and what the eval binaries start from."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from bert_jax.core.partitioning import Partitioner
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling import module
from bert_jax.train import checkpoint
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.experiment import Experiment


class Trained(NamedTuple):
    """A checkpoint made into objects.

    Attributes:
      experiment: the config it was trained by.
      tokenizer: its tokenizer.
      graph: structure of its model.
      params: parameters by path.
      step: updates done.
    """

    experiment: Experiment
    tokenizer: Tokenizer
    graph: Any
    params: module.Params
    step: int


def read(
    path: str | pathlib.Path, partitioner: Partitioner | None = None, overrides: Sequence[str] = ()
) -> Trained:
    """Reads the newest whole checkpoint below `path`.

    Args:
      path: a working directory, its `checkpoints` folder, or the folder of one step.
      partitioner: where the parameters are put; None is one device.
      overrides: `a.b=value` for its config.

    Raises:
      UserError: if there is no checkpoint or it cannot be read.
    """
    step, about = checkpoint.read_about(pathlib.Path(path))
    experiment = experiment_lib.from_config(about['config'], overrides)
    tokenizer = tokenizer_lib.from_json(json.dumps(about['tokenizer']))
    experiment = experiment_lib.complete(experiment, tokenizer)
    task = experiment.make_task(tokenizer)
    graph, shapes, axes = module.abstract(lambda rngs: task.module(experiment.model, rngs))
    if partitioner is not None:
        shapes = {n: s.update(sharding=partitioner.sharding(axes[n], s.shape, n)) for n, s in shapes.items()}
    return Trained(experiment, tokenizer, graph, checkpoint.read_params(step, shapes), about['step'])
