"""ALBERT (Lan et al. 2020, arXiv 1909.11942), section 3.1: a BERT whose layers share their parameters."""

import dataclasses

from flax import nnx

from bert_jax.core.config import check_range
from bert_jax.modeling import bert


@dataclasses.dataclass(frozen=True)
class Config(bert.Config):
    """Settings of an ALBERT: those of a BERT, and how many blocks its layers share.

    Attributes:
      groups: number of different blocks; consecutive layers share one.
    """

    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 'model', 1, self.layers, 'groups')

    def base_model(self, rngs: nnx.Rngs, pooler: bool) -> 'Albert':
        return Albert(self, rngs, pooler)


class Albert(bert.Bert):
    """ALBERT without a head. Token embeddings have the width of the model, unlike in the paper."""

    def __init__(self, config: Config, rngs: nnx.Rngs, pooler: bool = True):
        super().__init__(dataclasses.replace(config, scan_layers=False), rngs, pooler)
        blocks, c = self.layers.blocks, config
        self.layers.blocks = nnx.List([blocks[i * c.groups // c.layers] for i in range(c.layers)])
