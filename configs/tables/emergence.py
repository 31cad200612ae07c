"""When is what learned? Checkpoints along one pretraining run: loss, grammar, downstream tasks, alignment of languages.

python -m bert_jax.bin.table --config=configs/tables/emergence.py --jobs=2 \
    --config.text=encyclopedia_en.txt.gz,dialogue_en.txt.gz,novels_en.txt.gz
python -m bert_jax.bin.table --config=configs/tables/emergence.py:bilingual --config.text=novels_en.txt.gz

The run is that of reference.py:encoder,cpu, or of bilingual.py with a constant learning rate. Each cell but the loss, BLiMP and
alignment is a fine-tuning from a checkpoint. The figure shows the scores by the number of tokens that the model has read. Expect
parts of speech first, agreement second, and an alignment of the languages only late (docs/results/emergence.md). The first table
takes two hours on two cores, the bilingual one 100 minutes on two slower cores that also do other work.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config
from configs.tables import ablation

STEPS = {
    'english': (250, 500, 1000, 2000, 4000, 6000, 8000, 11_000),
    'bilingual': (50, 100, 200, 400, 800, 1600, 3200, 6400),
}
RUNS = {
    'english': dict(config='configs/pretrain/reference.py:encoder,cpu', settings=('data.sources={text}',)),
    'bilingual': dict(
        config='configs/pretrain/bilingual.py',
        settings=(
            'data.sources={text}',
            'optim.schedule=constant',
            'optim.decay_shape=linear',
            'optim.warmup=50',
            'checkpoint.every=50',
            'checkpoint.keep=1000',
            'train.eval_every=0',
            'train.steps=6400',
        ),
    ),
}
FINE_TUNING = ('optim.learning_rate=1e-3', ablation.BUCKETS, 'train.eval_every=0', 'checkpoint.every=1.0')
# The phenomena of BLiMP, by their names in its field linguistics_term, in three panels of the figure.
PHENOMENA = {
    'morphology': (
        'anaphor_agreement',
        'determiner_noun_agreement',
        'irregular_forms',
        'subject_verb_agreement',
    ),
    'syntax': ('argument_structure', 'ellipsis', 'filler_gap_dependency', 'island_effects'),
    'semantics': ('binding', 'control_raising', 'npi_licensing', 'quantifiers', 's-selection'),
}


def get_config(arg: str = 'english') -> ConfigDict:
    """`arg` is english, or bilingual (a language and its fake copy)."""
    check_argument(arg, tuple(STEPS))
    config = new_config()
    config.title = 'What is learned when'
    config.x_label = 'tokens read, millions'
    *earlier, last = (f'{steps:,} steps' for steps in STEPS[arg])
    config.rows = tuple(
        dict(
            name=name,
            x=_tokens(arg, steps) / 1e6,
            **(RUNS[arg] if name == last else dict(run=last, step=steps)),
        )
        for name, steps in zip((*earlier, last), STEPS[arg], strict=True)
    )
    if arg == 'bilingual':
        config.description = (
            'Loss: nats per token of the real language, 15 % masked. Words: mean reciprocal rank of the fake copy of a word. '
            'Sentences: share whose fake copy is nearest. Percent, at the best layer. Mean ± standard deviation (number of runs).'
        )
        config.seeds = 3
        alignment = dict(format='percent', panel='alignment')
        config.columns = (
            dict(ablation.masked_loss(), settings=('eval.length=64',)),
            dict(name='words', config='bin/study_language.py', score='word_alignment', **alignment),
            dict(name='sentences', source_column='words', score='sentence_retrieval', **alignment),
        )
    else:
        config.description = (
            'Loss: nats per token, 15 % masked. BLiMP and its phenomena: 50 pairs of each of 67 sets. STS-B: mean of Pearson and '
            'Spearman correlation of a regression, and Spearman correlation of the cosine similarities of vectors. Tags: accuracy '
            'after fine-tuning, and with only the classifier trained. Percent but for the loss.'
        )
        config.columns = _columns()
    return config


def _tokens(arg: str, steps: int) -> int:
    """Return the number of tokens that a run has read; the batch of the English one doubles after 4,000 steps."""
    return 64 * 64 * steps if arg == 'bilingual' else 2048 * (steps + max(0, steps - 4000))


def _columns() -> tuple[dict, ...]:
    tags = dict(config='configs/finetune/pos.py:en_ewt', format='percent', panel='parts of speech')
    similarity = dict(settings=(*FINE_TUNING, 'train.steps="2 epochs"'), format='percent', panel='similarity')
    return (
        ablation.masked_loss(),
        ablation.blimp('mini'),
        *(
            dict(
                name=name.replace('_', ' '),
                source_column=ablation.BLIMP,
                score=f'accuracy/{name}',
                format='percent',
                panel=f'BLiMP, {field}',
            )
            for field, names in PHENOMENA.items()
            for name in names
        ),
        dict(
            name='STS-B',
            config='configs/finetune/glue.py:stsb',
            score='correlation',
            **similarity,
        ),
        dict(
            name='STS-B, vectors',
            config='configs/finetune/embed.py:stsb',
            score='spearman',
            **similarity,
        ),
        dict(name='tags', settings=(*FINE_TUNING, *ablation.LIMIT_5K), **tags),
        dict(
            name='tags, probe',
            settings=(
                *FINE_TUNING,
                *ablation.LIMIT_5K,
                "optim.frozen=('bert/',)",
                'optim.learning_rate=1e-2',
            ),
            **tags,
        ),
    )
