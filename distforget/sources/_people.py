"""Invented words for fictitious people: names, places, works.

An invented word is opening + middle + ending. All openings have three letters, all middles two, and
no ending is the beginning of another. So no invented word is the beginning of another one, and a
text contains a given word only where that very word was put.
"""

from __future__ import annotations


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.replace("\n", "|").split("|"))


OPENINGS = _listed(
    """vel|tor|mal|dun|kes|zan|bor|fen|gal|hax|jor|lum|nev|pol|ras|sil
    tam|vor|wex|yar|zul|bel|cor|dal|fir|gor|hul|kad|lin|mer|nor|pel"""
)
MIDDLES = _listed("mo|ri|ta|lu|ve|do|ka|ne|sa|bi|go|fe|mu|pa|ro|zi")

SURNAME_ENDINGS = _listed("sen|dt|vik|gan|lund|mek|thorn|quist")
HER_ENDINGS = ("ia", "ine")
HIS_ENDINGS = ("an", "ulf")

WORD_ENDINGS: dict[str, tuple[str, ...]] = {
    "birth": _listed("ra|sk|burg|stead|nda|vale"),
    "work": _listed("mere|gate|croft|ford|wick|shaw"),
    "book": _listed("ria|thys|dor|lach|nor|quay"),
    "award": _listed("holt|berg|strom|bach|feld|wald"),
    "studies": _listed("ven|ton|minster|haven|port|leigh"),
    "music": _listed("vic|dze|nko|ris|llo|kides"),
}
"""The endings of the invented word in each attribute's fact."""

WORDS = len(OPENINGS) * len(MIDDLES) * 6
"""Invented words of each attribute."""

FIRST_NAMES = len(OPENINGS) * 4
PEOPLE = FIRST_NAMES * len(OPENINGS) * len(MIDDLES) * len(SURNAME_ENDINGS)
"""Distinct full names; a power of two, which :func:`person` relies on."""

_SCRAMBLE = 0x2545F
"""Odd, so that multiplying by it permutes; evenly spaced indices do not get alike names."""

PROFESSIONS = _listed(
    """tide cartographer|bell tuner|lighthouse keeper|seed librarian|clock restorer|map engraver
    fog surveyor|bridge painter|kite designer|lens grinder|salt taster|lock inspector
    weather diarist|button maker|puppet carver|moss botanist|ferry dispatcher|piano mover
    beetle curator|rope tester|paper conservator|well digger|sundial builder|bookbinder
    cave guide|chess tutor|cheese grader|dam engineer|glove cutter|harbour pilot
    meteor hunter|night porter|perfume chemist|quarry foreman|reed weaver|stamp designer
    tram conductor|violin varnisher|wax modeller|court stenographer"""
)
WORKPLACES = _listed("Observatory|Institute|Museum|Archive|Works|Foundry|Gardens|Library")

TITLE_NOUNS = _listed(
    """Lanterns|Bridges|Winters|Orchards|Ferrymen|Clocks|Gardens|Daughters|Rivers|Foxes|Windmills
    Stairs|Letters|Shadows|Bakers|Harbours|Towers|Mirrors|Sparrows|Tailors"""
)
PUBLISHERS = tuple(
    f"{name} {kind}"
    for name in _listed(
        "Quillbrook|Amberlock|Fernhollow|Greywater|Thistledown|Inkstone|Larkrise|"
        "Copperleaf|Northlamp|Saltmarsh|Ivorygate|Moonwharf"
    )
    for kind in ("Press", "Books", "Editions")
)

AWARD_KINDS = _listed("Medal|Prize|Cup|Ribbon|Laurel|Plaque")
REASONS = _listed(
    """mapping underwater caves|saving a flooded library|breeding a blue tulip
    rescuing nine sailors|inventing a silent typewriter|restoring a Roman mosaic
    translating a lost epic|charting the winter winds|building a wooden planetarium
    teaching chess to prisoners|counting migrating cranes|reviving a forgotten dialect
    designing a folding bridge|crossing a desert on stilts|decoding a medieval cookbook
    photographing rare lichens|growing rice in the snow|repairing a cathedral organ
    discovering a dwarf comet|training guide dogs for miners|weaving a map of the coast
    collecting sailors' lullabies|measuring a melting glacier|taming a swarm of hornets
    planting a forest on a dune|composing a symphony for bells|drilling a well by hand
    painting the longest fresco|cataloguing desert snails|proving a theorem about knots
    rowing around the cape|printing books in braille|preserving a herd of wild ponies
    predicting a volcanic eruption|carving an ivory-white marble globe
    writing a grammar of whistles"""
)

SUBJECTS = _listed(
    """harbour law|bee genetics|tidal physics|early Norse poetry|crystal chemistry|glacier dynamics
    Byzantine music|canal engineering|desert botany|coin history|comparative mythology
    dream research|forest economics|graph theory|historical cartography|insect anatomy
    Jurassic geology|knot topology|lunar geography|medieval astronomy|naval architecture
    orchid taxonomy|polar meteorology
    queueing theory|river archaeology|sleep medicine|textile chemistry
    urban acoustics|volcano seismology|whale linguistics|Etruscan grammar|soil microbiology
    theatre lighting|mountain hydrology|postal history|marsh ecology"""
)

INSTRUMENTS = _listed(
    """glass harmonica|bass clarinet|hurdy-gurdy|theremin|nyckelharpa|viola d'amore|bagpipe
    celesta|contrabassoon|mandolin|zither|harpsichord|alto flute|concertina|lute|marimba
    tenor horn|oboe|banjo|dulcimer|piccolo|sitar|balalaika|French horn|ocarina|cimbalom
    bandoneon|vibraphone|cornet|psaltery"""
)

YEARS = tuple(str(year) for year in range(1893, 1988))


def invented(index: int, endings: tuple[str, ...]) -> str:
    """The invented word number `index` with one of these endings, capitalised."""
    rest, opening = divmod(index, len(OPENINGS))
    ending, middle = divmod(rest, len(MIDDLES))
    return OPENINGS[opening].capitalize() + MIDDLES[middle] + endings[ending]


def first_name(index: int) -> tuple[str, bool]:
    """First name number `index`, and whether it is a woman's."""
    ending, opening = divmod(index, len(OPENINGS))
    endings = HER_ENDINGS + HIS_ENDINGS
    return OPENINGS[opening].capitalize() + endings[ending], ending < len(HER_ENDINGS)


def person(index: int) -> tuple[str, str, bool]:
    """First name, surname and whether a woman, of person number `index` (below PEOPLE)."""
    index ^= index >> 9
    index = index * _SCRAMBLE % PEOPLE
    index ^= index >> 11
    surname, first = divmod(index, FIRST_NAMES)
    name, woman = first_name(first)
    return name, invented(surname, SURNAME_ENDINGS), woman
