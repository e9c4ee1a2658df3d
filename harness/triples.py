"""Facts as (subject, relation, object): what can be read off one-sentence statements of a fixed form.

Understood are the forms of ``write_clear_read`` and the templates of MemoryAgentBench's FactConsolidation, with or
without a serial number: a possession ("Ana's hat is red."), an attribute ("The capital of Peru is Oslo."), and a
statement with one of its verbs ("Peru is located in the continent of Asia."). In all of them the object comes last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.episodes import History


@dataclass(frozen=True)
class Triple:
    """One fact."""

    subject: str
    relation: str
    """The attribute ("hat", "capital") or the words of the verb ("was founded by")."""
    object: str
    text: str
    """The statement, without its serial number: a prompt, the object and a full stop."""
    id: str | None = None
    """The message's id."""

    @property
    def prompt(self) -> str:
        """The statement up to its object, without the space before it."""
        return self.text[: self.text.rindex(self.object)].rstrip()

    @property
    def mention(self) -> str:
        """The beginning of the prompt that names subject and attribute; with a verb, the subject alone."""
        if self.relation in VERBS:
            return self.subject
        named = [re.search(rf"(?<!\w){re.escape(part)}(?!\w)", self.prompt) for part in (self.subject, self.relation)]
        return self.prompt[: max(match.end() for match in named if match)]


NUMBER = re.compile(r"^\s*\d+\s*[.):]\s*")
BETWEEN = re.compile(r"\n+|(?<=\.)\s+(?=\d+\s*[.):]\s)|(?<=\.)\s+\d+\s*[.):]?\s*$")
"""Between numbered statements: before a serial number, or one left at the end where a text was cut."""
END = re.compile(
    r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bJr\.)(?<!\b[A-Z]\.)(?<=[.!?])\s+(?=\W?[A-Z0-9])"
)
"""Where a sentence ends; not behind an initial or a title."""

VERBS = (
    "was created in the country of",
    "was created in",
    "was created by",
    "was written in the language of",
    "was performed by",
    "was developed by",
    "was founded by",
    "was founded in the city of",
    "was born in the city of",
    "died in the city of",
    "worked in the city of",
    "is married to",
    "is a citizen of",
    "is employed by",
    "is famous for",
    "is located in the city of",
    "is located in the country of",
    "is located in the continent of",
    "is located in",
    "is affiliated with the religion of",
    "is associated with the sport of",
    "plays the position of",
    "works in the field of",
    "holds the position of",
    "speaks the language of",
)

POSSESSION = (
    r"(?P<subject>(?!(?i:it|that|this|there|here|what|who|where|how|when|let|he|she)['’]s )[^:;!?]+?)['’]s "
    r"(?P<relation>(?!(?:an?|the|so|not|very|too|just|going|been|really|always) )(?:\S+ ){0,3}?\S+) "
    r"(?:is|are) (?P<object>.+)"
)
"""Of someone, unlike "Melanie: It's so nice when everyone is here"; what is had is named in four words at most."""

FORMS = tuple(
    re.compile(form)
    for form in (
        r"The (?P<relation>headquarters) of (?P<subject>.+?) is located in the city of (?P<object>.+)",
        r"The name of the (?P<relation>.+) (?:in|of) (?P<subject>.+?) is (?P<object>.+)",
        r"The (?P<relation>type of music) that (?P<subject>.+?) plays is (?P<object>.+)",
        r"The (?P<relation>company) that produced (?P<subject>.+?) is (?P<object>.+)",
        r"The (?P<relation>univer\w+) where (?P<subject>.+?) was educated is (?P<object>.+)",
        rf"(?P<subject>.+?) (?P<relation>{'|'.join(sorted(VERBS, key=len, reverse=True))}) (?P<object>.+)",
        r"The (?P<relation>.+?) of (?P<subject>.+?) (?:is|are) (?P<object>.+)",
        POSSESSION,
        r"(?P<subject>.+?) has an? (?P<relation>.+?) that is (?P<object>.+)",
        r"(?P<subject>\S+) painted the (?P<relation>\S+) (?P<object>.+)",
    )
)
"""Tried in this order: the special ones before those that are part of them."""


def triples(history: History) -> list[Triple]:
    """The facts of a history in the order in which they were told; statements of another form are left out."""
    return [
        triple
        for message in history.messages
        for sentence in sentences(message.content)
        if (triple := parse(sentence, message.id)) is not None
    ]


def sentences(text: str) -> list[str]:
    """The statements of a text one by one, without serial numbers."""
    lines = (NUMBER.sub("", line) for line in BETWEEN.split(text))
    return [stripped for line in lines for sentence in END.split(line) if (stripped := sentence.strip())]


def parse(statement: str, id: str | None = None) -> Triple | None:
    """The fact that one statement tells, or None."""
    text = NUMBER.sub("", statement).strip()
    body = text.removesuffix(".")
    found = next((match for form in FORMS if (match := form.fullmatch(body))), None)
    if found is None:
        return None
    return Triple(found["subject"], found["relation"], found["object"], f"{body}.", id)


def newest(facts: Iterable[Triple]) -> list[Triple]:
    """The last told fact of each (subject, relation), in the order in which these were last told."""
    last: dict[tuple[str, str], Triple] = {}
    for fact in facts:
        last.pop((fact.subject, fact.relation), None)
        last[fact.subject, fact.relation] = fact
    return list(last.values())
