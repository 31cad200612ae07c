"""The SQuAD format of questions about paragraphs, which XQuAD, MLQA and DRCD also use."""

from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.core.errors import UserError, first_line
from bert_jax.data.formats.common import Invalid, LocatedFields


def is_squad(articles: Sequence[Any]) -> bool:
    """Return whether the entries of a JSON file are articles with paragraphs."""
    return any(isinstance(article, dict) and 'paragraphs' in article for article in articles)


def read(articles: Sequence[Any], path: str) -> LocatedFields:
    """Read the questions of all paragraphs of all articles.

    The fields are `id`, `question`, `context` and `answers`, whose lists `text` and `answer_start` are empty for a
    question that is impossible to answer. A question of a test set has no `answers`. If the article has a title, it is
    the field `title`.
    """
    try:
        paragraphs = [
            (article, paragraph) for article in articles for paragraph in _list(article, 'paragraphs')
        ]
        questions = [(*parents, question) for parents in paragraphs for question in _list(parents[1], 'qas')]
    except (KeyError, TypeError) as e:
        raise UserError(
            f'{path!r} is not in the SQuAD format ({type(e).__name__}: {first_line(e)}). '
            'Write it as {"data": [{"paragraphs": [{"context": ..., "qas": [...]}]}]}.'
        ) from e
    for number, (article, paragraph, question) in enumerate(questions, 1):
        try:
            fields = _read_question(article, paragraph, question)
        except (KeyError, TypeError, AttributeError) as e:
            problem = f'is not in the SQuAD format ({type(e).__name__}: {e}). Correct or remove the question.'
            yield f'question {number}', Invalid(problem)
        else:
            yield f'question {fields["id"]}', fields


def _list(parent: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(found := parent[name], list):
        raise TypeError(f'{name} is a value of type {type(found).__name__}, not a list')
    return found


def _read_question(
    article: Mapping[str, Any], paragraph: Mapping[str, Any], question: Mapping[str, Any]
) -> dict[str, Any]:
    fields = {name: question[name] for name in ('id', 'question')} | {'context': paragraph['context']}
    if 'title' in article:
        fields['title'] = article['title']
    is_impossible = question.get('is_impossible')
    if not isinstance(is_impossible, bool | None):
        raise TypeError(f'is_impossible is {is_impossible!r}, not true or false')
    answers = [] if is_impossible else question.get('answers')
    if answers is not None:
        fields['answers'] = {name: [answer[name] for answer in answers] for name in ('text', 'answer_start')}
    return fields
