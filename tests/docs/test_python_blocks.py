"""The Python examples of the documentation run, on tiny models in place of the runs that they load."""

import re

import pytest

from tests.docs import pages

# Runs that examples load, and the fixtures that stand for them.
RUNS = {
    r'runs/quickstart/pretrain': 'pretrained',
    r'runs/quickstart/finetune/weights=pretrained/seed0': 'finetuned',
    r'runs/(english|multilingual|shuffled)\w*': 'pretrained',
    r'runs/bilingual\w*': 'bilingual',
    r'runs/gpt\w*': 'gpt',
    r'runs/bart\w*': 'bart',
    r'runs/sst2\w*': 'finetuned',
}


def python_blocks(page):
    return [b for b in pages.blocks(page) if b.language == 'python' and not b.reason]


@pytest.mark.parametrize('page', [page for page in pages.names() if python_blocks(page)])
def test_python_examples_run(page, tmp_path, monkeypatch, request):
    """The blocks of a page share their names, and run in a folder with the runs that they load."""
    blocks = python_blocks(page)
    for name in sorted({name for b in blocks for name in re.findall(r'runs/[\w/=-]*\w', b.text)}):
        pattern = next((p for p in RUNS if re.fullmatch(f'{p}(/.*)?', name)), None)
        assert pattern, (
            f'{page} loads {name!r}: use one of {", ".join(RUNS)}, or add it to RUNS in {__file__}'
        )
        run = tmp_path / re.match(pattern, name)[0]
        if not run.exists():
            run.parent.mkdir(parents=True, exist_ok=True)
            run.symlink_to(request.getfixturevalue(RUNS[pattern]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    namespace: dict[str, object] = {'__name__': 'example'}
    for block in blocks:
        # Blank lines before the code make line numbers of errors those of the page.
        code = compile('\n' * block.line + block.text, page, 'exec')
        try:
            exec(code, namespace)
        except Exception as e:
            pytest.fail(f'{block} raises {type(e).__name__}: {e}', pytrace=True)
