"""Checkpoints by Orbax: state, config and tokenizer together, saved in the background.

`WORKDIR/checkpoints/STEP/` holds three items: `params`, `training` (step and optimizer) and `about`
(JSON: config, tokenizer, scores), so that a checkpoint explains itself.
"""

import json
import logging
import math
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from bert_jax.core.config import nearest
from bert_jax.core.errors import UserError, first_line
from bert_jax.train.experiment import CheckpointConfig
from bert_jax.train.state import Layout, State

FOLDER = 'checkpoints'


class Checkpointer:
    """Saves and restores the states of one run.

    Args:
      workdir: of the run.
      config: what is kept.
      about: JSON-ready values that explain the run: `config` and `tokenizer`.
    """

    def __init__(self, workdir: pathlib.Path, config: CheckpointConfig, about: Mapping[str, Any]):
        self._folder = workdir.absolute() / FOLDER
        self._config, self._about = config, dict(about)
        policies: list[Any] = [LatestN(max(1, config.keep))]
        if config.best:
            policies.append(
                BestN(
                    get_metric_fn=lambda m: m['score'],
                    reverse=config.lowest,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            step_prefix=None,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: State, scores: Mapping[str, Any]) -> None:
        """Starts to save; training goes on meanwhile."""
        step = int(state.step)
        best = self._config.best
        value = scores.get(best)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                training=ocp.args.StandardSave({'step': state.step, 'opt_state': state.opt_state}),
                about=ocp.args.JsonSave({**self._about, 'step': step, 'scores': dict(scores)}),
            ),
            metrics={'score': value} if value is not None and math.isfinite(value) else None,
            force=True,
        )
        if best and scores and best not in scores:
            raise UserError(f'checkpoint.best={best!r} is no score: {nearest(best, scores)}')

    def restore(self, layout: Layout) -> State | None:
        """The newest state that can be read whole, or None if nothing was ever saved.

        A damaged one is passed over with a warning, and moved aside once an older one was read.

        Raises:
          UserError: if there are checkpoints but none can be read, or they are of another model.
        """
        abstract = layout.abstract
        args = ocp.args.Composite(
            params=ocp.args.StandardRestore(abstract.params),
            training=ocp.args.StandardRestore({'step': abstract.step, 'opt_state': abstract.opt_state}),
        )
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged: list[int] = []
        for step in steps:
            try:
                saved = param_shapes(self._folder / str(step))
                _check_same(saved, abstract.params, self._folder / str(step))
                restored = self._manager.restore(step, args=args)
                _read_about(self._folder / str(step))
            except UserError:
                raise
            except Exception as e:  # whatever the storage raises on damaged files
                if jax.process_count() > 1:  # the others may have read their parts
                    raise UserError(
                        f'Checkpoint {step} in {str(self._folder)!r} cannot be read ({first_line(e)}): move it '
                        'aside, and start again from the one before.'
                    ) from e
                logging.warning('checkpoint %d is damaged and passed over (%s)', step, first_line(e))
                damaged.append(step)
                continue
            for number in damaged:
                (self._folder / str(number)).rename(self._folder / f'damaged-{number}-{time.time():.0f}')
            self._manager.reload()
            training = restored['training']
            return State(training['step'], restored['params'], training['opt_state'])
        if steps:
            raise UserError(
                f'None of the checkpoints in {str(self._folder)!r} can be read: start anew in another --workdir.'
            )
        return None

    @property
    def wants_scores(self) -> bool:
        """Whether a checkpoint is judged by its scores."""
        return bool(self._config.best)

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def write_params(workdir: pathlib.Path, params: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes a checkpoint of step 0 to start from: parameters and what they are, without an optimizer."""
    step = workdir.absolute() / FOLDER / '0'
    shutil.rmtree(step, ignore_errors=True)  # of a conversion that was interrupted
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(step / 'params', dict(params))
    with ocp.Checkpointer(
        ocp.JsonCheckpointHandler()
    ) as checkpointer:  # last: it makes the step a checkpoint
        checkpointer.save(
            step / 'about', args=ocp.args.JsonSave({**about, 'step': 0, 'total_steps': 0, 'scores': {}})
        )


def steps(path: pathlib.Path) -> list[pathlib.Path]:
    """Step folders below a working directory or a `checkpoints` folder, or the folder of one step; oldest first."""
    if (path / 'about').is_dir():
        return [path]
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    found = [p for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    return sorted(found, key=lambda p: int(p.name))


def read_about(path: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """The newest whole checkpoint below `path` and what it says of itself.

    Raises:
      UserError: if there is none.
    """
    candidates = steps(path)
    for step in reversed(candidates):
        try:
            return step, _read_about(step)
        except Exception as e:
            logging.warning('checkpoint %s is damaged and passed over (%s)', step, first_line(e))
    if any(
        (path / name).is_file() for name in ('model.safetensors', 'pytorch_model.bin', 'bert_config.json')
    ):
        raise UserError(
            f'{str(path)!r} holds a model of another library: convert it with '
            f'`python -m bert_jax.bin.convert --from_hf={path} --to=DIR`, and give that folder.'
        )
    raise UserError(
        f'There is no checkpoint in {str(path)!r}: give a --workdir that was trained, or one of its steps.'
    )


def read_params(step: pathlib.Path, abstract: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Parameters of one checkpoint.

    Args:
      step: the folder of a step.
      abstract: shapes of the parameters wanted, all of them in the checkpoint; those without a sharding go to one device.

    Raises:
      UserError: if the checkpoint is damaged or holds parameters of other names or shapes.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = {n: s if s.sharding is not None else s.update(sharding=here) for n, s in abstract.items()}
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(step.absolute() / 'params', placed)
    except Exception as e:
        raise UserError(
            f'The parameters in {str(step)!r} cannot be read ({first_line(e)}): use another checkpoint.'
        ) from e


def _check_same(
    saved: Mapping[str, jax.ShapeDtypeStruct], wanted: Mapping[str, Any], step: pathlib.Path
) -> None:
    for name in sorted({*saved, *wanted}):
        before, now = (x[name].shape if name in x else 'missing' for x in (saved, wanted))
        if before != now:
            raise UserError(
                f'{str(step)!r} is of another model ({name} is {before} there and {now} here): '
                'choose another --workdir, or set the config back to resume.'
            )


def param_shapes(step: pathlib.Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the parameters in a checkpoint."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.metadata(step.absolute() / 'params').item_metadata.tree
    return {name: jax.ShapeDtypeStruct(m.shape, m.dtype) for name, m in tree.items()}


def _read_about(step: pathlib.Path) -> dict[str, Any]:
    """By one process alone: what Orbax reads, all processes must read at once."""
    return json.loads((step / 'about' / 'metadata').read_text())
