"""Small trainings that the parts `kills` and `disks` interrupt, and their uninterrupted results."""

import json
import pathlib
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bert_jax.train import checkpoint
from tests.campaign import faults
from tests.conftest import sentences
from tests.runs import checkpoint_arrays, finetune, metric_lines, pretrain

_STEPS = 8
_SHORT = (
    f'train.steps={_STEPS}',
    'checkpoint.every=2',
    'checkpoint.keep=2',
    'train.eval_every=3',
    'data.length=16',
)


class Training(NamedTuple):
    """A training and its uninterrupted run.

    Attributes:
      run: runs it in a working directory, and returns its exit status.
      reference: working directory of the uninterrupted run.
      moments: number of moments at which a fault can occur in it, see `faults.Fault`.
      writes: number of writes among them.
    """

    run: Callable[[pathlib.Path], int]
    reference: pathlib.Path
    moments: int
    writes: int

    def check_equal(self, workdir: pathlib.Path) -> None:
        """Check that a run has the same metrics and the same final parameters and optimizer state, to the bit."""
        found, expected = metric_lines(workdir), metric_lines(self.reference)
        different = [pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]]
        assert found == expected, f'metrics differ: {len(found)} lines of {len(expected)}, {different[:1]}'
        last = checkpoint.list_steps(self.reference)[-1].name
        kept, kept_expected = ([s.name for s in checkpoint.list_steps(w)] for w in (workdir, self.reference))
        assert kept[-1] == last, f'checkpoints {kept} instead of {kept_expected}'
        left, right = (checkpoint_arrays(w, last) for w in (workdir, self.reference))
        assert {*left} == {*right}
        assert not (different_ := [n for n in left if not np.array_equal(left[n], right[n])]), different_[:3]


def make(folder: pathlib.Path) -> dict[str, Training]:
    """Run each training without interruption."""
    rng = random.Random(1)
    corpus = folder / 'corpus.txt'
    corpus.write_text('\n\n'.join('\n'.join(sentences(rng, rng.randint(3, 9))) for _ in range(30)) + '\n')
    for split, n in (('train', 40), ('validation', 20)):
        lines = [{'text': f'the {x} dog {i} {split}', 'label': x} for i in range(n) for x in ('good', 'bad')]
        (folder / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    source, first = f'{folder}/{{split}}.jsonl', folder / 'pretrain'
    runs: dict[str, Any] = {
        'pretrain': lambda w: pretrain(w, corpus, '', *_SHORT, 'tokenizer.vocab_size=100'),
        'finetune': lambda w: finetune(w, first, source, *_SHORT, 'checkpoint.best_metric=accuracy'),
    }
    made = {}
    for name, run in runs.items():
        fault = faults.Fault(folder / name, 0)
        with faults.inject(fault):
            assert run(folder / name) == 0
        made[name] = Training(run, folder / name, fault.count, fault.writes)
    return made
