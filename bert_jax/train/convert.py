"""Convert models of other libraries to checkpoints, and checkpoints to Hugging Face folders."""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.core import paths
from bert_jax.core.config import as_dict, did_you_mean
from bert_jax.core.errors import UserError, first_line
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_settings
from bert_jax.data.question_answering import QuestionConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.interop import files, huggingface, sentence_transformers, tokenizer_files
from bert_jax.interop.family import Family
from bert_jax.interop.output_embedding import find_tied_embeddings
from bert_jax.modeling import module
from bert_jax.train import checkpoint, load, model_card
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.experiment import Experiment

# Tasks that truncate a text to `data.length`.
_TRUNCATING = ('classify', 'regress', 'choice', 'seq2seq', 'embed')


def from_hf(source: str, workdir: pathlib.Path, tokenizer_path: str = '', exclude: Sequence[str] = ()) -> str:
    """Convert a Hugging Face model, one of sentence-transformers, or a TensorFlow checkpoint of BERT, to a checkpoint.

    Args:
      source: folder of the model, or its name on the Hugging Face Hub.
      workdir: new working directory for the checkpoint.
      tokenizer_path: a `vocab.txt` or `tokenizer.json`; empty uses the tokenizer in the folder.
      exclude: prefixes of the names of tensors to ignore, such as those of an unused pooler.

    Returns:
      The name of the task that the head of the model belongs to.

    Raises:
      UserError: if a tensor is missing or left over, or the config describes a model that bert_jax does not have.
    """
    if any((step / 'metadata').exists() for step in checkpoint.list_steps(workdir)):
        raise UserError(f'{str(workdir)!r} already contains a checkpoint. Choose another --to.')
    folder = files.find_folder(source)
    embedding = sentence_transformers.read_parts(folder)
    folder = embedding.folder if embedding else folder
    hf_config = files.read_config(folder)
    tensors = files.read_tensors(folder)
    for prefix in exclude:
        if not any(name.startswith(prefix) for name in tensors):
            raise UserError(
                f'No tensor of {str(folder)!r} begins with {prefix!r}: {did_you_mean(prefix, tensors)} Correct --exclude.'
            )
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(exclude))}
    try:
        if not hf_config.get('model_type'):
            hf_config['model_type'] = huggingface.infer_model_type(tensors)
        if not hf_config.get('architectures'):
            hf_config['architectures'] = [huggingface.infer_architecture(hf_config, tensors)]
        if huggingface.is_saved_without_head(hf_config, tensors):
            logging.warning(
                'the weights are those of an encoder without the head of %s', *hf_config['architectures']
            )
            hf_config['architectures'] = ['Model']
        family, task_name = huggingface.family_and_task(hf_config)
        hf_config = {**find_tied_embeddings(hf_config, tensors)}
        model = huggingface.to_model_config(hf_config)
    except UserError:
        raise
    except Exception as e:  # a value may have any wrong type
        raise UserError(
            f'The config of {str(folder)!r} is invalid ({first_line(e)}). Fix its config.json.'
        ) from e
    task = {'name': task_name, **_task_settings(task_name, family, hf_config, tensors)}
    if embedding and task_name == 'encode':
        task_name, task = 'embed', _embed_task(embedding)
        tensors = _remove_pooler(tensors, family)
    data = _data_settings(task_name, folder, model, embedding)
    sections = {'task': task, 'data': data, 'model': {'name': family.model, **as_dict(model)}}
    try:
        tokenizer = tokenizer_lib.load(tokenizer_path or folder)
    except UserError as e:
        raise UserError(str(e).replace('tokenizer.path', '--tokenizer')) from e
    if embedding and embedding.lowercase and not tokenizer.lowercase:
        raise UserError(
            f'{source!r} lowercases texts before it tokenizes them, which its tokenizer does not. Set a tokenizer that does as '
            '--tokenizer.'
        )
    if task_name == 'denoise' and tokenizer.sentinels:  # T5 has no mask token
        task |= {'noise': ('spans',), 'rate': 0.15}
    _warn_of_mismatch(hf_config, model, tokenizer)
    _log_unread(hf_config, tensors, workdir)
    experiment = experiment_lib.complete(experiment_lib.from_config(sections), tokenizer)
    head = experiment.make_task(tokenizer)
    _, shapes, _ = module.abstract(lambda rngs: head.build_model(experiment.model, rngs))
    theirs = {n: s.shape for n, s in shapes.items() if not n.startswith('projection/')}
    params = huggingface.from_tensors(tensors, hf_config, theirs) | _dense_params(embedding)
    metadata = {'config': experiment.as_dict(), 'tokenizer': json.loads(tokenizer.to_json())}
    checkpoint.write_params(workdir, jax.tree.map(jax.numpy.asarray, params), metadata)
    num_params = sum(p.size for p in params.values())
    logging.info('converted %s parameters (%d tensors) from %s', f'{num_params:,}', len(tensors), folder)
    return task_name


def _data_settings(
    task_name: str, folder: pathlib.Path, model: Any, embedding: sentence_transformers.Parts | None
) -> dict[str, Any]:
    """Return the settings of the data of a converted model, as far as they are known."""
    longest = model.max_positions
    if task_name in ('mlm', 'clm', 'denoise'):
        return {'sources': (), 'length': longest}
    if embedding and task_name == 'embed':
        prompts = {'texts': ('query', 'passage'), 'prompts': embedding.prompts} if embedding.prompts else {}
        return {'length': min(embedding.length or longest, longest), **prompts}
    if task_name in ('classify', 'regress', 'tag', 'choice'):
        return {'length': _max_length(folder, task_name, longest)}
    if task_name == 'qa' and model.longest_row < QuestionConfig.length:
        return QuestionConfig().settings_for_length(longest)
    return {}


def _embed_task(parts: sentence_transformers.Parts) -> dict[str, Any]:
    """Return the settings of the task of a model of sentence-transformers."""
    task: dict[str, Any] = {'name': 'embed', 'pooling': parts.pooling}
    if parts.dense:
        task |= {'output_width': len(parts.dense.bias), 'output_activation': parts.dense.activation}
    return task


def _dense_params(parts: sentence_transformers.Parts | None) -> dict[str, np.ndarray]:
    """Return the parameters of the dense layer, if there is one."""
    if parts is None or parts.dense is None:
        return {}
    return {'projection/kernel': parts.dense.kernel, 'projection/bias': parts.dense.bias}


def _remove_pooler(tensors: Mapping[str, np.ndarray], family: Family) -> dict[str, np.ndarray]:
    """Remove the tensors of the pooler, which embeddings do not use."""
    pooler = f'{family.base_modules.get("pooler", "-")}.'
    return {k: v for k, v in tensors.items() if not k.removeprefix(family.prefix).startswith(pooler)}


def _warn_of_mismatch(hf_config: dict[str, Any], model: Any, tokenizer: Tokenizer) -> None:
    """Warn of a tokenizer that seems to belong to another model than that of a `config.json`."""
    task_name = huggingface.family_and_task(hf_config)[1]
    if len(tokenizer) < model.vocab_size - model.pad_vocab_multiple:
        logging.warning(
            'The vocabulary of the model has %d tokens, but that of the tokenizer has only %d. '
            'Check that the tokenizer belongs to the model.',
            model.vocab_size,
            len(tokenizer),
        )
    if task_name in ('clm', 'denoise') and huggingface.end_token(hf_config) != tokenizer.sep:
        logging.warning(
            'config.json ends texts with the token %s, but the tokenizer with %d, which generation here follows. '
            'Check that the tokenizer belongs to the model.',
            huggingface.end_token(hf_config),
            tokenizer.sep,
        )
    start = huggingface.decoder_start_token(hf_config)
    if start not in (None, tokenizer.decoder_start):
        logging.warning(
            'config.json begins generated texts with the token %s, but generation here begins with %d. '
            'Check that the tokenizer belongs to the model.',
            start,
            tokenizer.decoder_start,
        )


def _task_settings(
    task_name: str, family: Family, hf_config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return the settings of the task that the names of tensors and classes imply."""
    if task_name == 'mlm':
        head = family.head_modules['mlm'].get('next_sentence', '-')
        has_head = any(key.startswith(f'{head}.') for key in tensors)
        return {'sentence_objective': family.sentence_objective if has_head else 'none'}
    if task_name == 'encode':
        pooler = f'{family.base_modules.get("pooler", "-")}.weight'
        return {'pooler': any(key.removeprefix(family.prefix) == pooler for key in tensors)}
    return {'labels': huggingface.class_names(hf_config)} if task_name in ('classify', 'tag') else {}


def _log_unread(
    hf_config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], workdir: pathlib.Path
) -> None:
    """Log the tensors and the dropout rates of a Hugging Face model that are not read."""
    for start, use in huggingface.unread_tensors(hf_config, tensors).items():
        logging.warning(
            'The head that %s (%s*) is not converted, only the encoder. Fine-tune it with --config.init.checkpoint=%s.',
            use,
            start,
            workdir,
        )
    if unread := huggingface.unread_dropout(hf_config):
        logging.info('these dropout rates are not read, which matters only in training: %s', unread)


def log_export_limits(experiment: Experiment, tokenizer: Tokenizer) -> None:
    """Log why a new model cannot be exported to Hugging Face, and the settings with which it could be."""
    try:
        huggingface.export_model_type(
            _exported_model(experiment), tokenizer, _has_next_sentence(experiment.task)
        )
    except UserError as e:
        logging.info('%s', e)


def to_hf(source: pathlib.Path, folder: pathlib.Path, license: str = 'unknown', part: str = '') -> None:
    """Convert a checkpoint to a folder that the transformers library loads, with a model card.

    Args:
      source: working directory, or the folder of one step.
      folder: new folder for the model.
      license: identifier of its license on the Hugging Face Hub, for the model card.
      part: 'discriminator' or 'generator' of a run of replaced-token detection; empty is the discriminator.

    Raises:
      UserError: if transformers has no equivalent model, or the folder is not empty.
    """
    paths.check_new_folder(folder, '--to_hf')
    trained = load.read_part(source, part)
    experiment, tokenizer = trained.experiment, trained.tokenizer
    task, model = experiment.task, _exported_model(experiment)
    has_next_sentence = _has_next_sentence(task)
    labels = getattr(task, 'labels', ())
    their_task = 'encode' if task.name == 'embed' else task.name
    if task.name == 'embed':
        labels = ()
    hf_config = huggingface.to_hf_config(model, their_task, labels, tokenizer, has_next_sentence)
    params = {name: np.asarray(value) for name, value in trained.params.items()}
    extra, dense = {}, None
    if task.name == 'embed':
        if task.output_width:
            layer = params.pop('projection/kernel'), params.pop('projection/bias')
            dense = sentence_transformers.Layer(*layer, task.output_activation)
        # The classifier serves only the training.
        params = {name: value for name, value in params.items() if not name.startswith('classifier/')}
        data = experiment.data
        extra = sentence_transformers.make_files(task.pooling, model.width, data.length, dense, data.prompts)
    tensors = huggingface.to_tensors(params, hf_config, 'rtd' if task.name == 'rtd' else '')
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_files.write(
        tokenizer,
        folder,
        int(min(model.longest_row, experiment.data.length))
        if task.name in _TRUNCATING
        else model.max_positions,
        segments=hf_config.get('type_vocab_size', 0) > 1,
        special_tokens=task.name != 'clm',
        prefix_space=task.name == 'tag',
        padding_side='left' if model.causal else 'right',
    )
    if task.name in ('clm', 'denoise', 'seq2seq'):
        _write_json(folder / 'generation_config.json', _generation_config(experiment, tokenizer))
    for name, content in extra.items():
        (folder / name).parent.mkdir(exist_ok=True)
        _write_json(folder / name, content)
    if dense:
        tensors_of_dense = sentence_transformers.dense_tensors(dense)
        files.write_tensors(tensors_of_dense, folder / '2_Dense' / 'model.safetensors', {'format': 'pt'})
    files.write_tensors(tensors, folder / 'model.safetensors', {'format': 'pt'})
    card = model_card.make(folder.name, trained, checkpoint.read_metadata(source)[1], hf_config, license)
    (folder / 'README.md').write_text(card)
    # Written last: a folder counts as a model once it has a config.
    _write_json(folder / 'config.json', hf_config)


def _exported_model(experiment: Experiment) -> Any:
    """Return the settings with which a model is exported: an encoder that detects replaced tokens as an ELECTRA.

    Its pooler, which only fine-tuning adds, has a gelu there.
    """
    model = experiment.model
    return dataclasses.replace(model, pooler_activation='gelu') if experiment.task.name == 'rtd' else model


def _has_next_sentence(task: Any) -> bool:
    return getattr(task, 'sentence_objective', 'none') != 'none'


def _max_length(folder: pathlib.Path, task_name: str, max_positions: int) -> int:
    """Return the number of tokens to which transformers truncates a text if it is told to."""
    settings = tokenizer_settings.read_json(folder / 'tokenizer_config.json') or {}
    length = settings.get('model_max_length')
    if task_name in _TRUNCATING and isinstance(length, int) and length > 3:
        return min(length, max_positions)
    return max_positions


def _generation_config(experiment: Experiment, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a `generation_config.json` with which transformers generates the same texts as our task."""
    task, data, model = experiment.task, experiment.data, experiment.model
    start = tokenizer.sep if task.name == 'clm' else tokenizer.cls  # rows of clm have no [CLS]
    settings = {'pad_token_id': tokenizer.pad, 'bos_token_id': start, 'eos_token_id': tokenizer.sep}
    if not model.causal:
        settings['decoder_start_token_id'] = tokenizer.decoder_start
    if not tokenizer.prefix:
        del settings['bos_token_id']
    if task.name == 'seq2seq':
        length = data.target_length or data.length
        settings['max_new_tokens'] = length if task.decoder_only else int(min(length, model.longest_row - 1))
        settings |= {'do_sample': False, 'num_beams': task.num_beams}
        if task.num_beams > 1:
            settings |= {'length_penalty': task.length_penalty, 'early_stopping': False}
    return settings


def _write_json(file: pathlib.Path, value: dict[str, Any]) -> None:
    paths.write_atomic(file, json.dumps(value, indent=2) + '\n')
