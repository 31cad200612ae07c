"""Model cards: the README.md of an exported folder, with the header that the Hugging Face Hub reads."""

import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax.data import formats, provenance
from bert_jax.data.prepare import TextConfig
from bert_jax.data.sources import parse_source
from bert_jax.train.experiment import Experiment
from bert_jax.train.load import TrainedModel

# Task of the Hub, class of transformers and purpose of each of our tasks.
_TASKS = {
    'mlm': ('fill-mask', 'AutoModelForMaskedLM', 'masked language modeling'),
    'bilingual': (
        'fill-mask',
        'AutoModelForMaskedLM',
        'masked language modeling in a language and its fake copy',
    ),
    'rtd': ('feature-extraction', 'AutoModelForPreTraining', 'detecting replaced tokens'),
    'clm': ('text-generation', 'AutoModelForCausalLM', 'language modeling'),
    'denoise': ('text2text-generation', 'AutoModelForSeq2SeqLM', 'restoring corrupted text'),
    'seq2seq': ('text2text-generation', 'AutoModelForSeq2SeqLM', 'generating a text from another'),
    'classify': ('text-classification', 'AutoModelForSequenceClassification', 'classifying texts'),
    'regress': ('text-classification', 'AutoModelForSequenceClassification', 'rating texts with a number'),
    'tag': ('token-classification', 'AutoModelForTokenClassification', 'labeling the words of a text'),
    'qa': ('question-answering', 'AutoModelForQuestionAnswering', 'finding answers in a text'),
    'choice': ('multiple-choice', 'AutoModelForMultipleChoice', 'choosing among endings of a text'),
    'embed': ('sentence-similarity', 'AutoModel', 'mapping texts to vectors'),
    'encode': ('feature-extraction', 'AutoModel', 'computing hidden states of texts'),
}


def make(
    name: str, trained: TrainedModel, metadata: Mapping[str, Any], hf_config: Mapping[str, Any], license: str
) -> str:
    """Write a model card: what the model is, how to use it, how it was trained, its scores and its tokenizer.

    Args:
      name: title of the card.
      trained: the exported model.
      metadata: metadata of its checkpoint, see `checkpoint.read_metadata`.
      hf_config: its `config.json`.
      license: identifier of its license on the Hub, such as 'apache-2.0'.

    Returns:
      Markdown with a YAML header.
    """
    experiment = trained.experiment
    tag, auto_class, purpose = _TASKS[experiment.task.name]
    library = 'sentence-transformers' if experiment.task.name == 'embed' else 'transformers'
    header = [f'library_name: {library}', f'license: {license}', f'pipeline_tag: {tag}']
    header += ['tags:', *(f'- {name}' for name in dict.fromkeys((hf_config['model_type'], 'bert_jax')))]
    num_params = sum(value.size for value in trained.params.values())
    model = experiment.model
    parts = [
        '\n'.join(['---', *header, '---']),
        f'# {name}',
        f'`{hf_config["architectures"][0]}` for {purpose}, with {model.num_blocks} layers of width {model.width}, '
        f'{num_params:,} parameters. Trained with bert_jax.',
        _embedding_usage(name, any(experiment.data.prompts))
        if experiment.task.name == 'embed'
        else _usage(name, auto_class),
    ]
    if labels := getattr(experiment.task, 'labels', ()):
        parts.append('## Labels\n\n' + ', '.join(f'`{label}`' for label in labels))
    parts.append('## Training\n\n' + _training(experiment, trained.step))
    if scores := {k: v for k, v in (metadata.get('scores') or {}).items() if isinstance(v, float)}:
        parts.append(f'## Scores\n\n{_evaluation_data(experiment)}\n\n{_table(("score", "value"), scores)}')
    about = provenance.describe_tokenizer(trained.tokenizer)
    case = 'lowercased' if about['lowercase'] else 'cased'
    parts.append(f'## Tokenizer\n\n{about["kind"]}, {about["size"]:,} tokens, {case}.')
    return '\n\n'.join(parts) + '\n'


def _usage(name: str, auto_class: str) -> str:
    return f"""## Use

```python
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained('{name}')
tokenizer = AutoTokenizer.from_pretrained('{name}')
```"""


def _embedding_usage(name: str, has_prompts: bool) -> str:
    calls = ["vectors = model.encode(['A text.', 'Another text.'])"]
    if has_prompts:
        calls = ["query = model.encode_query('A question?')", "passages = model.encode_document(['A text.'])"]
    code = ['from sentence_transformers import SentenceTransformer', '']
    code += [f"model = SentenceTransformer('{name}')", *calls]
    return '\n'.join(['## Use', '', '```python', *code, '```'])


def _training(experiment: Experiment, step: int) -> str:
    """Describe the training of a model that has been updated `step` times."""
    if not step:
        return 'The weights were converted, and not trained further.'
    c, init = experiment, experiment.init
    initial = 'random'
    if init.checkpoint and init.weights != 'random':
        initial = f'`{pathlib.PurePath(init.checkpoint).name}`'
    settings = {
        'data': _data_names(experiment),
        'initial weights': initial,
        'steps': f'{step:,}',
        'batches': '; '.join(
            ', '.join([f'{phase.batch_size:,} × {phase.length:,} tokens', *phase.settings])
            for phase in c.phases
        ),
        'optimizer': c.optim.name,
        'learning rate': f'{c.optim.learning_rate:g}, schedule {c.optim.schedule}, warmup {c.optim.warmup}',
        'weight decay': f'{c.optim.weight_decay:g}',
        'dropout': f'{c.model.dropout:g}',
        'type of activations': c.model.dtype,
        'seed': f'{c.train.seed}',
    }
    return _table(('setting', 'value'), settings)


def _evaluation_data(experiment: Experiment) -> str:
    """Say on what the scores were computed."""
    data = experiment.data
    if isinstance(data, TextConfig):
        return f'On text held out from {_data_names(experiment)}.'
    return f'On the split `{pathlib.PurePath(data.eval_split).name}` of {_data_names(experiment)}.'


def _data_names(experiment: Experiment) -> str:
    """Return the names of the data sets or files, without the folders of this machine."""
    data = experiment.data
    named = data.sources if isinstance(data, TextConfig) else (data.source,)
    sources = [parse_source(source)[1] for source in named]
    return ', '.join(f'`{pathlib.PurePath(s).name if formats.is_path(s) else s}`' for s in sources)


def _table(head: tuple[str, str], cells: Mapping[str, Any]) -> str:
    rows = [head, ('---', '---')]
    rows += [(name, f'{value:.4f}' if isinstance(value, float) else value) for name, value in cells.items()]
    return '\n'.join(f'| {name} | {value} |' for name, value in rows)
