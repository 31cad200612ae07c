"""Small tables and the records of their runs, for tests."""

import json

from bert_jax.experiments.tables import Column, Row, Table
from tests.runs import TINY

PRETRAIN, CLASSIFY = f'{TINY}:pretrain', f'{TINY}:classify'


def make_table(**changes):
    rows = (
        Row('one way', PRETRAIN, ('data.length=16',)),
        Row('No way', PRETRAIN, skipped_columns={'Loss': 'cannot'}, weights='random'),
    )
    columns = (
        Column('Share', CLASSIFY, 'accuracy', format='percent'),
        Column('Loss', CLASSIFY, 'loss', format='exp'),
    )
    defaults = dict(title='T', description='', rows=rows, columns=columns, seeds=2)
    return Table(**{**defaults, **changes})


def table_of_one_checkpoint(**changes):
    rows = (Row('pretrained'), Row('random', weights='random'))
    columns = (
        Column('Share', CLASSIFY, format='percent'),
        Column('Updates', source_column='Share', until_score_of='random'),
    )
    return make_table(rows=rows, columns=columns, checkpoint='runs/x', baseline='random', **changes)


def write_run(table, workdir, name, *curve, **scores):
    """Write a finished run of a table, with its final scores, or with the accuracy of each evaluation."""
    folder = workdir / name
    folder.mkdir(parents=True)
    sections = {name: {} for name in ('data', 'model', 'train', 'init', 'checkpoint')}
    (folder / 'config.json').write_text(json.dumps(sections))
    lines = [{'step': i, 'eval/accuracy': v} for i, v in enumerate(curve, 1)]
    lines = lines or [{'step': 9} | {f'eval/{k}': v for k, v in scores.items()}]
    text = ''.join(json.dumps({'eval/loss': 1.0} | line) + '\n' for line in lines)
    (folder / 'metrics.jsonl').write_text(text)
    finish(next(job for job in table.jobs(workdir) if job.folder == folder))


def finish_with_scores(job, file='scores.json', **scores):
    """Write what an evaluation or a study has written when it has run."""
    job.folder.mkdir(parents=True)
    (job.folder / file).write_text(json.dumps({'source': 'x', 'split': 'test', 'scores': scores}))
    finish(job)


def finish(job):
    """Write the records of a job that has run."""
    job.mark_started()
    job.mark_finished()
