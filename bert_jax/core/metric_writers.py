"""Writers of metrics for programs that show curves: TensorBoard, Weights & Biases and Trackio."""

import hashlib
import importlib.util
import math
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from bert_jax.core.errors import UserError, first_line

PROJECT = 'bert_jax'  # default name of the project in Weights & Biases and Trackio


class MetricWriter(Protocol):
    """Writer of the metrics of a run, constructed as `MetricWriter(folder, run_name, step, config)`.

    The folder is for its files, and the step is that at which the run starts or resumes. The name of the run consists of the
    name of its working directory, a hyphen and a hash of its path.
    """

    def __call__(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Writer of TensorBoard events to `tensorboard/` in the working directory."""

    def __init__(self, folder: pathlib.Path, run_name: str, step: int, config: Mapping[str, Any]):
        from tensorboardX import SummaryWriter

        # Its thread ends if the disk is full. With a limit for the queue, the next values would then wait forever.
        self._events = SummaryWriter(str(folder / 'tensorboard'), purge_step=step + 1, max_queue=0)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        self._events.close()


class WeightsAndBiases:
    """Writer to Weights & Biases, which reads its settings, such as WANDB_PROJECT and WANDB_MODE, from the environment.

    A resumed run continues the curves of its working directory.
    """

    def __init__(self, folder: pathlib.Path, run_name: str, step: int, config: Mapping[str, Any]):
        import wandb

        try:
            self._run = wandb.init(
                project=wandb.setup().settings.project or PROJECT,
                id=run_name.rpartition('-')[2],
                name=run_name.rpartition('-')[0],
                dir=str(folder),
                config=dict(config),
                resume='allow',
                settings=wandb.Settings(console='off'),
            )
        except wandb.Error as e:
            raise UserError(
                f'Weights & Biases does not start ({first_line(e)}). Run `wandb login`, or set WANDB_MODE=offline.'
            ) from e

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """Writer to Trackio, which stores curves in TRACKIO_DIR. A resumed run continues those of its working directory."""

    def __init__(self, folder: pathlib.Path, run_name: str, step: int, config: Mapping[str, Any]):
        import trackio

        self._run = trackio.init(PROJECT, run_name, config=dict(config), resume='allow', embed=False)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


WRITERS: dict[str, Callable[..., MetricWriter]] = {
    'tensorboard': TensorBoard,
    'wandb': WeightsAndBiases,
    'trackio': Trackio,
}


class Combined:
    """Several writers, for finite values only.

    Args:
      names: names of the writers, keys of `WRITERS`.
      folder: folder for their files.
      workdir: working directory of the run.
      step: step at which the run starts or resumes.
      last_step: last step that was written before; a resumed run repeats the steps up to it, which are written once.
      config: config of the run.
    """

    def __init__(
        self,
        names: Collection[str],
        folder: pathlib.Path,
        workdir: pathlib.Path,
        step: int,
        last_step: int,
        config: Mapping[str, Any],
    ):
        check_installed(names)
        run_name = f'{workdir.name}-{hashlib.sha256(str(workdir).encode()).hexdigest()[:12]}'
        self._writers = {name: WRITERS[name](folder, run_name, step, config) for name in names}
        self._last_step = last_step

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for name, writer in self._writers.items():
            # TensorBoard removes the values of repeated steps itself.
            if name == 'tensorboard' or step > self._last_step:
                writer(step, finite)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


def check_installed(names: Collection[str]) -> None:
    """Raise UserError if the library of a writer is missing."""
    for name in set(names) - {'tensorboard'}:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f'train.writers contains {name!r}, which is not installed. Run `pip install {name}`, or remove it.'
            )
