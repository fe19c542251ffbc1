"""One step of a sequence: does to the text of an event what WORDS_DO says, and passes it on."""

import os

DO = {"upper": str.upper, "exclaim": lambda text: text + "!"}[os.environ["WORDS_DO"]]


def handle(event):
    return {**event, "id": event.id + "+", "data": {"text": DO(event.data["text"])}}
