"""Score a text classifier: --config=configs/finetune/X.py --checkpoint=DIR --out=FILE.json [--watch]."""

from bert_jax.core import cli
from bert_jax.evals import command


def main() -> int:
    return command.main('classify', __doc__)


if __name__ == '__main__':
    cli.run(main)
