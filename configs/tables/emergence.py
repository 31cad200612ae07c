"""When is what learned? Checkpoints along one pretraining run: loss, grammar, downstream tasks, alignment of languages.

python -m bert_jax.bin.table --config=configs/tables/emergence.py --jobs=2 \
    --config.text=encyclopedia_en.txt.gz,dialogue_en.txt.gz
python -m bert_jax.bin.table --config=configs/tables/emergence.py:bilingual --config.text=novels_en.txt.gz

A run of cpu.py:modern with a constant learning rate and 30 % masked, or of bilingual.py, is evaluated after 25, 50, 100 steps
and so on. Each cell but the loss and BLiMP is a fine-tuning from that checkpoint. The figure shows the scores by the number of
tokens that the model has read. The tables have not been run.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config
from configs.tables import ablation

STEPS = {
    'english': (25, 50, 100, 200, 400, 800, 1600, 3200),
    'bilingual': (50, 100, 200, 400, 800, 1600, 3200, 6400),
}
TOKENS_PER_STEP = {'english': 32 * 128, 'bilingual': 64 * 64}
KEPT = ('optim.schedule=constant', 'optim.decay_shape=linear', 'optim.warmup=50', 'checkpoint.keep=1000')
FINE_TUNING = (ablation.RATE, ablation.BUCKETS, 'train.eval_every=0', 'checkpoint.every=1.0')
# The phenomena of BLiMP, by their names in its field linguistics_term.
PHENOMENA = (
    'anaphor_agreement', 'argument_structure', 'binding', 'control_raising', 'determiner_noun_agreement', 'ellipsis',
    'filler_gap_dependency', 'irregular_forms', 'island_effects', 'npi_licensing', 'quantifiers', 's-selection',
    'subject_verb_agreement',
)  # fmt: skip


def get_config(arg: str = 'english') -> ConfigDict:
    """`arg` is english, or bilingual (a language and its fake copy)."""
    check_argument(arg, tuple(STEPS))
    config = new_config()
    config.title = 'What is learned when'
    config.x_label = 'tokens read, millions'
    config.seeds = 3
    *earlier, last = (f'{steps:,} steps' for steps in STEPS[arg])
    config.rows = tuple(
        dict(
            name=name,
            x=steps * TOKENS_PER_STEP[arg] / 1e6,
            **(_run(arg) if name == last else dict(run=last, step=steps)),
        )
        for name, steps in zip((*earlier, last), STEPS[arg], strict=True)
    )
    if arg == 'bilingual':
        config.description = (
            'Words: mean reciprocal rank of the fake copy of a word. Sentences: share whose fake copy is nearest. Percent, at '
            'the best layer.'
        )
        config.columns = (
            dict(name='words', config='bin/study_language.py', score='word_alignment', format='percent'),
            dict(name='sentences', source_column='words', score='sentence_retrieval', format='percent'),
        )
    else:
        config.description = (
            'Loss: nats per token, 15 % masked. BLiMP and its phenomena: 50 pairs of each of 67 sets. STS-B: mean of Pearson and '
            'Spearman correlation. Tags: accuracy after fine-tuning, and with only the classifier trained. Percent but for the '
            'loss.'
        )
        config.columns = _columns()
    return config


def _run(arg: str) -> dict:
    """Return the run whose checkpoints are compared."""
    first, last = STEPS[arg][0], STEPS[arg][-1]
    settings = ['data.sources={text}', *KEPT, f'checkpoint.every={first}', 'train.eval_every=0']
    if arg == 'bilingual':
        return dict(config='configs/pretrain/bilingual.py', settings=(*settings, f'train.steps={last}'))
    settings += ['optim.name=adamw', f"train.phases=(({last}, 128, 32, 'task.mask_rate=0.3'),)"]
    return dict(config='configs/pretrain/cpu.py:modern', settings=tuple(settings))


def _columns() -> tuple[dict, ...]:
    tags = dict(config='configs/finetune/pos.py:en_ewt', format='percent')
    return (
        ablation.masked_loss(),
        ablation.blimp('mini'),
        *(
            dict(
                name=name.replace('_', ' '),
                source_column=ablation.BLIMP,
                score=f'accuracy/{name}',
                format='percent',
            )
            for name in PHENOMENA
        ),
        dict(
            name='STS-B',
            config='configs/finetune/glue.py:stsb',
            score='correlation',
            settings=(*FINE_TUNING, 'train.steps="2 epochs"'),
            format='percent',
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
