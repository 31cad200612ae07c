"""Predictions in every output format; invalid records are skipped and reported."""

import json

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data.records import Record
from bert_jax.evals import prediction
from tests.runs import finetune, run_in_process


@pytest.fixture(scope='module')
def classifier(tmp_path_factory, pretrained, labeled):
    workdir = tmp_path_factory.mktemp('classifier')
    assert finetune(workdir, pretrained, labeled, 'optim.learning_rate=0.01', 'train.steps=40') == 0
    return workdir


def predict(*args):
    return run_in_process('bert_jax.bin.predict', *args)


def test_valid_lines_are_predicted_and_invalid_lines_reported(tmp_path, classifier):
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
        '3 invalid records',
    ):
        assert message in done.stderr
    found = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
    assert [f['label'] for f in found] == ['good', 'bad']
    assert [f['location'].rpartition('line ')[2] for f in found] == ['1', '5']
    assert all(sum(f['probabilities'].values()) == pytest.approx(1, abs=1e-5) for f in found)
    assert all(f['probabilities'][f['label']] > 0.5 for f in found)


@pytest.mark.parametrize(('flags', 'expected'), [((), 'good'), (('--class_ids',), '1')])
def test_glue_format(tmp_path, classifier, flags, expected):
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


def test_predictions_do_not_depend_on_the_batch(classifier):
    predictor = prediction.Predictor(str(classifier))
    texts = [f'the {"good" if i % 3 else "bad"} dog {"very " * (i % 7)}' for i in range(40)]
    records = [Record(f'example {i}', {'text': t}) for i, t in enumerate(texts)]
    together = predictor(records)
    for i in (0, 13, 39):
        (alone,) = predictor([records[i]])
        assert alone['label'] == together[i]['label']
        assert alone['probabilities'] == pytest.approx(together[i]['probabilities'], abs=1e-4)


def test_squad_format(tmp_path):
    predictions = [{'id': 'a', 'answer': 'x'}, None, {'id': 'b', 'answer': ''}]
    prediction.write_predictions(
        tmp_path / 'out.json', [Record('r', {})] * 3, predictions, use_class_ids=False
    )
    assert json.loads((tmp_path / 'out.json').read_text()) == {'a': 'x', 'b': ''}
    with pytest.raises(UserError, match=r'\.tsv file can only hold one label'):
        prediction.write_predictions(
            tmp_path / 'out.tsv', [Record('a', {})] * 3, predictions, use_class_ids=False
        )
    with pytest.raises(UserError, match=r'\.json file can only hold answers'):
        prediction.write_predictions(
            tmp_path / 'other.json', [Record('r', {})], [{'label': 'a'}], use_class_ids=False
        )


def test_glue_format_is_sorted_by_the_idx_field(tmp_path):
    """TFDS shuffles the examples; their field idx is the line in the original file."""
    records = [Record('a', {'idx': i}) for i in (2, 0, 1)]
    predictions = [{'label': name, 'class_id': 0} for name in 'cab']
    prediction.write_predictions(tmp_path / 'out.tsv', records, predictions, use_class_ids=False)
    assert (tmp_path / 'out.tsv').read_text() == 'index\tprediction\n0\ta\n1\tb\n2\tc\n'


def test_glue_index_counts_invalid_lines(tmp_path, classifier):
    (tmp_path / 'in.jsonl').write_text('{"text": "the good dog"}\n{\n{"text": "the bad dog"}\n')
    done = predict(
        f'--checkpoint={classifier}', f'--input={tmp_path / "in.jsonl"}', f'--output={tmp_path / "o.tsv"}'
    )
    assert done.returncode == 1
    assert (tmp_path / 'o.tsv').read_text() == 'index\tprediction\n0\tgood\n2\tbad\n'


def test_output_is_kept_if_no_record_is_valid(tmp_path, classifier):
    (tmp_path / 'in.jsonl').write_text('{"body": "x"}\n')
    (tmp_path / 'o.jsonl').write_text('before')
    done = predict(
        f'--checkpoint={classifier}', f'--input={tmp_path / "in.jsonl"}', f'--output={tmp_path / "o.jsonl"}'
    )
    assert done.returncode == 1
    assert 'nothing was written' in done.stderr
    assert (tmp_path / 'o.jsonl').read_text() == 'before'


def test_records_incompatible_with_the_first_are_skipped():
    """All multiple-choice records need the same number of endings."""

    class Task:
        def make_examples(self, records, with_labels):
            if len({r.fields['n'] for r in records}) > 1:
                raise UserError(f'{records[-1].location} differs from the first.')
            return [r.fields['n'] for r in records]

    predictor = object.__new__(prediction.Predictor)
    predictor.task = Task()
    records = [Record('a', {'n': 2}), None, Record('b', {'n': 3}), Record('c', {'n': 2})]
    assert predictor._make_examples(records) == ([0, 3], [2, 2])


def test_repeated_question_ids_are_logged(tmp_path, caplog):
    predictions = [{'id': 'a', 'answer': 'x'}, {'id': 'a', 'answer': 'y'}]
    prediction.write_predictions(
        tmp_path / 'out.json', [Record('r', {})] * 2, predictions, use_class_ids=False
    )
    assert '1 questions repeat the id' in caplog.text


def test_invalid_idx_raises(tmp_path):
    with pytest.raises(UserError, match="line 1, has 'x' in the field idx, which is not a whole number"):
        prediction.write_predictions(
            tmp_path / 'o.tsv',
            [Record('line 1,', {'idx': 'x'})],
            [{'label': 'a', 'class_id': 0}],
            use_class_ids=False,
        )
    assert not (tmp_path / 'o.tsv').exists()


def test_pretrained_model_cannot_predict(pretrained):
    with pytest.raises(UserError, match="task 'mlm', which makes no predictions"):
        prediction.Predictor(str(pretrained))


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (('--input=no.jsonl', '--output=o.jsonl'), '--input=no.jsonl does not exist'),
        (('--input=/no/x.txt', '--output=o.jsonl'), '--input=/no/x.txt does not exist'),
        (('--input=tests', '--output=o.jsonl'), '--input=tests is a folder'),
        (('--question=why?', '--context=README.md'), 'cannot answer questions'),
        (('--input=x.jsonl',), '--input and --output need each other'),
        (('--input=README.md', '--output=o.jsonl'), "'README.md' has an unknown format"),
        (('--input=glue/sst2', '--output=o.txt'), '--output=o.txt has an unknown format'),
        (('--input={existing}', '--output={existing}'), 'would overwrite --input'),
        (('--input={existing}', '--output=o.jsonl'), 'has no records'),
    ],
)
def test_invalid_flags_raise(tmp_path, classifier, flags, message):
    existing = tmp_path / 'empty.jsonl'
    existing.write_text('')
    done = predict(f'--checkpoint={classifier}', *(flag.format(existing=existing) for flag in flags))
    assert done.returncode != 0
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
