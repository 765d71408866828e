"""Talk, notes and diaries of the fictional world: text with many right continuations."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from pkt.tasks.nano.world import ATTRIBUTES, SPEAKERS, TOWNS

_MOODS = ["tired", "happy", "quiet", "curious", "hungry", "late", "busy", "proud", "calm", "lost"]
_TIMES = [
    "at dawn",
    "before noon",
    "after lunch",
    "in the evening",
    "at night",
    "last week",
    "on a rainy day",
]
_ACTS = [
    "walked along the river",
    "read an old letter",
    "sold a painting",
    "fixed the roof",
    "sang in the square",
    "lost a key",
    "planted a tree",
    "baked bread",
    "painted the gate",
    "waited for the boat",
]
_REPLIES = [
    "I think so.",
    "Not today.",
    "Ask me again later.",
    "That is good news.",
    "I have heard that before.",
    "Who told you?",
    "Maybe next year.",
    "You should tell the mayor.",
]


def talk(rng: Random) -> str:
    """Write two people's exchange of two to four lines."""
    first, second = rng.sample(SPEAKERS, 2)
    lines = [
        f"{first}: Have you been to {rng.choice(TOWNS)} lately, {second}?",
        f"{second}: {rng.choice(_REPLIES)}",
    ]
    if rng.random() < 0.5:
        lines.append(f"{first}: They say {rng.choice(SPEAKERS)} {rng.choice(_ACTS)} {rng.choice(_TIMES)}.")
        lines.append(f"{second}: {rng.choice(_REPLIES)}")
    return "\n".join(lines)


def diary(rng: Random) -> str:
    """Write a diary entry of one to three sentences."""
    name = rng.choice(SPEAKERS)
    sentences = [f"{name} {rng.choice(_ACTS)} {rng.choice(_TIMES)}." for _ in range(rng.randint(1, 2))]
    return " ".join([*sentences, f"{name} felt {rng.choice(_MOODS)} and {rng.choice(_MOODS)}."])


def shopping(rng: Random) -> str:
    """Write a list of things and numbers; nothing follows from it."""
    things = rng.sample(ATTRIBUTES["dish"], rng.randint(2, 4))
    return (
        f"List of {rng.choice(SPEAKERS)}: "
        + ", ".join(f"{rng.randint(1, 99)} {thing}" for thing in things)
        + "."
    )


PROSE: tuple[Callable[[Random], str], ...] = (talk, diary, shopping)
