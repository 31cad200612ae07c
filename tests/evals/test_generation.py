"""Models that write: pretrained by the door that pretrains BERT, and what they are asked for."""

import math

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.evals import generation, scoring
from bert_jax.experiments import runs
from bert_jax.modeling.decoding import Sampling
from bert_jax.train import load
from tests.runs import BART, SAVED, TINY, finetune, pretrain, run_here


def test_a_gpt_learns(gpt):
    found = runs.read(gpt)
    assert found.train[0]['lm_loss'] == pytest.approx(math.log(200), abs=0.3)
    assert found.evals[-1]['lm_loss'] < 3


def learns_to_restore(workdir):
    found = runs.read(workdir)
    return found.evals[-1]['restore_loss'] < found.train[0]['restore_loss'] - 1


def test_a_bart_learns(bart):
    assert learns_to_restore(bart)


@pytest.mark.parametrize('noise', ['mass', 'spans'])
def test_a_bart_learns_with_targets_of_its_own(tmp_path, corpus, noise):
    assert pretrain(tmp_path, corpus, tmp_path / 'rows', *BART, f'task.noise={noise}') == 0
    assert learns_to_restore(tmp_path)


@pytest.mark.parametrize('model', ['gpt', 'bart'])
def test_what_was_pretrained_to_write_is_fine_tuned_as_a_bert_is(model, request, labelled, tmp_path):
    checkpoint = request.getfixturevalue(model)
    assert finetune(tmp_path, checkpoint, labelled, 'train.steps=60', SAVED) == 0
    assert runs.read(tmp_path).evals[-1]['accuracy'] > 0.9
    trained, began = load.read(tmp_path), load.read(checkpoint)
    assert {n for n in trained.params if n in began.params} == {
        n for n in began.params if n.startswith(f'{model}/')
    }
    again = scoring.Scorer(f'{TINY}:classify', [f'data.source={labelled}'], 'classify')(tmp_path)
    assert again['scores']['accuracy'] == pytest.approx(runs.read(tmp_path).evals[-1]['accuracy'])


def test_pieces_put_together_are_the_text(gpt):
    writer = generation.Writer(str(gpt))
    one = ''.join(writer.stream('the old', 12, Sampling()))
    assert one == ''.join(writer.stream('the old', 12, Sampling(), seed=5)), 'the likeliest need no seed'
    assert len(one.split()) > 3
    drawn = {''.join(writer.stream('the old', 12, Sampling(2.0), seed=i)) for i in range(3)}
    assert len(drawn) == 3


def test_the_door_prints_the_prompt_and_what_follows(gpt):
    done = run_here(
        'bert_jax.bin.generate', f'--checkpoint={gpt}', '--length=8', '--temperature=0', 'the old'
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('the old ')
    assert run_here('bert_jax.bin.generate', f'--checkpoint={gpt}', '--length=3').returncode == 0


def test_a_bert_does_not_write(pretrained):
    with pytest.raises(UserError, match='does not predict the next token'):
        generation.Writer(str(pretrained))


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--length=0',), '--length must be at least 1'),
        (('--length=500',), 'longer than the 64 positions'),
        (('--length=500',), '--length lower'),
        (('--temperature=-1',), 'at least 0'),
        (('--temperature=nan',), 'at least 0'),
        (('--seed=-1',), 'no whole number from 0'),
        (('--seed=99999999999999999999',), 'no whole number from 0'),
        (('caf\udce9',), 'is not UTF-8'),
    ],
)
def test_what_cannot_be_is_said(gpt, words, message):
    done = run_here('bert_jax.bin.generate', f'--checkpoint={gpt}', *words, 'the')
    assert done.returncode != 0
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_noise_is_shown_before_and_after(gpt):
    words = ('The dog sleeps. The cat does not.', '--seed=1')
    done = run_here('bert_jax.bin.noise', *words)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ['original', 'The', 'dog', 'sleeps', '.', 'The', 'cat', 'does', 'not', '.']
    by_name = {line[:18].strip(): line[18:].split() for line in lines if line[:18].strip()}
    assert {'mask', 'delete', 'infill', 'permute', 'rotate', 'mass', 'spans', 'permute + infill'} <= {
        *by_name
    }
    assert sorted(by_name['permute']) == sorted(by_name['original'])
    assert '[MASK]' in by_name['mask']
    assert run_here('bert_jax.bin.noise', *words).stdout == done.stdout
    pieces = run_here('bert_jax.bin.noise', words[0], f'--checkpoint={gpt}').stdout.splitlines()[0]
    assert len(pieces.split()) > len(by_name['original']), 'word pieces of the checkpoint'
    np.testing.assert_equal(run_here('bert_jax.bin.noise', '').returncode, 1)
