"""Save and restore self-contained checkpoints with Orbax, asynchronously.

`WORKDIR/checkpoints/STEP/` contains three items: `params`, `training` (step and optimizer state) and `metadata`
(JSON with config, tokenizer and scores). Loading a model needs nothing else. With `checkpoint.best_metric`, Orbax adds
`metrics`, the score that decides which checkpoint is the best.
"""

import contextlib
import functools
import hashlib
import json
import logging
import math
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from bert_jax.core import buckets, paths, stacking
from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError, first_line
from bert_jax.train import checksums, orbax_s3
from bert_jax.train.experiment import CheckpointConfig
from bert_jax.train.state import Layout, State

FOLDER = 'checkpoints'
_COMMITTED = 'commit_success.txt'  # the file that Orbax writes last into a checkpoint in a bucket


class Checkpointer:
    """Manager of the checkpoints of one run: saves states, deletes old ones, and restores the newest.

    Args:
      workdir: working directory of the run.
      config: which checkpoints to keep.
      metadata: JSON-ready description of the run: `config`, `tokenizer` and `total_steps`.
    """

    def __init__(self, workdir: pathlib.Path, config: CheckpointConfig, metadata: Mapping[str, Any]):
        self._folder = _orbax_path(workdir) / FOLDER
        self.best_metric, self._metadata = config.best_metric, dict(metadata)
        policies: list[Any] = [LatestN(max(1, config.keep))]
        if config.best_metric:
            best = BestN(
                get_metric_fn=lambda m: m['score'],
                reverse=config.lower_is_better,
                n=1,
                keep_checkpoints_without_metrics=False,
            )
            policies.append(best)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            # Orbax writes scores to disk, from which a resumed run reads them, only if it has a function.
            best_fn=(lambda m: m['score']) if config.best_metric else None,
            best_mode='min' if config.lower_is_better else 'max',
        )
        _save_whole_arrays()
        if config.best_metric and jax.process_index() == 0:
            _repair_scores(self._folder, config.best_metric)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: State, scores: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> None:
        """Start saving a state in the background.

        Args:
          state: the state.
          scores: scores of its parameters.
          config: JSON-ready config that replaces that of the metadata, such as that of a phase.

        Raises:
          UserError: if `checkpoint.best_metric` is not among the scores; the checkpoint is saved nevertheless.
        """
        step = int(state.step)
        best_metric = self.best_metric
        score = scores.get(best_metric)
        training = {'step': state.step, 'opt_state': state.opt_state}
        metadata = {**self._metadata, **({} if config is None else {'config': config})}
        metadata['checksums'] = {
            'params': checksums.compute(state.params),
            'training': checksums.compute(training),
        }
        with self._report_lost_bucket():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    training=ocp.args.StandardSave(training),
                    metadata=ocp.args.JsonSave(_seal({**metadata, 'step': step, 'scores': dict(scores)})),
                ),
                metrics={'score': score} if score is not None and math.isfinite(score) else None,
                force=True,
            )
        if best_metric and scores and best_metric not in scores:
            raise UserError(
                f'checkpoint.best_metric={best_metric!r} is not a score: {did_you_mean(best_metric, scores)}'
            )

    def restore(self, layout: Layout) -> State | None:
        """Restore the newest readable state; return None if there is no checkpoint.

        Damaged checkpoints are skipped with a warning, and renamed once an older one has been read.

        Raises:
          UserError: if there are checkpoints but none is readable, or they belong to another model.
        """
        abstract = layout.abstract
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged: list[int] = []
        for step in steps:
            try:
                saved = read_param_shapes(self._folder / str(step))
                _check_shapes(saved, abstract.params, self._folder / str(step))
                stored = stacking.convert(abstract, saved)
                args = ocp.args.Composite(
                    params=ocp.args.StandardRestore(stored.params),
                    training=ocp.args.StandardRestore({'step': stored.step, 'opt_state': stored.opt_state}),
                )
                restored = self._manager.restore(step, args=args)
                expected = _read_metadata_file(self._folder / str(step)).get('checksums', {})
                for name in expected if _have_same_dtypes(stored.params, saved) else ():
                    checksums.check(restored[name], expected[name], f'{name} arrays')
            except UserError:
                raise
            except Exception as e:  # Orbax and its storage raise many types on damaged files
                if jax.process_count() > 1:  # the other processes may have read their parts
                    raise UserError(
                        f'Checkpoint {step} in {str(self._folder)!r} cannot be read ({first_line(e)}). Rename it, and '
                        'run the same command to resume from the previous one.'
                    ) from e
                logging.warning('skipping damaged checkpoint %d (%s)', step, first_line(e))
                damaged.append(step)
                continue
            for number in damaged:
                set_aside(self._folder / str(number), f'damaged-{number}-{time.time():.0f}')
            self._manager.reload()
            training = restored['training']
            state = State(training['step'], restored['params'], training['opt_state'])
            return stacking.convert_arrays(state, abstract)
        if steps:
            raise UserError(
                f'None of the checkpoints in {str(self._folder)!r} can be read. Start again in another --workdir.'
            )
        return None

    @property
    def needs_scores(self) -> bool:
        """Whether saving needs the scores of an evaluation, to find the best checkpoint."""
        return bool(self.best_metric)

    @property
    def best_step(self) -> int | None:
        """Step of the checkpoint with the best score; None without `checkpoint.best_metric`."""
        return self._manager.best_step() if self.best_metric else None

    def close(self) -> None:
        """Wait until all checkpoints are on disk."""
        with self._report_lost_bucket():
            self._manager.close()

    @contextlib.contextmanager
    def _report_lost_bucket(self) -> Iterator[None]:
        """Raise UserError for the errors of saving in a bucket, which depend on the store."""
        try:
            yield
        except Exception as e:
            if not buckets.is_in_bucket(self._folder):
                raise
            raise UserError(
                f'A checkpoint cannot be saved in {str(self._folder)!r} ({first_line(e)}). Run the same command to resume '
                'when the bucket can be reached.'
            ) from e


@functools.cache
def _save_whole_arrays() -> None:
    """In a single process, make Orbax save each array at once. By default, each device saves a slice, which is slower."""
    if jax.process_count() == 1:
        handler = ocp.type_handlers.ArrayHandler(use_replica_parallel=False)
        ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)


def write_params(
    workdir: pathlib.Path, params: Mapping[str, Any], metadata: Mapping[str, Any], number: int = 0
) -> None:
    """Write a checkpoint of step `number` without optimizer state, from which other runs can start."""
    step = paths.absolute(workdir) / FOLDER / str(number)
    shutil.rmtree(step, ignore_errors=True)  # left by an interrupted conversion
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(step / 'params', dict(params))
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        # Written last: a folder counts as a checkpoint once it has metadata.
        content = {**metadata, 'checksums': {'params': checksums.compute(dict(params))}}
        content |= {'step': number, 'total_steps': number, 'scores': {}}
        checkpointer.save(step / 'metadata', args=ocp.args.JsonSave(_seal(content)))


def list_steps(path: pathlib.Path) -> list[pathlib.Path]:
    """List the step folders at `path`: a working directory, its `checkpoints` folder, or a step folder. Oldest first."""
    if (path / 'metadata').is_dir():
        return [path] if _is_complete(path) else []
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    step_folders = [p for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    step_folders = [step for step in step_folders if _is_complete(step)]
    return sorted(step_folders, key=lambda p: int(p.name))


def _is_complete(step: pathlib.Path) -> bool:
    """Return whether the checkpoint in a folder is complete. Orbax renames local ones when they are complete."""
    return not buckets.is_in_bucket(step) or (step / _COMMITTED).exists()


def _orbax_path(path: pathlib.Path) -> pathlib.Path:
    """Return an absolute path that Orbax accepts."""
    if buckets.is_in_bucket(path):
        orbax_s3.enable()
    return paths.absolute(path)


def set_aside(step: pathlib.Path, name: str) -> None:
    """Rename the folder of a checkpoint. In a bucket, an interruption leaves a copy that is not used."""
    target = step.with_name(name)
    if not buckets.is_in_bucket(step):
        step.rename(target)
        return
    fs = buckets.file_system(step)
    fs.copy(str(step), str(target), recursive=True)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(str(step / _COMMITTED))  # without it, Orbax deletes the rest when the run is resumed
    fs.rm(str(step), recursive=True)


def time_saved(step: pathlib.Path) -> float:
    """Return when a checkpoint was saved, in seconds since 1970."""
    if buckets.is_in_bucket(step):
        return buckets.file_system(step).modified(str(step / _COMMITTED)).timestamp()
    return step.stat().st_mtime


def list_saved(workdir: pathlib.Path) -> list[pathlib.Path]:
    """List the checkpoints that a run has saved in its working directory. Oldest first."""
    return list_steps(workdir / FOLDER)


def read_metadata(path: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """Find the newest readable checkpoint at `path`.

    Returns:
      The folder of its step, and its metadata: config, tokenizer, step, total_steps and scores.

    Raises:
      UserError: if there is none.
    """
    candidates = list_steps(path)
    for step in reversed(candidates):
        try:
            return step, _read_metadata_file(step)
        except Exception as e:
            logging.warning('skipping damaged checkpoint %s (%s)', step, first_line(e))
    if any(
        (path / name).is_file() for name in ('model.safetensors', 'pytorch_model.bin', 'bert_config.json')
    ):
        raise UserError(
            f'{str(path)!r} contains a model of another library. Convert it with '
            f'`python -m bert_jax.bin.convert --from_hf={path} --to=DIR` and pass DIR instead.'
        )
    other = 'the folder of one of its steps'
    if not path.exists():  # perhaps the name of a published model
        other = 'convert a published model with `python -m bert_jax.bin.convert --from_hf=NAME --to=DIR`'
    raise UserError(
        f'There is no checkpoint in {str(path)!r}. Pass the --workdir of a training run, or {other}.'
    )


def content_hash(step: pathlib.Path, metadata: Mapping[str, Any]) -> str:
    """Return a hash that identifies the content of the checkpoint in the folder `step`, 16 hexadecimal digits."""
    content = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    # Orbax lists the files of the parameters, which have random names. The metadata of converted models has no scores.
    manifest = step / 'params' / 'manifest.ocdbt'
    if manifest.is_file():
        content.update(manifest.read_bytes())
    return content.hexdigest()[:16]


def read_params(step: pathlib.Path, abstract: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Read the parameters of a checkpoint.

    Args:
      step: folder of a step.
      abstract: shapes and shardings of all parameters in the checkpoint, in which layers may be stacked or not.
        Parameters without a sharding are placed on one device.

    Raises:
      UserError: if the checkpoint is damaged, or its parameters have other names or shapes.
    """
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = {n: s if s.sharding is not None else s.update(sharding=one_device) for n, s in abstract.items()}
    try:
        saved = read_param_shapes(step)
        stored = stacking.convert(placed, saved)
        with ocp.StandardCheckpointer() as checkpointer:
            restored = checkpointer.restore(_orbax_path(step) / 'params', stored)
        if _have_same_dtypes(stored, saved):
            expected = _read_metadata_file(step).get('checksums', {})
            checksums.check(restored, expected.get('params', ''), 'parameters')
        return stacking.convert_arrays(restored, placed)
    except Exception as e:
        raise UserError(
            f'The parameters in {str(step)!r} cannot be read ({first_line(e)}). Use another checkpoint.'
        ) from e


def _check_shapes(
    saved: Mapping[str, jax.ShapeDtypeStruct], expected: Mapping[str, Any], step: pathlib.Path
) -> None:
    saved, expected = stacking.unstack(saved), stacking.unstack(expected)
    for name in sorted({*saved, *expected}):
        saved_shape, shape = (x[name].shape if name in x else 'missing' for x in (saved, expected))
        if saved_shape != shape:
            raise UserError(
                f'{str(step)!r} is a checkpoint of another model ({name}: {saved_shape} in the checkpoint, {shape} in the config). '
                'Choose another --workdir, or restore the config to resume.'
            )


def read_param_shapes(step: pathlib.Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Read the shapes of the parameters in a checkpoint; raises various errors if it is damaged."""
    # A Checkpointer would log a warning that `params`, as a part of a checkpoint, has no metadata file of a whole one.
    tree = ocp.StandardCheckpointHandler().metadata(_orbax_path(step) / 'params').tree
    return {name: jax.ShapeDtypeStruct(m.shape, m.dtype) for name, m in tree.items()}


def _read_metadata_file(step: pathlib.Path) -> dict[str, Any]:
    """Read the metadata from its JSON file, which one process can do alone; an Orbax restore needs all processes."""
    content = paths.read_json(step / 'metadata' / 'metadata')
    # The seal is the only text, whatever damage has made of its key. Checkpoints of earlier versions have none.
    seals = {content.pop(key) for key, value in [*content.items()] if isinstance(value, str)}
    if seals and seals != {_hash(content)}:
        raise ValueError('the metadata have changed since they were saved')
    return content


def _have_same_dtypes(wanted: Mapping[str, Any], saved: Mapping[str, jax.ShapeDtypeStruct]) -> bool:
    """Return whether parameters are restored as they were saved; otherwise their checksum differs."""
    return {*wanted} == {*saved} and all(wanted[name].dtype == saved[name].dtype for name in saved)


def _seal(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Add a hash to metadata, with which damage is noticed. Orbax itself protects only arrays."""
    return {**metadata, 'seal': _hash(metadata)}


def _hash(metadata: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:16]


def _repair_scores(folder: pathlib.Path, best_metric: str) -> None:
    """Restore damaged files of scores, which Orbax reads of all checkpoints, from the metadata of their checkpoints."""
    for step in list_steps(folder):
        file = step / 'metrics' / 'metrics'
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if not file.exists() or math.isfinite(paths.read_json(file)['score']):
                continue
        try:
            score = _read_metadata_file(step)['scores'][best_metric]
            paths.write_atomic(file, json.dumps({'score': score}))
            logging.warning('restored the damaged score of checkpoint %s', step.name)
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise UserError(
                f'The score in {str(file)!r} is damaged. Delete the folder {str(step)!r}, and run the same command.'
            ) from e
