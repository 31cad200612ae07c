"""Links, file names, config keys, flags and Python names in the documentation exist."""

import functools
import importlib
import re

import pytest

from docs import commands, generate
from tests.docs import pages
from tests.docs.test_commands import known_keys

_SECTION = re.compile(r'(?:tokenizer|optim|train|mesh|checkpoint|init|task|data|model|eval)\.[a-z_0-9]+')
_FILE = re.compile(r'[\w.-]+(?:/[\w.-]+)*/?')
# Flags of other programs that the documentation names.
OTHER_FLAGS = {'--gpus-per-node', '--nodes', '--ntasks-per-node', '--time', '--cpus-per-task', '--gpus'}


@functools.cache
def _pages_of_reference() -> frozenset[str]:
    return frozenset(f'docs/reference/{name}' for name in generate.pages())


@functools.cache
def _flags() -> frozenset[str]:
    actions = [a for name in commands.names() for a in commands.capture(name, None).parser._actions]
    return frozenset(flag for action in actions for flag in action.option_strings)


@functools.cache
def _anchors(page: str) -> frozenset[str]:
    """Return the anchors of a page: slugs of its headings as on GitHub, and explicit labels."""
    text = pages.prose(page)
    headings = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
    slugs = {re.sub(r'[^\w\- ]', '', h.strip().lower()).replace(' ', '-') for h in headings}
    return frozenset(slugs | set(re.findall(r'^\(([\w-]+)\)=$', text, re.MULTILINE)))


def wrong_links(page: str, text: str | None = None) -> list[str]:
    """Return the links of a page that lead nowhere."""
    found = []
    for target in re.findall(r'\]\(([^)\s]*)\)', pages.prose(page, text)):
        if re.match(r'\w+:', target):
            continue
        file, _, anchor = target.partition('#')
        path = (pages.ROOT / page).parent / file if file else pages.ROOT / page
        name = str(path.resolve().relative_to(pages.ROOT))
        if name in _pages_of_reference():
            continue
        if not path.exists() or (anchor and anchor not in _anchors(name)):
            found.append(target)
    return found


def wrong_words(page: str, text: str | None = None) -> list[str]:
    """Return `line: word` for words in backticks that name a file, key, flag or Python object which does not exist."""
    return [f'{line}: {word}' for line, word in pages.code_words(page, text) if not _exists(word)]


def _exists(word: str) -> bool:
    folders = {path.name for path in pages.ROOT.iterdir() if path.is_dir()}
    if 'NAME' in word or 'X.' in word:  # a pattern
        return True
    if _SECTION.fullmatch(word):
        return word in known_keys() or word.endswith(('.py', '.json', '.jsonl', '.md', '.html'))
    if flag := re.fullmatch(r'(--\w[\w-]*)(=.*)?', word):
        return flag[1] in _flags() | OTHER_FLAGS
    if key := re.fullmatch(r'--config\.([\w.]+)(=.*)?', word):
        return key[1] in known_keys() or key[1].isupper() or key[1].startswith('checkpoints.')
    if re.fullmatch(r'bert_jax(\.\w+)+', word):
        return _is_python_name(word)
    file = word.partition(':')[0]
    if '/' in word and _FILE.fullmatch(file):
        is_ours = file.split('/')[0] in folders or file.endswith(('.py', '.sh'))
        return not is_ours or (pages.ROOT / file).exists()
    return True


def _is_python_name(name: str) -> bool:
    parts = name.split('.')
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module('.'.join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            value = getattr(value, part, None)
        return value is not None
    return False


@pytest.mark.parametrize('page', pages.names())
def test_links_lead_somewhere(page):
    assert not (wrong := wrong_links(page)), (
        f'{page} has links to missing files or headings: {", ".join(wrong)}'
    )


@pytest.mark.parametrize('page', pages.names())
def test_names_in_backticks_exist(page):
    wrong = wrong_words(page)
    assert not wrong, f'{page} names what does not exist (line: name):\n' + '\n'.join(wrong)


@pytest.mark.parametrize(
    'word',
    [
        'configs/nothing.py',
        'launch/nothing.sh',
        'train.stepz',
        '--nothing',
        'bert_jax.core.nothing',
        '--config.train.stepz=1',
    ],
)
def test_wrong_names_are_found(word):
    assert wrong_words('docs/index.md', f'Here is `{word}`.') == [f'1: {word}']


@pytest.mark.parametrize('target', ['nothing.md', 'index.md#nothing', '#nothing'])
def test_wrong_links_are_found(target):
    assert wrong_links('docs/index.md', f'[a]({target})') == [target]
