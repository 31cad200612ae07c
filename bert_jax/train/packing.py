"""Decide whether a run packs its texts, and choose the shape of the packed batches."""

import dataclasses
from typing import Any, Literal

from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import Partitioner
from bert_jax.data import packing as packing_lib
from bert_jax.data.packing import Packing
from bert_jax.data.rows import HEADER
from bert_jax.train.experiment import Experiment, TrainConfig


def resolve(experiment: Experiment, task: Any, partitioner: Partitioner) -> Experiment:
    """Replace `train.packing='auto'` by the faster choice on these devices, so that the config of the run records it.

    Raises:
      UserError: if texts shall be packed in a task that does not support it.
    """
    train = experiment.train
    if not getattr(task, 'supports_packing', False):
        if train.packing == 'on':
            raise UserError(
                f'task.name={experiment.task.name} does not support train.packing=on with this config. Set it to auto.'
            )
        return experiment
    packing: Literal['on', 'off'] = 'on' if is_on(train, task, partitioner) else 'off'
    return dataclasses.replace(experiment, train=dataclasses.replace(train, packing=packing))


def is_on(config: TrainConfig, task: Any, partitioner: Partitioner) -> bool:
    """Return whether the texts of a task are packed on these devices."""
    if not getattr(task, 'supports_packing', False):
        return False
    return config.packing == 'on' or (config.packing == 'auto' and partitioner.platform != 'cpu')


def make(task: Any, rows: Any, batch_size: int, row_multiple: int, config: TrainConfig) -> Packing:
    """Choose the shape of packed batches.

    Args:
      task: task that interprets the rows.
      rows: array [n, ..., 4 + T] of the rows of n texts.
      batch_size: number of texts in a batch.
      row_multiple: number of which the number of rows in a batch is a multiple.
      config: number of different row lengths.
    """
    lengths, row_length = task.text_lengths(rows), rows.shape[-1] - HEADER
    return packing_lib.choose(lengths, batch_size, row_length, row_multiple, config.length_buckets)
