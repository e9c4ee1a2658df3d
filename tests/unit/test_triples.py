import pytest

from harness.episodes import History, Message
from harness.tasks.write_clear_read import TELLINGS
from harness.triples import Triple, newest, parse, triples

STATEMENTS = {
    "Ana's hat is red.": ("Ana", "hat", "red", "Ana's hat is", "Ana's hat"),
    "Ana has a hat that is red.": ("Ana", "hat", "red", "Ana has a hat that is", "Ana has a hat"),
    "The hat of Ana is red.": ("Ana", "hat", "red", "The hat of Ana is", "The hat of Ana"),
    "Ana painted the hat red.": ("Ana", "hat", "red", "Ana painted the hat", "Ana painted the hat"),
    "12. The capital of Peru is Oslo.": ("Peru", "capital", "Oslo", "The capital of Peru is", "The capital of Peru"),
    "0. The headquarters of Acme is located in the city of Rome.": (
        "Acme",
        "headquarters",
        "Rome",
        "The headquarters of Acme is located in the city of",
        "The headquarters of Acme",
    ),
    "The University of Rome is located in the city of Oslo": (
        "The University of Rome",
        "is located in the city of",
        "Oslo",
        "The University of Rome is located in the city of",
        "The University of Rome",
    ),
    "The author of The Name of Rain is Bo.": (
        "The Name of Rain",
        "author",
        "Bo",
        "The author of The Name of Rain is",
        "The author of The Name of Rain",
    ),
    "3) Catherine O'Hara's child is Bob.": (
        "Catherine O'Hara",
        "child",
        "Bob",
        "Catherine O'Hara's child is",
        "Catherine O'Hara's child",
    ),
    "The name of the current head of state in France is Bo.": (
        "France",
        "current head of state",
        "Bo",
        "The name of the current head of state in France is",
        "The name of the current head of state in France",
    ),
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_is_a_triple(statement):
    fact = parse(statement, "7")
    found = fact.subject, fact.relation, fact.object, fact.prompt, fact.mention
    assert found == STATEMENTS[statement]
    assert fact.text == f"{fact.prompt} {fact.object}."
    assert fact.id == "7"


@pytest.mark.parametrize("telling", TELLINGS)
def test_every_telling_of_the_generated_task_is_understood(telling):
    fact = parse(telling.format(name="Ana", thing="hat", colour="red"))
    assert (fact.subject, fact.relation, fact.object) == ("Ana", "hat", "red")


def test_what_is_no_fact_is_left_out():
    history = History((Message("Good morning!"), Message("Ana's hat is red.", id="a"), Message("Why?")))
    assert triples(history) == [Triple("Ana", "hat", "red", "Ana's hat is red.", "a")]
    assert triples(History(())) == []


def test_a_message_may_hold_many_numbered_facts():
    history = History((Message("0. The capital of Peru is Oslo. 1. Bo is married to Al.\n2. Al is famous for Chess"),))
    assert [fact.object for fact in triples(history)] == ["Oslo", "Al", "Chess"]


def test_the_newest_fact_wins():
    told = ("Ana's hat is red.", "Bo's hat is blue.", "The hat of Ana is green.", "Ana's cup is pink.")
    found = newest(map(parse, told))
    assert [fact.text for fact in found] == ["Bo's hat is blue.", "The hat of Ana is green.", "Ana's cup is pink."]
