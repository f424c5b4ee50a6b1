"""The texts that the fixture engine has read: prose, code, and characters of many bytes.

Written for this purpose.  The engine's text is a walk through these, so that its answers can be read.  A text is
kept as its *units*: the smallest pieces that follow each other, white space with what comes behind it.
"""

from __future__ import annotations

import re

_PROSE = """
The river had been low all summer, and the old ferry lay on the mud like a sleeping animal. Nobody in the village
remembered when it had last crossed. Martha did, of course; she remembered everything that had to do with the water.
"It will rise again," she said, "and then you will all want to be on the other side." The children laughed at her,
but they brought her the rope that she had asked for, and they watched while she tied one knot after the other.

In the evening the wind came up from the south. First it moved the reeds, then the lanterns, then the boards of the
landing stage. The miller closed his shutters and counted the sacks: forty-one, forty-two, and one that had burst. It
was not the rain that he was afraid of, it was the silence before it. When the first drops fell, they fell on the
ferry, and the sound was like somebody who knocks at a door and does not wait for the answer.

Nobody slept. The water took the reeds at midnight and the landing stage at two. Martha stood on the deck with a
lantern in her hand, and the rope held. "Who wants to cross?" she asked, and the whole village came: the miller and
his sacks, the children, the dog that belonged to nobody; and the other side was as dark and as wet as this one, but
it was higher. In the morning they looked back and saw that the river had the street, and that it was in no hurry.

They stayed for nine days. Then the mud came back, and the reeds, and the old ferry lay where it had always been. The
children learned to tie the knot. It is a good knot: it holds when it is pulled, and it opens when it is asked.
"""

_CODE = '''
def settle(entries, *, limit=100):
    """Return the balance of every account, oldest first."""
    balance = {}
    for entry in entries:
        if entry.amount == 0:
            continue
        account = balance.setdefault(entry.account, [])
        account.append(entry.amount)
        if len(account) > limit:
            raise ValueError(f"too many entries: {entry.account!r}")

    return {name: sum(amounts) for name, amounts in balance.items()}


class Ledger:
    """Keeps entries; forgets nothing."""

    def __init__(self, path):
        self.path = path
        self.entries = []

    def read(self):
        with open(self.path) as lines:
            for number, line in enumerate(lines, 1):
                line = line.rstrip("\\n")
                if not line or line[0] == "#":
                    continue
                try:
                    self.entries.append(Entry.parse(line))
                except ValueError as error:
                    print(f"{self.path}:{number}: {error}")

    def total(self, account=None):
        found = 0
        for entry in self.entries:
            if account is None or entry.account == account:
                found += entry.amount

        return found


if __name__ == "__main__":
    ledger = Ledger("entries.txt")
    ledger.read()
    print(settle(ledger.entries))


'''

# Units are parted by "|".  Combining marks and joiners stand alone on purpose: a chunk may begin with one.
_MULTIBYTE = """春|の|海|、|ひねもす|のたり|のたり|かな|。|
|古池|や|蛙|飛びこむ|水|の|音|。|

|床前|明月|光|，|疑是|地上|霜|。|舉頭|望|明月|，|低頭|思|故鄉|。|
|안녕|하세요|, |세계|여|! |오늘|은|👩|\u200d|👩|\u200d|👧|\u200d|👦|와| 함께|。|
|Grüße| aus| Zürich|: |e|\u0301|tude|, |n|\u0303|, |a|\u0308|o|\u0308|u|\u0308| — |Ça| va| ?| |🏳\ufe0f|\u200d|🌈|
|👍🏽|👍🏿| |🇨🇭|🇯🇵|🇰🇷| |Привет|, |мир|! |Как| дела|?|
|नमस्ते| |दुनिया|। |ใ|น|น้ำ|มี|ปลา| |שָׁלוֹם| |مرحبا|، |Ελληνικά| και|
|数学|：|∀|x|∈|ℝ|：|x|²| ≥ |0|。|𝒜|𝓑|𝔘| |𠮷|野家|で|🍣|と|🍵|。|
|👨🏾|\u200d|🚀| |🧑|\u200d|⚖️| |Z|\u0351|\u036b|a|\u0335|l|\u0322|g|\u0321|o|\u0327|
|naïve| |façade| |“|quoted|”| |…|
"""

_PARAGRAPHS = " " + "\n\n".join(part.replace("\n", " ") for part in _PROSE.strip().split("\n\n"))
_WORDS = tuple(re.findall(r"\s*\S+", _PARAGRAPHS))

UNITS: dict[str, tuple[str, ...]] = {
    "prose": _WORDS,
    "code": tuple(re.findall(r"\s*(?:\w+|[^\w\s]+)", _CODE)),
    "multibyte": tuple(_MULTIBYTE.rstrip("|\n").split("|")),
    "json": tuple(word.replace('"', '\\"').replace("\n", "\\n") for word in _WORDS),  # inside of a JSON string
}


# Texts that break seams easily: repetitions, and white space after white space.  The
# vocabulary has not read them.
REPEATING: dict[str, tuple[str, ...]] = {
    "loop": (" la", " la", " la", ", la"),
    "spaces": (
        "Para",
        " one.",
        "\n",
        "\n\n",
        "Para",
        " two.",
        "\n",
        "    ",
        "\t",
        "x",
        " ",
        "  ",
        "\n\n\n",
        "    y",
        "\r\n",
    ),
}


def words(text: str) -> list[str]:
    """Any text in pieces that are short; joined they are the text again."""
    return _ANY.findall(text)


_ANY = re.compile(r"\s*\S{1,16}|\s+\Z")
