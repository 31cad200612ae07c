"""Collects runs, tables and studies into one HTML page: DIR... --out=report.html."""

import argparse
import pathlib

from bert_jax.core import cli, paths


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.report', description=__doc__)
    parser.add_argument(
        'workdirs',
        nargs='+',
        type=pathlib.Path,
        help='of runs, of tables, of studies, or folders with runs in them',
    )
    parser.add_argument('--out', required=True, type=pathlib.Path)
    parser.add_argument(
        '--fill',
        action='append',
        default=[],
        metavar='TEXT',
        help='a text with [MASK] for the pretrained model',
    )
    parser.add_argument('--plots', type=pathlib.Path, metavar='DIR', help='write the plots there as well')
    flags = parser.parse_args()

    from bert_jax.evals import fill_mask
    from bert_jax.experiments import runs as runs_lib
    from bert_jax.reports import export, page

    cli.check_output(flags.out, '--out')
    written = {workdir: export.find(workdir) for workdir in flags.workdirs}
    found = [
        [] if {p.parent for p in written[workdir]} == {workdir} else runs_lib.find(workdir)
        for workdir in flags.workdirs
    ]
    pretrained = [w for w, runs in zip(flags.workdirs, found, strict=True) if runs and runs[0].pretraining]
    if flags.fill and not pretrained:
        parser.error('--fill needs a pretrained --workdir among the runs')
    filled = fill_mask.fill(str(pretrained[0]), flags.fill) if flags.fill and pretrained else []
    html = page.render(
        [run for group in found for run in group],
        list(zip(flags.fill, filled, strict=False)),
        flags.plots,
        [file for files in written.values() for file in files],
    )
    paths.write(flags.out, html)
    print(f'wrote {flags.out}')
    return 0


if __name__ == '__main__':
    cli.run(main)
