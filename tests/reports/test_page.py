"""Report page: runs that differ only in their seed become one curve and one line, with mean and standard deviation."""

import dataclasses
import json
import re
from html import escape

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.experiments import runs
from bert_jax.reports import export, page, plots


def run(
    name,
    seed=0,
    limit=0,
    weights='pretrained',
    accuracy=0.5,
    steps=(10, 20, 30),
    source='glue/sst2',
    eval_files=(),
    checkpoint='runs/bert',
    **data,
):
    config = {
        'data': {'source': source, 'limit': limit, **data},
        'checkpoint': {'best_metric': 'accuracy'},
        'init': {'checkpoint': checkpoint, 'weights': weights},
        'train': {'seed': seed, 'batch_size': 8},
    }
    train = [{'step': s, 'loss': 1 / s + seed} for s in steps]
    evals = [{'step': steps[-1], 'loss': 0.6, 'accuracy': accuracy}]
    return runs.Run(name, config, train, evals, eval_files)


def rows(html):
    """The cells of all tables, line by line."""
    lines = [line.split('</tr>')[0] for line in html.split('<tr>')[1:]]
    return [[c.split('>')[-1] for c in line.split('</t')[:-1]] for line in lines]


def test_runs_that_differ_only_in_their_seed_share_a_line(tmp_path):
    pretrained = [run(f'few_{i}', seed=i, accuracy=a) for i, a in enumerate((0.7, 0.8, 0.9))]
    random = [run(f'none_{i}', seed=i, weights='random', accuracy=0.6) for i in range(2)]
    found = rows(page.render([*pretrained, *random], plots=tmp_path / 'plots'))
    assert found[0] == ['run', 'step', 'n', 'loss', 'accuracy']
    assert found[1] == ['few: pretrained weights', '30', '3', '0.6000 ± 0.0000', '0.8000 ± 0.1000']
    assert found[2] == ['none: random weights', '30', '2', '0.6000 ± 0.0000', '0.6000 ± 0.0000']
    assert len(found) == 3
    (plot,) = (tmp_path / 'plots').iterdir()
    assert plot.name == 'fine_tuning_on_glue_sst2.png'
    assert plot.read_bytes().startswith(b'\x89PNG')


def test_names_of_figures_have_no_folders(tmp_path):
    sources = ('/home/me/reviews/{split}.csv', '/data/reviews/{split}.csv', './toy.csv', 'glue/sst2')
    page.render([run(source, source=source) for source in sources], plots=tmp_path)
    assert {plot.name for plot in tmp_path.iterdir()} == {
        'loss_and_score_of_all_tasks.png',
        'fine_tuning_on_reviews.png',
        'fine_tuning_on_reviews_2.png',
        'fine_tuning_on_toy_csv.png',
        'fine_tuning_on_glue_sst2.png',
    }


def test_single_run_has_no_spread():
    assert rows(page.render([run('one', accuracy=0.75)]))[1] == [
        'one: pretrained weights',
        '30',
        '0.6000',
        '0.7500',
    ]


def test_numbers_of_labels_have_separate_sections():
    html = page.render([run('few', limit=500), run('all')])
    assert [h.split('<')[0] for h in html.split('<h2>')[1:]] == [
        'All tasks',
        'Fine-tuning: glue/sst2, 500 examples',
        'Fine-tuning: glue/sst2',
    ]


def test_curve_has_the_steps_common_to_all_runs():
    started = runs.Run('c', run('c').config, [], [])
    group = [run('a', 0, steps=(10, 20, 30)), run('b', 1, steps=(20, 30, 40)), started]
    curve = plots.Curve('few', group, 'loss')
    steps, values = curve.values('train')
    assert steps == [20, 30]
    np.testing.assert_allclose(values, [[1 / 20, 1 / 30], [1 / 20 + 1, 1 / 30 + 1]])
    assert curve.values('evals')[0] == []
    assert plots.Curve('none', [started], 'loss').values('train')[0] == []


@pytest.mark.parametrize('n', [1, 2, 3, 41])
def test_smoothing_keeps_the_length(n):
    assert len(plots.smooth(np.arange(float(n)))) == n


def test_smoothing_preserves_a_straight_line():
    line = np.arange(100.0)
    np.testing.assert_allclose(plots.smooth(line)[10:-10], line[10:-10])


def test_all_tasks_share_a_table_and_a_figure(tmp_path):
    other = [
        runs.EvalFile('xnli', 'test', 9, {}, {'accuracy': 0.4, 'confusion': []}),
        runs.EvalFile('nli_small', 'validation', 9, {}, {'accuracy': 0.5}),
    ]
    found = [
        *(
            run('a', seed, weights=w, accuracy=v)
            for w, v in (('random', 0.5), ('pretrained', 0.75))
            for seed in (0, 1)
        ),
        run('b', source='nli_small', eval_files=other),
    ]
    html = page.render(found, plots=tmp_path)
    assert rows(html)[:4] == [
        ['evaluation data', 'score', 'random weights', 'pretrained weights', 'difference', 'n'],
        ['glue/sst2', 'accuracy', '0.5000 ± 0.0000', '0.7500 ± 0.0000', '+0.2500', '2'],
        ['nli_small', 'accuracy', '', '0.5000', '', '1'],
        ['xnli, test', 'accuracy', '', '0.4000', '', '1'],
    ]
    assert (tmp_path / 'loss_and_score_of_all_tasks.png').read_bytes().startswith(b'\x89PNG')
    assert 'All tasks' not in page.render(found[:4])


def test_seeds_with_their_own_pretraining_share_a_line():
    made = [
        run(f'{name}/seed{i}', seed=i, accuracy=a, checkpoint=f'runs/{name}/seed{i}')
        for name, scores in (('a', (0.7, 0.8, 0.9)), ('b', (0.5, 0.6)))
        for i, a in enumerate(scores)
    ]
    assert [line[2:5:2] for line in rows(page.render(made))[1:3]] == [
        ['3', '0.8000 ± 0.1000'],
        ['2', '0.5500 ± 0.0707'],
    ]


def test_languages_of_a_data_set_have_separate_lines():
    def file(language, accuracy, step=9):
        config = {'text': f'premise.{language}', 'text_pair': f'hypothesis.{language}', 'label': 'label'}
        return runs.EvalFile('xnli', 'test', step, config, {'accuracy': accuracy})

    made = [
        run(
            f'nli_{i}',
            seed=i,
            source='nli_small',
            eval_files=[file('de', 0.1, 3), file('en', 0.8), file('de', a)],
        )
        for i, a in enumerate((0.5, 0.7))
    ]
    made += [run(language, source='multi30k', text='en', target=language) for language in ('de', 'fr')]
    lines = rows(page.render(made))
    assert [line[:1] + line[3:4] for line in lines[1:6]] == [
        ['nli_small', '0.5000 ± 0.0000'],
        ['xnli, test, text=premise.de', '0.6000 ± 0.1414'],
        ['xnli, test, text=premise.en', '0.8000 ± 0.0000'],
        ['multi30k, target=de', '0.5000'],
        ['multi30k, target=fr', '0.5000'],
    ]


def test_pretraining_in_phases_lists_each_phase_up_to_the_last_step():
    made = run('bert', length=512)
    made.config['train'] |= {'phases': [[900, 128, 256], [100, 512, 64]], 'batch_size': 32}
    for steps, text in (
        ([500], '500 steps of 256 rows of 128 tokens'),
        ([950], '900 steps of 256 rows of 128 tokens, then 50 steps of 64 rows of 512 tokens'),
        ([], '0 steps of 256 rows of 128 tokens'),
    ):
        assert page._describe_phases(runs.Run('bert', made.config, [{'step': s} for s in steps], [])) == text
    made.config['train']['phases'] = []
    assert page._describe_phases(made) == '30 steps of 32 rows of 512 tokens'


def test_comparison_takes_the_best_setting():
    def group(batch, scores):
        made = [run(f'r{batch}', seed=i, accuracy=a) for i, a in enumerate(scores)]
        for r in made:
            r.config['train']['batch_size'] = batch
        return made

    found = rows(page.render([*group(16, (0.5, 0.7)), *group(32, (0.8, 0.9)), run('x', source='other')]))
    assert found[1][:1] + found[1][3:] == ['glue/sst2', '0.8500 ± 0.0707', '', '2']


@pytest.mark.parametrize(('metric', 'best'), [('squared_error', '0.2000'), ('accuracy', '0.6000')])
def test_comparison_knows_of_which_scores_lower_is_better(metric, best):
    made = [run(f'r{i}', accuracy=x) for i, x in enumerate((0.2, 0.6))]
    for i, r in enumerate(made):
        r.config['train']['batch_size'] = i
        r.config['checkpoint']['best_metric'] = metric
        r.evals[-1][metric] = r.evals[-1]['accuracy']
    assert rows(page.render([*made, run('x', source='other')]))[1][3] == best


def test_label_does_not_end_inside_a_number():
    names = [rows(page.render([run(f'a_{i}', seed=i) for i in seeds]))[1][0] for seeds in ((10, 11), (1, 2))]
    assert names == ['a: pretrained weights'] * 2


def test_run_without_metrics_is_rendered(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps({**run('one').config, 'model': {}}))
    started = runs.read(tmp_path, 'two')
    assert rows(page.render([run('one', weights='random'), started]))[2][:2] == [
        'two: pretrained weights',
        '',
    ]


@pytest.mark.parametrize('text', ['[1]', '{"data": {}}', 'no', '{"data": "x", "model": {}}'])
def test_config_of_another_program_is_an_error(tmp_path, text):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(UserError, match=r'config\.json'):
        runs.read(tmp_path)


def test_find_names_runs_by_their_path(tmp_path):
    config = {**run('one', source='x').config, 'model': {}}
    for place in ('baseline/seed0', 'baseline/seed1', 'batch_size=16/seed0'):
        folder = tmp_path / 'mrpc' / place
        folder.mkdir(parents=True)
        (folder / 'config.json').write_text(json.dumps(config))
        (folder / 'metrics.jsonl').write_text('{"step": 1, "loss": 2.0}\n{"step": 1, "eval/loss": 3.0}\n')
        (folder / 'scores.json').write_text('{"source": "x", "split": "test", "scores": {"f1": 0.5}}')
    found = runs.find(tmp_path / 'mrpc')
    assert [r.name for r in found] == [
        'mrpc/baseline/seed0',
        'mrpc/baseline/seed1',
        'mrpc/batch_size=16/seed0',
    ]
    assert found[0].evals == [{'step': 1, 'loss': 3.0}]
    assert found[0].eval_files == [runs.EvalFile('x', 'test', 0, {}, {'f1': 0.5})]
    assert [r.name for r in runs.find(tmp_path / 'mrpc/baseline/seed1')] == ['seed1']
    (tmp_path / 'empty').mkdir()
    for place in ('empty', 'nowhere'):
        with pytest.raises(UserError, match='run'):
            runs.find(tmp_path / place)


def test_page_shows_tables_and_studies(tmp_path):
    lines = [['', 'A & B'], ['one', '1 < 2']]
    text = f'# A table\n\nWhat it is.\n\n{export.to_markdown(lines)}\nA note\nand another\n'
    fig = plots.pyplot().figure()
    export.write(tmp_path / 'x', 'study', text, lines, fig, {'a': 1})
    (tmp_path / 'notes.md').write_text('# Not a table')
    (file,) = export.find(tmp_path)
    html = page.render([], files=[file])
    assert rows(html) == [['', 'A &amp; B'], ['one', '1 &lt; 2']]
    assert '<h2>A table</h2><p>What it is.</p>' in html
    assert 'A note<br>and another' in html
    assert 'data:image/png;base64' in html
    assert json.loads((tmp_path / 'x/study.json').read_text()) == {'a': 1}


def test_setting_whose_scores_are_not_finite_is_not_the_best():
    made = [run(f'r{i}', accuracy=x) for i, x in enumerate((np.nan, 0.6, 0.2))]
    for i, r in enumerate(made):
        r.config['train']['batch_size'] = i
    assert rows(page.render([*made, run('x', source='other')]))[1][3] == '0.6000'


def test_earlier_results_and_files_of_other_programs_are_skipped(tmp_path, caplog):
    text = json.dumps({**run('one').config, 'model': {}})
    for place, content in (
        ('seed0', text),
        ('seed0.earlier1', text),
        ('hf', '{"architectures": ["BertModel"]}'),
        ('damaged', '{'),
    ):
        (tmp_path / place).mkdir()
        (tmp_path / place / 'config.json').write_text(content)
        export.write(tmp_path / place, 'study', '# Study', [['a']])
    assert [r.name for r in runs.find(tmp_path)] == [f'{tmp_path.name}/seed0']
    assert caplog.messages == [f'Skipped {tmp_path}/damaged/config.json, which cannot be read']
    assert runs.find(tmp_path / 'seed0.earlier1')[0].name == 'seed0.earlier1'
    assert f'{tmp_path}/seed0.earlier1/study.md' not in map(str, export.find(tmp_path))
    (tmp_path / 'config.json').write_text('{}')
    assert [r.name for r in runs.find(tmp_path)] == [f'{tmp_path.name}/seed0']


def test_record_of_a_run_is_shown():
    record = {
        'tokenizer': {'kind': 'bpe', 'lowercase': False, 'size': 50257, 'fingerprint': 'abc', 'source': 'x'},
        'data': [{'dataset': 'glue/sst2/2.0.0', 'split': 'train', 'examples': 67349}],
        'init': {'path': 'runs/a/checkpoints/20', 'step': 20, 'hash': 'def'},
        'starts': [
            {
                'step': 0,
                'command': "python 'a < b'",
                'commit': '123',
                'versions': {'jax': '0.10.2'},
                'devices': {'count': 8, 'kind': 'cpu', 'processes': 1},
            }
        ],
    }
    html = page.render([dataclasses.replace(run('one'), record=record)])
    for text in (
        'bpe, cased, 50,257 tokens, fingerprint abc, from x',
        'glue/sst2/2.0.0, split train, 67,349 examples',
        'runs/a/checkpoints/20, hash def',
        'python &#x27;a &lt; b&#x27;',
        '8 x cpu',
        'jax 0.10.2',
    ):
        assert f'<dd>{text}' in html


@pytest.mark.parametrize(
    'evil', ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', r'$\frac$ _{ ^']
)
def test_names_and_values_of_runs_are_shown_as_they_are(tmp_path, evil):
    record = {
        'tokenizer': dict(kind=evil, lowercase=True, size=1, fingerprint=evil, source=evil),
        'data': [dict(file=evil, bytes=1), dict(dataset=evil, split=evil, examples=1)],
        'init': dict(path=evil, hash=evil),
        'starts': [dict(step=0, command=evil, commit=evil, versions={evil: evil}, devices=dict(count=1, kind=evil, processes=1))],
    }  # fmt: skip
    fine_tuned = [run(f'{evil}{i}', seed=i, source=source) for i, source in enumerate((evil, 'glue/sst2'))]
    fine_tuned = [dataclasses.replace(r, record=record) for r in fine_tuned]
    config = {
        'task': {'name': evil}, 'data': {'sources': [evil]}, 'model': {'layers': evil, 'width': evil, 'vocab_size': 1},
        'train': {'phases': [[30, 8, 8, evil]]},
    }  # fmt: skip
    lines = [{'step': step, evil: 1.0, f'{evil}_loss': 1.0, 'tokens_per_second': 1.0} for step in (10, 20)]
    pretrained = runs.Run(evil, config, lines, lines, ())
    table = tmp_path / 'table.md'
    export.write(
        tmp_path, 'table', f'# {evil}\n\n{evil}\n\n' + export.to_markdown([[evil], [evil]]), [[evil], [evil]]
    )
    masks = [[(evil, 0.5)]]
    html = page.render([*fine_tuned, pretrained], [(evil, masks)], tmp_path / 'plots', [table])
    assert '<script' not in html
    assert html.count(str(escape(evil))) > 10
    assert all(image.startswith('<img alt="') for image in re.findall('<img[^>]*', html))


def test_figures_of_many_runs_show_the_best(tmp_path):
    many = [run(f'{i}', seed=j, limit=i + 1, accuracy=i / 100) for i in range(30) for j in range(2)]
    html = page.render(
        [
            dataclasses.replace(r, config=r.config | {'data': many[0].config['data'], 'optim': {'eps': i}})
            for i, r in enumerate(many)
        ]
    )
    assert 'The figure shows the 10 best of 60 settings.' in html
    assert len(rows(html)) == 1 + 60


def test_only_the_first_pretraining_runs_have_a_figure():
    config = {
        'task': {'name': 'mlm'}, 'data': {'sources': ['x']}, 'model': {'layers': 1, 'width': 1, 'vocab_size': 1},
        'train': {'phases': [[30, 8, 8]]},
    }  # fmt: skip
    lines = [{'step': 10, 'loss': 1.0, 'tokens_per_second': 1.0}]
    html = page.render([runs.Run(f'{i}', config, lines, lines, ()) for i in range(12)])
    assert html.count('<h2>Pretraining') == 12
    assert html.count('<img') == 10
