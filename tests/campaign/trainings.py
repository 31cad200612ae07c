"""Small trainings, a table and a sweep that the parts `kills` and `disks` interrupt, and their uninterrupted results."""

import functools
import json
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.bin import train as train_command
from bert_jax.experiments import runs
from bert_jax.train import checkpoint
from tests.campaign import faults
from tests.conftest import sentences
from tests.experiments.test_table_command import CONFIG
from tests.runs import TINY, checkpoint_arrays, jobs_in_process, metric_lines, run_in_process

_STEPS = 8
_SAVES = ('checkpoint.every=2', 'checkpoint.keep=2', 'train.eval_every=3')
_SHORT = (f'train.steps={_STEPS}', 'data.length=16', *_SAVES)
_PHASES = f'train.phases=((3, 16, 8, "task.mask_rate=0.3"), (2, 16, 16), ({_STEPS - 5}, 32, 8))'


class Training(NamedTuple):
    """A training, a table or a sweep, and its uninterrupted run.

    Attributes:
      run: runs it in a working directory, and returns its exit status.
      reference: working directory of the uninterrupted run.
      moments: number of moments at which a fault can occur in it, see `faults.Fault`.
      writes: number of writes among them.
      arguments: arguments of the training command without the working directory; empty for a table or a sweep.
      summary: file with the results of a table or a sweep; empty for a training.
    """

    run: Callable[[pathlib.Path], int]
    reference: pathlib.Path
    moments: int
    writes: int
    arguments: tuple[str, ...] = ()
    summary: str = ''

    def check_equal(self, workdir: pathlib.Path) -> None:
        """Check that all runs have the same metrics, final parameters and optimizer states as the uninterrupted ones."""
        references = runs.find_workdirs(self.reference) if self.summary else [self.reference]
        for reference in references:
            _check_run(workdir / reference.relative_to(self.reference), reference)
        if self.summary:
            assert (workdir / self.summary).read_text() == (self.reference / self.summary).read_text()


def _check_run(workdir: pathlib.Path, reference: pathlib.Path) -> None:
    found, expected = metric_lines(workdir), metric_lines(reference)
    different = [pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]]
    assert found == expected, f'metrics differ: {len(found)} lines of {len(expected)}, {different[:1]}'
    kept, last = checkpoint.list_steps(workdir), checkpoint.list_steps(reference)[-1].name
    assert kept[-1].name == last, f'checkpoint {kept[-1].name} instead of {last}'
    left, right = (checkpoint_arrays(w, last) for w in (workdir, reference))
    assert {*left} == {*right}
    assert not (names := [n for n in left if not np.array_equal(left[n], right[n])]), f'{names[:3]} differ'


def make(folder: pathlib.Path) -> dict[str, Training]:
    """Run trainings, a table and a sweep without interruption."""
    rng = random.Random(1)
    corpus = folder / 'corpus.txt'
    corpus.write_text('\n\n'.join('\n'.join(sentences(rng, rng.randint(3, 9))) for _ in range(30)) + '\n')
    for split, n in (('train', 40), ('validation', 20)):
        lines = [{'text': f'the {x} dog {i} {split}', 'label': x} for i in range(n) for x in ('good', 'bad')]
        (folder / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    source = f'{folder}/{{split}}.jsonl'
    (folder / 'table.py').write_text(CONFIG.format(tiny=TINY, source=source, corpus=corpus))
    text = (f'data.sources={corpus}', 'tokenizer.vocab_size=100')
    packed = ('task.sentence_objective=none', 'task.pack_documents=true')
    settings = {
        'pretrain': (*text, *_SHORT),
        'phases': (*text, *packed, *_SAVES, _PHASES),
        'finetune': (
            f'data.source={source}',
            f'init.checkpoint={folder}/pretrain',
            'checkpoint.best_metric=accuracy',
            *_SHORT,
        ),
    }
    made = {}
    for name, overrides in settings.items():
        config = f'{TINY}:{"classify" if name == "finetune" else "pretrain"}'
        run = functools.partial(_train, config, overrides)
        arguments = (f'--config={config}', *(f'--config.{override}' for override in overrides))
        made[name] = _run_reference(run, folder / name, arguments=arguments)
    jobs = {
        'table': (f'--config={folder}/table.py',),
        'sweep': ('--over=optim.learning_rate=1e-3,1e-2', *made['finetune'].arguments),
    }
    for command, arguments in jobs.items():
        run = functools.partial(_run_jobs, command, arguments)
        made[command] = _run_reference(run, folder / command, summary=f'{command}.csv')
    return made


def _train(config: str, overrides: Sequence[str], workdir: pathlib.Path) -> int:
    return train_command.run(config, workdir, [*overrides])


def _run_jobs(command: str, arguments: Sequence[str], workdir: pathlib.Path) -> int:
    with jobs_in_process():
        done = run_in_process(f'bert_jax.bin.{command}', f'--workdir={workdir}', *arguments)
    assert done.returncode == 0, done.stderr[-600:]
    return done.returncode


def _run_reference(run: Callable[[pathlib.Path], int], workdir: pathlib.Path, **kwargs: Any) -> Training:
    fault = faults.Fault(workdir, 0)
    with faults.inject(fault):
        assert run(workdir) == 0
    return Training(run, workdir, fault.count, fault.writes, **kwargs)
