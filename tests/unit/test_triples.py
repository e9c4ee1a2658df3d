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


@pytest.mark.parametrize(
    "text",
    [
        "The capital of Peru is Oslo. The capital of Chile is Rome.",
        "0. The capital of Peru is Oslo. 1. Chile's capital is Rome.",
    ],
)
def test_a_message_may_hold_many_sentences(text):
    assert [fact.object for fact in triples(History((Message(text),)))] == ["Oslo", "Rome"]


def test_a_serial_number_left_by_a_cut_is_no_part_of_a_fact():
    (fact,) = triples(History((Message("1. The capital of Peru is Oslo. 2."),)))
    assert fact.object == "Oslo"


@pytest.mark.parametrize("name", ["Samuel L. Jackson", "Dr. No", "St. Lucia", "Yahoo!", "Star Trek: Deep Space Nine"])
def test_a_name_with_marks_is_one_name(name):
    (fact,) = triples(History((Message(f"3. The author of {name} is Bo."),)))
    assert (fact.subject, fact.object) == (name, "Bo")


@pytest.mark.parametrize(
    "text",
    [
        "Melanie: It's so nice when everyone is together.",
        "That's what I thought when we were there and it is true.",
        "Let's go when the weather is fine.",
        "Ana's a teacher where Bo is a pupil.",
        "Ana: Bo's hat is red.",
    ],
)
def test_what_people_say_is_no_fact_of_theirs(text):
    assert triples(History((Message(text),))) == []


def test_the_attribute_is_found_behind_a_name_that_holds_its_letters():
    assert parse("Oscar's car is red.").mention == "Oscar's car"


def test_the_newest_fact_wins():
    told = ("Ana's hat is red.", "Bo's hat is blue.", "The hat of Ana is green.", "Ana's cup is pink.")
    found = newest(map(parse, told))
    assert [fact.text for fact in found] == ["Bo's hat is blue.", "The hat of Ana is green.", "Ana's cup is pink."]
