"""The examples of each config of `pydocs`, generated from the modules of a corpus.

Each generator yields (module, (key, example)). The key identifies the example in its split, which
is the split of the module. A text that was already used, in any split, is skipped.
"""

import itertools
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bert_jax.data.pydocs import facts, prose, source, token_roles
from bert_jax.data.pydocs.source import Item, Module, Signature, Span

MIN_DOCUMENT_CHARS = 200
MAX_SUMMARY_CHARS = 250
MIN_SUMMARY_WORDS = 3
MAX_CONTEXT_CHARS = 1500
MAX_QUESTIONS = 3  # per function
MIN_TOKENS, MAX_TOKENS = 8, 96  # per tagged snippet

KINDS = ('module', 'class', 'function', 'method', 'property')
MATCH = ('mismatch', 'match')

Example = dict[str, Any]
KeyedExample = tuple[str, Example]


def _is_new(text: str, seen: set[str]) -> bool:
    """Return whether a text is not in `seen`, and add it; case and punctuation are ignored."""
    key = prose.normalize(text)
    if not key or key in seen:
        return False
    seen.add(key)
    return True


def text_examples(modules: Iterable[Module]) -> Iterator[tuple[Module, KeyedExample]]:
    """Yield one document per module: its docstrings, preceded by the signatures of functions."""
    seen: set[str] = set()
    for module in modules:
        docs = ((item, prose.clean(item.doc)) for item in module.items)
        text = '\n\n'.join(_with_signature(item, doc) for item, doc in docs if _is_new(doc, seen))
        if len(text) >= MIN_DOCUMENT_CHARS:
            yield module, (module.name, {'title': module.name, 'text': text})


def _with_signature(item: Item, doc: str) -> str:
    if item.signature is None or len(item.signature.text) > source.MAX_SIGNATURE_CHARS:
        return doc
    return f'{item.signature.text}\n\n{doc}'


def _is_sentence(text: str) -> bool:
    words = re.findall(r'[A-Za-z]{2,}', text) if re.match(r'[\w`"\'(]', text) else []
    return len(words) >= MIN_SUMMARY_WORDS and len(text) <= MAX_SUMMARY_CHARS


def classify_examples(modules: Iterable[Module]) -> Iterator[tuple[Module, KeyedExample]]:
    """Yield the first paragraph of each docstring, labeled with the kind of item that it describes.

    On a typical installation about 36 % are methods, the most frequent label. A classifier of word and bigram counts
    has an accuracy of about 67 %.
    """
    seen: set[str] = set()
    for module in modules:
        for item in module.items:
            text = prose.summary(item.doc)
            if _is_sentence(text) and _is_new(text, seen):
                yield module, (item.path, {'text': text, 'label': item.kind})


def pair_examples(modules: Iterable[Module]) -> Iterator[tuple[Module, KeyedExample]]:
    """Yield pairs of signature and summary, labeled with whether the summary describes the signature.

    Each function occurs once with its own summary and once with that of a function of another name in the same split,
    so neither text alone reveals the label. The number of words that both share gives an accuracy of about 86 %.
    """
    seen: set[str] = set()
    splits: dict[str, list[tuple[Module, Item, Signature, str]]] = defaultdict(list)
    for module in modules:
        names: set[str] = set()
        for item in module.items:
            signature = item.signature
            if signature is None or len(signature.text) > source.MAX_SIGNATURE_CHARS:
                continue
            text = prose.summary(item.doc)
            text = text[: prose.sentence_length(text)]
            if item.name not in names and _is_sentence(text) and _is_new(text, seen):
                names.add(item.name)
                splits[module.split].append((module, item, signature, text))
    for members in splits.values():
        ring = sorted(members, key=lambda member: (source.stable_hash(member[1].path), member[1].path))
        ring = [m for i, m in enumerate(ring) if m[1].name != ring[i - 1][1].name]
        for (module, item, signature, own), (_, _, _, other) in itertools.pairwise([*ring, *ring[:1]]):
            for label, text in (('match', own), ('mismatch', other)):
                example = {'signature': signature.text, 'summary': text, 'label': label}
                yield module, (f'{item.path}:{label}', example)


def tagging_examples(modules: Iterable[Module]) -> Iterator[tuple[Module, KeyedExample]]:
    """Yield short definitions and imports, with the syntactic role of each token."""
    seen: set[str] = set()
    for module in modules:
        for i, code in enumerate(filter(str.isascii, module.snippets)):
            try:
                tagged = token_roles.tag(token_roles.dedent(code))
            except (SyntaxError, ValueError, tokenize.TokenError):
                continue
            tokens, tags = [token for token, _ in tagged], [tag for _, tag in tagged]
            if MIN_TOKENS <= len(tokens) <= MAX_TOKENS and _is_new(' '.join(tokens), seen):
                yield module, (f'{module.name}:{i}', {'tokens': tokens, 'tags': tags})


def qa_examples(modules: Iterable[Module]) -> Iterator[tuple[Module, KeyedExample]]:
    """Yield questions on the parameters and results of functions, answered by spans of their documentation."""
    seen: set[str] = set()
    for module in modules:
        for item in module.items:
            if item.signature is None or len(item.signature.text) > source.MAX_SIGNATURE_CHARS:
                continue
            doc = prose.clean(item.doc)
            if len(doc) > MAX_CONTEXT_CHARS:
                doc = doc[: doc.rfind('\n', 0, MAX_CONTEXT_CHARS) + 1].rstrip()
            if not _is_new(doc, seen):
                continue
            context, answers = facts.find_answers(item, doc)
            ids = {f'{item.path}:{kind}:{subject}': (kind, subject) for kind, subject in answers}
            for key in sorted(ids, key=source.stable_hash)[:MAX_QUESTIONS]:
                kind, subject = ids[key]
                question = facts.QUESTIONS[kind].format(subject)
                example: Example = {'id': key, 'title': module.name, 'context': context}
                example |= {'question': question, 'answers': _squad_answers(context, answers[ids[key]])}
                yield module, (key, example)


def _squad_answers(context: str, spans: Sequence[Span]) -> dict[str, list[Any]]:
    return {'text': [context[a:b] for a, b in spans], 'answer_start': [a for a, _ in spans]}
