"""Write tokenizers into Hugging Face folders."""

import json
import pathlib
from typing import Any, Literal

import tokenizers
from tokenizers import models, pre_tokenizers, processors

from bert_jax.data.tokenizer import FILE, NORMALIZER, Tokenizer


def write(
    tokenizer: Tokenizer,
    folder: pathlib.Path,
    max_length: int,
    segments: bool,
    special_tokens: bool = True,
    prefix_space: bool = False,
    padding_side: Literal['right', 'left'] = 'right',
) -> None:
    """Write the tokenizer files that transformers loads.

    Args:
      tokenizer: tokenizer to write.
      folder: existing folder to write to.
      max_length: tokens to which transformers truncates a text if it is told to.
      segments: whether the model has an embedding for each text of a pair.
      special_tokens: whether to add [CLS] and [SEP] to a text; false for causal models, which continue it.
      prefix_space: whether a byte-level BPE puts a space before a text, as `encode_words` does before each word.
      padding_side: side on which transformers pads texts; a causal model generates after the right end.
    """
    pad, unk, cls, sep, *mask = tokenizer.special_tokens
    backend = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    steps: list[Any] = []
    if tokenizer.is_byte_level:
        if prefix_space and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
            backend.pre_tokenizer.add_prefix_space = True
        adds_space = bool(getattr(backend.pre_tokenizer, 'add_prefix_space', False))
        # Offsets exclude the space before a word.
        steps.append(processors.ByteLevel(trim_offsets=True, add_prefix_space=adds_space))
    if special_tokens:
        # As in `rows.pack`, the first text includes one separator.
        second = int(segments)
        start = f'{cls}:0 ' if tokenizer.prefix else ''
        between = f'{sep}:0' + f' {sep}:{second}' * (len(tokenizer.separators) - 1)
        template = processors.TemplateProcessing(
            single=f'{start}$A:0 {sep}:0',
            pair=f'{start}$A:0 {between} $B:{second} {sep}:{second}',
            special_tokens=[(cls, tokenizer.cls), (sep, tokenizer.sep)],
        )
        steps.append(template)
    backend.post_processor = processors.Sequence(steps)
    backend.save(str(folder / FILE), pretty=False)
    ends = {'cls_token': cls, 'sep_token': sep} if tokenizer.prefix else {'eos_token': sep}
    config: dict[str, Any] = {
        'pad_token': pad,
        'unk_token': unk,
        **(ends if special_tokens else {'bos_token': sep, 'eos_token': sep}),
        **({'mask_token': mask[0]} if mask else {}),
        'padding_side': padding_side,
        'model_max_length': max_length,
        # The class that takes the tokenizer.json as it is; others replace parts of it.
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'model_input_names': ['input_ids', *['token_type_ids'] * segments, 'attention_mask'],
        'clean_up_tokenization_spaces': False,
    }
    if isinstance(backend.model, models.WordPiece):
        # For libraries that read the vocabulary alone.
        normalizer = json.loads(tokenizer.to_json())['normalizer'] or {}
        config |= {theirs: normalizer.get(ours) for theirs, ours in NORMALIZER.items()}
        lines = [''] * len(tokenizer)  # an id without an entry keeps its line
        for entry, index in backend.get_vocab().items():
            lines[index] = '' if {*entry} & {'\n', '\r'} else entry
        (folder / 'vocab.txt').write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    (folder / 'tokenizer_config.json').write_text(json.dumps(config, indent=2) + '\n')
