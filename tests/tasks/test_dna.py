"""Sequences of DNA in word pieces drawn at random."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.labeled import LabelledConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.data.sequences import SymbolTokenizer
from bert_jax.tasks import dna
from bert_jax.train import load
from tests.runs import TINY, losses, run_here


@given(st.text('ACGT', max_size=20), st.integers(1, 3), st.integers(1, 4))
def test_every_kmer_is_a_piece_of_its_own(words, text, k, stride):
    made = SymbolTokenizer(words, 'ACGT', k, 0, stride)
    assert len({*made.table.values()}) == 4**k
    names = {i: name for name, i in made.table.items()}
    (ids,) = made.encode([text])
    assert [names[i] for i in ids] == [text[i : i + k] for i in range(0, len(text) - k + 1, stride)]
    np.testing.assert_array_equal(made.encode([f' {text.lower()}\n'])[0], ids)


def test_the_table_is_drawn_by_its_seed_from_used_pieces():
    vocabulary = tokenizer_lib.from_vocab(
        [*tokenizer_lib.SPECIAL, *(f'[unused{i}]' for i in range(50)), *'abcde']
    )
    tables = [SymbolTokenizer(vocabulary, 'ACGT', 1, seed).table for seed in (0, 0, 1, 2, 3)]
    assert tables[0] == tables[1]
    assert len({str(t) for t in tables}) > 2
    assert all(i >= 55 for t in tables for i in t.values())


def test_a_symbol_that_is_not_in_the_alphabet_is_unknown(words):
    made = SymbolTokenizer(words, 'ACGT', 1, 0)
    assert SymbolTokenizer(words, 'tgca', 1, 0).table == made.table
    assert made.encode(['ANA'])[0].tolist() == [made.table['A'], words.unk, made.table['A']]


@pytest.mark.parametrize(('alphabet', 'k'), [('ACGT', 8), ('ACGT', 16), ('', 1)])
def test_too_many_kmers_are_refused(words, alphabet, k):
    with pytest.raises(UserError, match='as many different word pieces'):
        SymbolTokenizer(words, alphabet, k, 0)


def test_a_row_is_the_sequence_between_the_special_tokens(words):
    task = dna.Task(dna.Config(labels=('no', 'yes'), kmer=2), LabelledConfig(length=10), words)
    rows = task.examples([Record('a', {'text': 'ACGT', 'label': 1})]).rows
    row = unpack(rows[0])
    table = task.tokenizer.table
    assert row.tokens[: row.length].tolist() == [words.cls, table['AC'], table['CG'], table['GT'], words.sep]
    assert row.label == 1


def test_what_a_model_does_not_read_of_the_sequences_is_said(words, caplog):
    task = dna.Task(dna.Config(labels=('no', 'yes'), kmer=2), LabelledConfig(length=6), words)
    found = [Record('a', {'text': text, 'label': 1}) for text in ('ACGTACGT', 'ANT', 'ACGTA', 'ACGUU')]
    with caplog.at_level(logging.INFO):
        task.examples(found)
    assert '1 of 4 sequences are cut to data.length=6 tokens' in caplog.text
    assert f'{100 * 4 / 14:.2g} % of the k-mers read are unknown' in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        task.examples([Record('a', {'text': 'acgta', 'label': 1})] * 3)
    assert not caplog.records


@pytest.mark.parametrize('text', ['', ' ', 'A'])
def test_a_sequence_without_a_kmer_is_refused(words, text):
    task = dna.Task(dna.Config(labels=('no', 'yes'), kmer=2), LabelledConfig(length=6), words)
    found = [Record(f'x.csv, line {i},', {'text': t, 'label': 1}) for i, t in enumerate(('ACGT', text))]
    with pytest.raises(
        UserError, match="x.csv, line 1, has a sequence in the field 'text' that is shorter than"
    ):
        task.examples(found)


@pytest.mark.parametrize('weights', ['pretrained', 'body', 'random'])
def test_what_a_run_takes_of_the_pretrained_model(pretrained, tmp_path, weights):
    rng = np.random.default_rng(0)
    for split in ('train', 'validation'):
        lines = [f'{"".join(rng.choice([*"ACGT"], 8))},{i % 2}' for i in range(16)]
        (tmp_path / f'{split}.csv').write_text('text,label\n' + '\n'.join(lines) + '\n')
    done = run_here(
        'bert_jax.bin.train', f'--config={TINY}:classify', f'--workdir={tmp_path}/run',
        f'--config.data.source={tmp_path}/{{split}}.csv', '--config.task.name=dna', f'--config.init.checkpoint={pretrained}',
        f'--config.init.weights={weights}', '--config.train.steps=1', '--config.optim.learning_rate=1e-9',
        '--config.optim.warmup=0', '--config.task.kmer=2',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = load.read(pretrained).params, load.read(tmp_path / 'run').params
    same = {n: np.allclose(before[n], after[n], atol=1e-6) for n in after if n in before and before[n].any()}
    kernels = [n for n in same if n.endswith('kernel')]
    assert same['bert/words'] == (weights == 'pretrained')
    assert {same[n] for n in kernels} == {weights != 'random'}
    scored = run_here(
        'bert_jax.bin.eval_dna', f'--config={TINY}:classify', '--config.task.name=dna', f'--checkpoint={tmp_path}/run',
        f'--config.data.source={tmp_path}/{{split}}.csv', f'--out={tmp_path}/scores.json',
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    found = json.loads((tmp_path / 'scores.json').read_text())['scores']['loss']
    assert found == pytest.approx(
        losses(tmp_path / 'run')[-1]['eval/loss']
    )  # read as it was trained, in pairs
