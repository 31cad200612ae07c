"""A BERT whose layers share their parameters in a cycle (Takase & Kiyono 2021, arXiv 2104.06022, section 2)."""

import dataclasses

from flax import nnx

from bert_jax.core.config import check_range
from bert_jax.modeling import bert
from bert_jax.modeling.module import Rngs


@dataclasses.dataclass(frozen=True)
class Config(bert.Config):
    """Settings of a BERT, and the length of the cycle.

    Attributes:
      cycle: number of different blocks; layer i uses the block i modulo this number.
    """

    cycle: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 'model', 1, self.layers, 'cycle')

    def base_model(self, rngs: Rngs, pooler: bool) -> 'Cyclic':
        return Cyclic(self, rngs, pooler)


class Cyclic(bert.Bert):
    """The encoder without a head."""

    def __init__(self, config: Config, rngs: Rngs, pooler: bool = True):
        super().__init__(dataclasses.replace(config, scan_layers=False), rngs, pooler)
        blocks = self.layers.blocks
        self.layers.blocks = nnx.List([blocks[i % config.cycle] for i in range(config.layers)])
