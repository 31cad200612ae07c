"""What a table of `families` says of one Hugging Face model type."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Family:
    """Mapping of a Hugging Face model type to one of our models.

    Attributes:
      prefix: prefix of the base model's tensor names if the model has a head.
      model: name of our model, with which our parameter paths begin.
      base_modules: for each module of our base model, the Hugging Face module, or a tuple of those that ours
        combines, such as query, key and value; '{}' stands for the layer number.
      head_modules: for each task, the Hugging Face module for each module of our head; takes precedence over
        `base_modules`.
      tied: our parameter for each Hugging Face tensor that must equal it, such as the output embedding.
      config_keys: key of `config.json` for each field of our `Config`.
      defaults: for each key of `config.json` that is read, the value in transformers if the key is absent; a key
        without a default must be present.
      aliases: other names that transformers accepts for keys of `config.json`.
      fixed_config: fields of our `Config` that are the same for the whole family.
      architectures: task for suffixes of class names that differ from `families.ARCHITECTURES`.
      optional_tensors: tensors that are zero if missing.
      unread_tensors: beginnings of the names of tensors that our model lacks, and which are not read; the value says what
        they compute.
      has_linear_kernels: whether kernels are stored as [out, in]; ours are [in, out].
      required_config: for keys of `config.json`, the only value that our model supports.
      equal_config: keys of `config.json` whose value must equal that of another key.
      dropout_keys: for dropout rates of `config.json` that our `Config` lacks, the key of the rate that our model uses
        instead, or 0 where it has no dropout. They matter only in training, so they are written but not read.
      sentence_objective: value of `task.sentence_objective` for a checkpoint with a head for pairs of sentences.
      renames: patterns of tensor names, and what replaces them in names of checkpoints of other libraries.
      class_prefix: beginning of the class names in transformers; empty if models of this type are not exported.
      groups_key: key of `config.json` for the number of groups of layers that share their parameters, whose tensors have
        the number of the group in place of that of the layer; empty if each layer has its own.
      has_gelu_head: whether the masked-LM head uses gelu, whatever the activation of the layers.
      offset_follows_padding: whether positions begin at `pad_token_id` + 1; the unused rows count towards
        `max_position_embeddings`.
      uncounted_position_rows: number of unused rows at the start of the position table that do not count
        towards `max_position_embeddings`.
      flatten: converts a `config.json` with nested settings to one with a separate key for each setting.
      nest: the inverse of `flatten`.
      variant: returns the table for a `config.json`, where the tensors of a model type depend on it; None if they do not.
    """

    prefix: str
    model: str
    base_modules: Mapping[str, str | tuple[str, ...]]
    head_modules: Mapping[str, Mapping[str, str]]
    tied: Mapping[str, str]
    config_keys: Mapping[str, str]
    defaults: Mapping[str, Any]
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    architectures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    optional_tensors: Sequence[str] = ()
    unread_tensors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    has_linear_kernels: bool = True
    required_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    equal_config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dropout_keys: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    sentence_objective: str = 'random'
    renames: Mapping[str, str] = dataclasses.field(default_factory=dict)
    class_prefix: str = ''
    groups_key: str = ''
    has_gelu_head: bool = False
    offset_follows_padding: bool = False
    uncounted_position_rows: int = 0
    flatten: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    nest: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    variant: Callable[[Mapping[str, Any]], 'Family'] | None = None

    def complete(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a `config.json` with the defaults of transformers for absent keys.

        Each alias is replaced by the key that it stands for.
        """
        config = self.flatten(config)
        # In transformers, too, an alias takes precedence over the key that it stands for.
        renamed = {self.aliases[key]: value for key, value in config.items() if key in self.aliases}
        return {**self.defaults, **{k: v for k, v in config.items() if k not in self.aliases}, **renamed}

    def dropout_rates(self, config: Mapping[str, Any]) -> dict[str, float]:
        """Return our model's dropout rate for each of the `dropout_keys`; `config` must be complete, see `complete`."""
        return {key: config[r] if isinstance(r, str) else r for key, r in self.dropout_keys.items()}

    def position_offset(self, config: Mapping[str, Any]) -> int:
        """Return the number of unused rows at the start of the position table; `config` must be complete."""
        if self.offset_follows_padding:
            return config['pad_token_id'] + 1
        return self.uncounted_position_rows

    def layer_number(self, layer: int, config: Mapping[str, Any]) -> int:
        """Return the number in the tensor names of our layer `layer`; `config` must be complete."""
        if not self.groups_key:
            return layer
        return int(layer / (config[self.config_keys['layers']] / config[self.groups_key]))

    def position_rows(self, config: Mapping[str, Any]) -> int:
        """Return the number of rows of the position table; `config` must be complete."""
        return config[self.config_keys['max_positions']] + self.uncounted_position_rows


_BLOCK_MODULES = {
    'qkv': 'attention/qkv', 'q': 'attention/q', 'kv': 'attention/kv', 'out': 'attention/out',
    'q_norm': 'attention/q_norm', 'k_norm': 'attention/k_norm', 'attention_norm': 'attention_norm',
    'cross_q': 'cross_attention/q', 'cross_kv': 'cross_attention/kv', 'cross_out': 'cross_attention/out',
    'cross_norm': 'cross_attention_norm', 'up': 'mlp/up', 'down': 'mlp/down', 'mlp_norm': 'mlp_norm',
}  # fmt: skip


def block_modules(prefix: str, our_prefix: str = '', **modules: str | tuple[str, ...]) -> dict[str, Any]:
    """Map the modules of our blocks to those of Hugging Face blocks, as in `Family.base_modules`.

    Args:
      prefix: prefix of the Hugging Face module names.
      our_prefix: prefix of our module names.
      **modules: Hugging Face module for each of our modules, without `prefix`; a tuple if ours combines several. The
        names of our modules are keys of `_BLOCK_MODULES`.
    """

    def add_prefix(names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return prefix + names if isinstance(names, str) else tuple(prefix + name for name in names)

    return {
        f'{our_prefix}layers/blocks/{{}}/{_BLOCK_MODULES[ours]}': add_prefix(theirs)
        for ours, theirs in modules.items()
    }
