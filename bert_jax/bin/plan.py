"""What a pretraining will take on chips that are not here: --config=X.py[:arg] --topology=v5e:4x4[,v5e:16x16] [--search] [--config.a.b=value]."""

import argparse

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.plan', description=__doc__)
    parser.add_argument(
        '--config', required=True, help='a config file of a pretraining, with :arg if it takes one'
    )
    parser.add_argument(
        '--topology',
        required=True,
        help='a TPU, such as v5e:4x4, v4:2x2x2 (v4, v5e, v5p, v6e, tpu7x), asked of the real compiler; or GPUs, such '
        'as h100:8 (a100, h100, h200, b200), by formula. Several with commas make a table',
    )
    parser.add_argument(
        '--strategies', default='', help='in a table: values of mesh.strategy with commas between'
    )
    parser.add_argument(
        '--search', action='store_true', help='the largest batch that fits with each rematerialisation'
    )
    parser.add_argument('--price', type=float, default=0.0, help='of a chip for an hour')
    flags, overrides = cli.parse(parser)
    if flags.price < 0:
        parser.error('--price must not be negative')
    several = ',' in flags.topology.strip(', ')
    if flags.search and (several or flags.strategies):
        parser.error('--search is on one topology, with the mesh.strategy of the config')
    if flags.price and (flags.search or several or flags.strategies):
        parser.error('--price is for the plan of one run')

    from bert_jax.planning import abstract_step, plan
    from bert_jax.train import experiment as experiment_lib
    from bert_jax.train import loop

    topologies = plan.topologies(flags.topology)
    experiment, tokenizer = abstract_step.stand_in(experiment_lib.read(flags.config, overrides))
    phases = loop.phases(experiment, 0)
    if flags.search or len(topologies) > 1 or flags.strategies:
        print(f'{phases[0].batch_size:,} rows of {phases[0].length} tokens, the first phase')
    if flags.search:
        for line in plan.search(experiment, tokenizer, phases[0], topologies[0]):
            print(line, flush=True)
    elif len(topologies) > 1 or flags.strategies:
        settings = [f'mesh.strategy={s}' for s in flags.strategies.split(',') if s]
        read = experiment_lib.read
        meshes = [read(flags.config, [*overrides, s]).mesh for s in settings] or [experiment.mesh]
        print(cli.table(plan.compare(experiment, tokenizer, phases[0], topologies, meshes)))
    else:
        for line in plan.whole(experiment, tokenizer, phases, topologies[0], flags.price):
            print(line, flush=True)
    return 0


if __name__ == '__main__':
    cli.run(main)
