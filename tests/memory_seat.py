"""A seat for the screen alone, with a model that likes some words; and what speaks to a screen as a browser does."""

import asyncio
import itertools
import json
from pathlib import Path

from pinmill.errors import StoreError

REQUESTS = itertools.count()
WORDS = {"free": 1.2, "prize": 0.8, "meeting": -1.0, "lunch": -0.7}
TEXTS = [
    "Win a FREE prize now 🎉: the meeting is cancelled, and lunch is free.",
    "See you at lunch, after the meeting.\nBring the notes, please.",
    "<b>bold</b> <script>window.pwned = 1</script> free &amp; easy",
    *(f"Text number {number}, with a prize for whom reads it." for number in range(3, 30)),
]


class MemorySeat:
    """What `pinmill.widget.Annotator` asks of a seat; every label, skip and undo is a line of `labels.jsonl`.

    While there is a file `fail`, nothing can be saved, and it says why.
    """

    workflow, guideline = "spam", "Spam is what nobody asked for.\n\nIf in doubt, skip."

    def __init__(self, records=None, *, labels=("ham", "spam"), text="text", annotator="ann", folder="."):
        self.records = records or [{text: each} for each in TEXTS]
        self.labels, self.text, self.annotator = labels and [*labels], text, annotator
        self.folder, self.done = Path(folder), []

    def take(self, n):
        said = {number for number, *_ in self.done}
        return [self.tell(number) for number in range(len(self.records)) if number not in said][:n]

    def tell(self, number):
        record = self.records[number]
        about = {"id": f"id-{number}", "key": f"key-{number}", "expires": "", "strategy": "random"}
        return {**about, "record": record, "prediction": self.score(record)}

    def score(self, record):
        if not self.labels:
            return {"value": 12.25, "explanation": [{"feature": name, "contribution": 1.0} for name in record][:1]}
        words = " ".join(map(str, record.values())).lower()
        pushes = {word: words.count(word) * weight for word, weight in WORDS.items() if word in words}
        share = 1 / (1 + 2.718281828 ** -sum(pushes.values()))
        first, last, sign = self.labels[0], self.labels[-1], 1 if share > 0.5 else -1
        told = [{"feature": f"word: {word}", "contribution": sign * push} for word, push in pushes.items()]
        probability = {str(first): 1 - share, str(last): share}
        return {"label": last if share > 0.5 else first, "probability": probability, "explanation": told}

    def label(self, item, label, *, record, seconds, note):
        self.write(item, {"label": label, "record": record, "note": note})
        assert seconds >= 0
        return {"id": item["id"], "label": label, "known": False}

    def skip(self, item, *, note, seconds):
        self.write(item, {"skip": True, "note": note})

    def undo(self):
        if not self.done:
            return None
        number, what = self.done.pop()
        self.write(None, {"undo": what["id"]})
        return self.tell(number)

    def progress(self):
        own, skipped = len([what for _, what in self.done if "label" in what]), len(self.done)
        about = {"own": own, "today": own, "skipped": skipped - own, "pace": 240.0}
        return {"open": len(self.records) - skipped, "done": own, "agreement": 0.9, "compared": 10, **about}

    def write(self, item, what):
        if (self.folder / "fail").exists():
            raise StoreError("The store cannot be written: its disk is full. Make room on it, then try again.")
        what = {**({"id": item["id"]} if item else {}), **what}
        if item:
            self.done.append((int(item["id"].removeprefix("id-")), what))
        with (self.folder / "labels.jsonl").open("a") as file:
            file.write(json.dumps(what) + "\n")


def sign_in(given):
    """The seat of who gives the right token."""
    if given != "right":
        raise StoreError("This token is not known: ask whoever runs this for one.")
    return MemorySeat()


def talk(widget, *messages):
    """What the widget sends when the browser sends `messages`, each after all has come to rest."""
    sent = []
    widget.send = lambda content, buffers=None: sent.append(json.loads(json.dumps(content)))

    async def run():
        for message in messages:
            widget._handle_custom_msg(message, [])
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

    asyncio.run(run())
    return sent


def ask(do, **more):
    """A message as a browser makes it, with a request of its own."""
    return {"do": do, "request": f"r{next(REQUESTS)}", **more}
