"""Pretraining, fine-tuning and generation with GPT and BART models, and the noise command."""

import math

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.evals import generation, scoring
from bert_jax.experiments import runs
from bert_jax.modeling.decoding import Sampling
from bert_jax.train import load
from tests.runs import BART, TINY, finetune, pretrain, run_in_process, slow_after


def test_gpt_learns(gpt):
    run = runs.read(gpt)
    assert run.train[0]['lm_loss'] == pytest.approx(math.log(200), abs=0.3)
    assert run.evals[-1]['lm_loss'] < 3


def learns_to_restore(workdir):
    run = runs.read(workdir)
    return run.evals[-1]['restore_loss'] < run.train[0]['restore_loss'] - 1


def test_bart_learns(bart):
    assert learns_to_restore(bart)


@pytest.mark.parametrize('noise', slow_after(1, ['mass', 'spans']))
def test_bart_learns_mass_and_span_corruption(tmp_path, corpus, noise):
    assert pretrain(tmp_path, corpus, tmp_path / 'rows', *BART, f'task.noise={noise}') == 0
    assert learns_to_restore(tmp_path)


@pytest.mark.parametrize('model', slow_after(1, ['bart', 'gpt']))
def test_gpt_and_bart_can_be_fine_tuned_to_classify(model, request, labeled, tmp_path):
    checkpoint = request.getfixturevalue(model)
    assert finetune(tmp_path, checkpoint, labeled, 'train.steps=60') == 0
    assert runs.read(tmp_path).evals[-1]['accuracy'] > 0.9
    trained, initial = load.read(tmp_path), load.read(checkpoint)
    assert {n for n in trained.params if n in initial.params} == {
        n for n in initial.params if n.startswith(f'{model}/')
    }
    result = scoring.Scorer(f'{TINY}:classify', [f'data.source={labeled}'], 'classify')(tmp_path)
    assert result['scores']['accuracy'] == pytest.approx(runs.read(tmp_path).evals[-1]['accuracy'])


def test_streamed_pieces_form_the_text(gpt):
    trained = load.read_causal(gpt)
    greedy = ''.join(generation.stream(trained, 'the old', 12, Sampling()))
    assert greedy == ''.join(generation.stream(trained, 'the old', 12, Sampling(), seed=5)), (
        'greedy decoding ignores the seed'
    )
    assert len(greedy.split()) > 3
    samples = {''.join(generation.stream(trained, 'the old', 12, Sampling(2.0), seed=i)) for i in range(3)}
    assert len(samples) == 3


def test_generate_prints_prompt_and_continuation(gpt):
    done = run_in_process(
        'bert_jax.bin.generate', f'--checkpoint={gpt}', '--length=8', '--temperature=0', 'the old'
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('the old ')
    assert run_in_process('bert_jax.bin.generate', f'--checkpoint={gpt}', '--length=3').returncode == 0


def test_bert_is_no_causal_language_model(pretrained):
    with pytest.raises(UserError, match='is not a causal language model'):
        load.read_causal(pretrained)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--length=0',), '--length=0 must be at least 1'),
        (('--length=500',), 'longer than the 64 positions'),
        (('--length=500',), 'Lower --length'),
        (('--temperature=-1',), 'temperature and top_k to 0 or more'),
        (('--temperature=nan',), 'temperature and top_k to 0 or more'),
        (('--steps=3',), 'are for masked language models'),
        (('--seed=-1',), 'not an integer from 0'),
        (('--seed=99999999999999999999',), 'not an integer from 0'),
        (('caf\udce9',), 'is not UTF-8'),
    ],
)
def test_invalid_flags_are_reported(gpt, words, message):
    done = run_in_process('bert_jax.bin.generate', f'--checkpoint={gpt}', *words, 'the')
    assert done.returncode != 0
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_noise_command_shows_every_noise(gpt):
    words = ('The dog sleeps. The cat does not.', '--seed=1')
    done = run_in_process('bert_jax.bin.noise', *words)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ['original', 'The', 'dog', 'sleeps', '.', 'The', 'cat', 'does', 'not', '.']
    by_name = {line[:18].strip(): line[18:].split() for line in lines if line[:18].strip()}
    assert {'mask', 'delete', 'infill', 'permute', 'rotate', 'spans', 'permute + infill'} <= {*by_name}
    assert {'mass', 'masked_seq2seq'} <= {*by_name}
    assert sorted(by_name['permute']) == sorted(by_name['original'])
    assert '[MASK]' in by_name['mask']
    assert run_in_process('bert_jax.bin.noise', *words).stdout == done.stdout
    pieces = run_in_process('bert_jax.bin.noise', words[0], f'--checkpoint={gpt}').stdout.splitlines()[0]
    assert len(pieces.split()) > len(by_name['original']), 'the tokenizer of the checkpoint has word pieces'
    np.testing.assert_equal(run_in_process('bert_jax.bin.noise', '').returncode, 1)
