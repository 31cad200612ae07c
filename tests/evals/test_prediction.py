"""Predictions of texts of one's own: in every format, with what is bad left out and named."""

import json

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data.records import Record
from bert_jax.evals import prediction
from tests.runs import finetune, run_here


@pytest.fixture(scope='module')
def classifier(tmp_path_factory, pretrained, labelled):
    workdir = tmp_path_factory.mktemp('classifier')
    assert finetune(workdir, pretrained, labelled, 'optim.learning_rate=0.01', 'train.steps=40') == 0
    return workdir


def predict(*words):
    return run_here('bert_jax.bin.predict', *words)


def test_texts_get_labels_and_bad_lines_are_named(tmp_path, classifier):
    lines = [
        '{"text": "the good dog"}',
        '{"text"',
        '',
        '{"body": "x"}',
        '{"text": "the bad dog", "label": "?"}',
    ]
    (tmp_path / 'in.jsonl').write_bytes('\n'.join(lines).encode() + b'\n{"text": "\xe9"}\n')
    done = predict(
        f'--checkpoint={classifier}', f'--input={tmp_path / "in.jsonl"}', f'--output={tmp_path / "out.jsonl"}'
    )
    assert done.returncode == 1
    for message in (
        'line 2 is not JSON',
        "line 4, has no field 'text'",
        'line 6 is not UTF-8',
        '3 bad lines',
    ):
        assert message in done.stderr
    found = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
    assert [f['label'] for f in found] == ['good', 'bad']
    assert [f['of'].rpartition('line ')[2] for f in found] == ['1', '5']
    assert all(sum(f['probabilities'].values()) == pytest.approx(1, abs=1e-5) for f in found)
    assert all(f['probabilities'][f['label']] > 0.5 for f in found)


@pytest.mark.parametrize(('flags', 'expected'), [((), 'good'), (('--numbers',), '1')])
def test_the_format_of_the_glue_server(tmp_path, classifier, flags, expected):
    (tmp_path / 'in.jsonl').write_text('{"sentence": "the good dog"}\n')
    done = predict(
        f'--checkpoint={classifier}',
        f'--input={tmp_path / "in.jsonl"}',
        f'--output={tmp_path / "new" / "SST-2.tsv"}',
        '--config.data.text=sentence',
        *flags,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'new' / 'SST-2.tsv').read_text() == f'index\tprediction\n0\t{expected}\n'


def test_predictions_do_not_depend_on_their_company(classifier):
    predictor = prediction.Predictor(str(classifier))
    texts = [f'the {"good" if i % 3 else "bad"} dog {"very " * (i % 7)}' for i in range(40)]
    found = [prediction.Record(f'example {i}', {'text': t}) for i, t in enumerate(texts)]
    together = predictor(found)
    for i in (0, 13, 39):
        (alone,) = predictor([found[i]])
        assert alone['label'] == together[i]['label']
        assert alone['probabilities'] == pytest.approx(together[i]['probabilities'], abs=1e-4)


def test_answers_are_written_as_squad_reads_them(tmp_path):
    made = [{'id': 'a', 'answer': 'x'}, None, {'id': 'b', 'answer': ''}]
    prediction.write(tmp_path / 'out.json', [Record('r', {})] * 3, made, numbers=False)
    assert json.loads((tmp_path / 'out.json').read_text()) == {'a': 'x', 'b': ''}
    with pytest.raises(UserError, match=r'\.tsv file is for one label'):
        prediction.write(tmp_path / 'out.tsv', [Record('a', {})] * 3, made, numbers=False)
    with pytest.raises(UserError, match=r'\.json file is for answers'):
        prediction.write(tmp_path / 'other.json', [Record('r', {})], [{'label': 'a'}], numbers=False)


def test_the_glue_server_gets_its_own_index_in_order(tmp_path):
    """TFDS shuffles its examples; their field idx is the line of the task's file."""
    found = [Record('a', {'idx': i}) for i in (2, 0, 1)]
    made = [{'label': name, 'number': 0} for name in 'cab']
    prediction.write(tmp_path / 'out.tsv', found, made, numbers=False)
    assert (tmp_path / 'out.tsv').read_text() == 'index\tprediction\n0\ta\n1\tb\n2\tc\n'


def test_the_place_of_a_line_counts_those_that_cannot_be_read(tmp_path, classifier):
    (tmp_path / 'in.jsonl').write_text('{"text": "the good dog"}\n{\n{"text": "the bad dog"}\n')
    done = predict(
        f'--checkpoint={classifier}', f'--input={tmp_path / "in.jsonl"}', f'--output={tmp_path / "o.tsv"}'
    )
    assert done.returncode == 1
    assert (tmp_path / 'o.tsv').read_text() == 'index\tprediction\n0\tgood\n2\tbad\n'


def test_nothing_is_written_of_nothing(tmp_path, classifier):
    (tmp_path / 'in.jsonl').write_text('{"body": "x"}\n')
    (tmp_path / 'o.jsonl').write_text('before')
    done = predict(
        f'--checkpoint={classifier}', f'--input={tmp_path / "in.jsonl"}', f'--output={tmp_path / "o.jsonl"}'
    )
    assert done.returncode == 1
    assert 'nothing was written' in done.stderr
    assert (tmp_path / 'o.jsonl').read_text() == 'before'


def test_records_that_cannot_stand_together_are_left_out():
    """A choice has as many endings as the first."""

    class Task:
        def examples(self, found, labelled):
            if len({r.fields['n'] for r in found}) > 1:
                raise UserError(f'{found[-1].where} is not as the first.')
            return [r.fields['n'] for r in found]

    predictor = object.__new__(prediction.Predictor)
    predictor.task = Task()
    found = [Record('a', {'n': 2}), None, Record('b', {'n': 3}), Record('c', {'n': 2})]
    assert predictor._examples(found) == ([0, 3], [2, 2])


def test_questions_that_share_an_id_are_said(tmp_path, caplog):
    made = [{'id': 'a', 'answer': 'x'}, {'id': 'a', 'answer': 'y'}]
    prediction.write(tmp_path / 'out.json', [Record('r', {})] * 2, made, numbers=False)
    assert '1 questions share an id' in caplog.text


def test_an_index_that_is_no_number_is_named(tmp_path):
    with pytest.raises(UserError, match="line 1, has the idx 'x', which is no number"):
        prediction.write(
            tmp_path / 'o.tsv',
            [Record('line 1,', {'idx': 'x'})],
            [{'label': 'a', 'number': 0}],
            numbers=False,
        )
    assert not (tmp_path / 'o.tsv').exists()


def test_a_pretrained_model_predicts_nothing(pretrained):
    with pytest.raises(UserError, match="task 'mlm', which predicts nothing"):
        prediction.Predictor(str(pretrained))


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--input=no.jsonl', '--output=o.jsonl'), "no file 'no.jsonl'"),
        (('--question=why?', '--context=README.md'), 'answers no questions'),
        (('--input=x.jsonl',), '--input goes with --output'),
        (('--input=README.md', '--output=o.jsonl'), "'README.md' is of no known format"),
        (('--input=glue/sst2', '--output=o.txt'), "'o.txt' is of no known format"),
        (('--input={there}', '--output={there}'), 'would overwrite --input'),
        (('--input={there}', '--output=o.jsonl'), 'nothing in'),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, classifier, words, message):
    there = tmp_path / 'empty.jsonl'
    there.write_text('')
    done = predict(f'--checkpoint={classifier}', *(w.format(there=there) for w in words))
    assert done.returncode != 0
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
