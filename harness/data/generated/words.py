"""Words of generated rows: wide pools, so that no answer comes up often."""

from __future__ import annotations

import datetime as dt

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = ("two", "three", "four", "five", "six")


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in " ".join(text.split()).split(","))


CITIES = dict(
    pair.split(" in ")
    for pair in _list(
        """
        Oslo in Norway, Lisbon in Portugal, Kyoto in Japan, Lima in Peru, Cairo in Egypt, Vienna in Austria,
        Bergamo in Italy, Krakow in Poland, Prague in Czechia, Budapest in Hungary, Athens in Greece, Dublin in Ireland,
        Helsinki in Finland, Uppsala in Sweden, Aarhus in Denmark, Reykjavik in Iceland, Tallinn in Estonia,
        Riga in Latvia, Vilnius in Lithuania, Zagreb in Croatia, Ljubljana in Slovenia, Belgrade in Serbia,
        Sofia in Bulgaria, Bucharest in Romania, Seville in Spain, Lyon in France, Leipzig in Germany,
        Bruges in Belgium, Utrecht in Netherlands, Geneva in Switzerland, Ankara in Turkey, Amman in Jordan,
        Muscat in Oman, Mumbai in India, Lahore in Pakistan, Dhaka in Bangladesh, Kathmandu in Nepal,
        Bangkok in Thailand, Hanoi in Vietnam, Manila in Philippines, Jakarta in Indonesia, Busan in Korea,
        Taipei in Taiwan, Perth in Australia, Quito in Ecuador, Bogota in Colombia, Santiago in Chile,
        Rosario in Argentina, Montevideo in Uruguay, Asuncion in Paraguay, Caracas in Venezuela, Havana in Cuba,
        Kingston in Jamaica, Toronto in Canada, Oaxaca in Mexico, Chicago in America, Rabat in Morocco,
        Tunis in Tunisia, Accra in Ghana, Dakar in Senegal, Lagos in Nigeria, Nairobi in Kenya, Kampala in Uganda,
        Kigali in Rwanda, Lusaka in Zambia, Harare in Zimbabwe, Windhoek in Namibia, Antananarivo in Madagascar
        """
    )
)
"""A city of each of many countries."""

JOBS = _list(
    """
    baker, nurse, pilot, teacher, lawyer, farmer, florist, plumber, dentist, tailor, butcher, gardener, carpenter,
    mechanic, surgeon, translator, librarian, firefighter, photographer, jeweller, blacksmith, chemist, optician,
    barber, potter, weaver, sculptor, violinist, judge, banker, miner, sailor, fisherman, shepherd, beekeeper, cooper,
    locksmith, glazier, mason, roofer, welder, printer, bookbinder, cobbler, midwife, vet, zoologist, botanist,
    geologist, surveyor, cartographer, architect, bricklayer, cook, waiter, porter, courier, detective, actuary, clown
    """
)
DISHES = _list(
    """
    lasagne, paella, goulash, ramen, risotto, moussaka, borscht, ratatouille, gumbo, pierogi, falafel, tagine,
    biryani, ceviche, fondue, gnocchi, hummus, kimchi, pho, quiche, ravioli, satay, tempura, ziti, couscous, dumplings,
    enchiladas, fajitas, gazpacho, jambalaya, kedgeree, laksa, minestrone, nachos, okonomiyaki, pancakes, quesadillas,
    raclette, schnitzel, tabbouleh, udon, vindaloo, waffles, yakitori, bruschetta, carbonara, dolma, empanadas,
    frittata, haggis
    """
)
INSTRUMENTS = _list(
    """
    cello, flute, guitar, piano, trumpet, violin, accordion, banjo, bassoon, clarinet, drums, harp, horn, mandolin,
    oboe, organ, saxophone, sitar, trombone, tuba, ukulele, viola, xylophone, zither, bagpipes, bongos, dulcimer,
    harmonica, lute, lyre
    """
)
SPORTS = _list(
    """
    archery, badminton, baseball, basketball, bowling, boxing, canoeing, climbing, cricket, curling, cycling, darts,
    diving, fencing, football, golf, gymnastics, handball, hockey, judo, karate, kayaking, lacrosse, netball, polo,
    rowing, rugby, sailing, skating, skiing, squash, surfing, tennis, volleyball, wrestling, yoga
    """
)
ANIMALS = _list(
    """
    badgers, bats, bears, beavers, boars, buzzards, cranes, deer, dolphins, eagles, egrets, foxes, frogs, geese, goats,
    hares, hawks, hedgehogs, herons, ibises, jays, kestrels, kites, lizards, lynxes, magpies, moles, newts, otters,
    owls, pelicans, puffins, ravens, seals, storks, swans, toads, voles, weasels, wolves
    """
)
VEGETABLES = _list(
    """
    artichokes, asparagus, aubergines, beans, beetroot, broccoli, cabbage, carrots, cauliflower, celery, chard,
    chicory, courgettes, cucumbers, fennel, garlic, kale, leeks, lentils, lettuce, marrows, mushrooms, okra, onions,
    parsnips, peas, peppers, potatoes, pumpkins, radishes, rhubarb, shallots, spinach, swedes, sweetcorn, tomatoes,
    turnips, watercress
    """
)
LANGUAGES = _list(
    """
    Arabic, Basque, Bengali, Breton, Catalan, Dutch, Estonian, Finnish, Galician, Georgian, Greek, Hausa, Hebrew,
    Hindi, Icelandic, Igbo, Irish, Italian, Kannada, Kazakh, Khmer, Latvian, Malay, Maltese, Maori, Marathi, Nepali,
    Norwegian, Persian, Polish, Quechua, Sinhala, Slovak, Somali, Swahili, Tamil, Telugu, Thai, Turkish, Urdu, Uzbek,
    Welsh, Wolof, Xhosa, Yoruba, Zulu
    """
)
EVENTS = (
    ("ran a marathon", "run a marathon"),
    ("moved into a new flat", "move into a new flat"),
    ("adopted a puppy", "adopt a puppy"),
    ("sold the old van", "sell the old van"),
    ("passed the driving test", "pass the driving test"),
    ("planted an apple tree", "plant an apple tree"),
    ("broke an ankle", "break an ankle"),
    ("won a chess tournament", "win a chess tournament"),
    ("gave a talk at the library", "give a talk at the library"),
    ("painted the kitchen", "paint the kitchen"),
    ("lost a wallet", "lose a wallet"),
    ("saw a whale", "see a whale"),
    ("met the mayor", "meet the mayor"),
    ("climbed the lighthouse", "climb the lighthouse"),
    ("opened a small shop", "open a small shop"),
    ("bought a canoe", "buy a canoe"),
    ("finished the pottery course", "finish the pottery course"),
    ("joined a choir", "join a choir"),
    ("repaired the greenhouse", "repair the greenhouse"),
    ("baked a wedding cake", "bake a wedding cake"),
    ("donated blood", "donate blood"),
    ("visited the planetarium", "visit the planetarium"),
    ("wrote the first chapter", "write the first chapter"),
    ("rode a camel", "ride a camel"),
)
"""What somebody did, and did somebody do?"""
SMALL_TALK = (
    "How has your week been?",
    "I have been meaning to call you for days.",
    "The weather is so odd at the moment.",
    "That sounds good to me.",
    "I slept badly and drank too much tea.",
    "Tell me more when we see each other.",
    "I could not agree more.",
    "The trains are late again, as ever.",
    "My phone is nearly empty, so I will be short.",
    "You always know what to say.",
    "I laughed about that all day.",
    "Let us keep our fingers crossed.",
    "There is a queue in front of every shop today.",
    "I still have your umbrella, by the way.",
    "We should meet for a walk soon.",
    "What a day, I am glad that it is over.",
)

ADJECTIVES = _list(
    """
    Silent, Amber, Broken, Hidden, Last, Northern, Crimson, Distant, Empty, Frozen, Gentle, Hollow, Iron, Jagged,
    Kindly, Lonely, Marble, Narrow, Orphan, Pale, Quiet, Restless, Scarlet, Tangled, Umber, Velvet, Wandering, Yellow,
    Bitter, Copper, Drowned, Early, Faithful, Golden, Humble, Ivory
    """
)
NOUNS = _list(
    """
    Harbour, Orchard, Lantern, Bridge, Winter, Mirror, Anchor, Beacon, Candle, Doorway, Engine, Feather, Garden,
    Horizon, Island, Journey, Kettle, Ladder, Meadow, Needle, Oath, Pilgrim, Quarry, Riddle, Sparrow, Thicket, Umbrella,
    Voyage, Whisper, Yard, Bargain, Compass, Dagger, Echo, Furnace, Granary
    """
)
SURNAMES = _list(
    """
    Abbot, Barlow, Corrigan, Dunmore, Ellery, Fenwick, Galt, Hollis, Irving, Jessop, Kettering, Lockhart, Marlowe,
    Norwood, Ormond, Pemberton, Quigley, Radcliffe, Sheridan, Thackeray, Underhill, Vance, Wexford, Yardley, Ashby,
    Bancroft, Carver, Dalton, Everett, Farrow, Garrick, Hadley, Ingram, Jarvis, Kendrick, Langley, Merrick, Nesbitt,
    Oakley, Prescott, Quince, Rowntree, Sinclair, Tolliver, Upton, Verity, Whitlock, Yates, Aldous, Brandt, Crowther,
    Drummond, Eastman, Fairfax, Goddard, Hartley, Innes, Joyner, Kirkby, Lambert
    """
)
PLACE_STARTS = _list(
    """
    Harrow, Bram, Stone, Wether, Long, Kings, Ash, Black, Cold, Dun, Elm, Fal, Green, Hart, Ing, Kel, Lang, Mar, Nor,
    Oak, Pen, Quer, Rams, Sal, Thorn, Up, Wal, Yar, Bex, Chil
    """
)
PLACE_ENDS = _list(
    """
    mere, ford, by, ton, wick, field, worth, bury, den, ham, ley, stead, combe, gate, haven, minster, thorpe, well,
    hurst, dale
    """
)
RIVERS = tuple(start + end for start in ("Ar", "Bel", "Cor", "Dov", "Esk", "Fow", "Gar", "Hel", "Is", "Jor", "Kem",
    "Lod", "Min", "Nev", "Or", "Pel") for end in ("a", "en", "ine", "ow", "und", "ath", "is", "ock"))  # fmt: skip

CORPORA = _list(
    """
    Heron, Juniper, Kelp, Larch, Marble, Nettle, Acorn, Basalt, Cobalt, Dahlia, Ember, Fjord, Gorse, Hazel, Indigo,
    Jasper, Kestrel, Lupin, Magnet, Nimbus, Onyx, Poplar, Quartz, Rowan, Sorrel, Teasel, Umbra, Violet, Willow, Yarrow
    """
)
TOPICS = _list(
    """
    tagging, parsing, summarisation, question answering, dialogue, translation, paraphrasing, entity linking,
    coreference, stance detection, spelling correction, transliteration
    """
)
BASELINES = _list(
    """
    a majority vote, a linear classifier, a nearest-neighbour search, a bag-of-words model, a decision tree,
    a random forest, a hidden Markov model, a perceptron, a trigram model, a rule-based tagger, a support vector
    machine, a gradient-boosted ensemble, a keyword lookup, a recurrent network, a convolutional network,
    a conditional random field, a naive Bayes filter, a pointer network, a topic model, a template matcher
    """
)
OPTIMISERS = _list(
    """
    Adam, Adagrad, Adadelta, RMSProp, Nadam, Adafactor, Lion, LAMB, momentum descent, plain gradient descent,
    Shampoo, Rprop
    """
)
METRICS = _list(
    """
    accuracy, macro F1, micro F1, BLEU, ROUGE, METEOR, perplexity, exact match, mean reciprocal rank, word error rate,
    Matthews correlation, average precision
    """
)


def date(day: dt.date, comma: bool = False) -> str:
    """As LoCoMo writes it: ``7 May 2023`` in answers, ``7 May, 2023`` in session dates; in English in any locale."""
    return f"{day.day} {MONTHS[day.month - 1]}{',' if comma else ''} {day.year}"


def article(noun: str) -> str:
    """The noun with a or an."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
