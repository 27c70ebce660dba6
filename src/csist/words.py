"""Words for numbers, as they stand in messages and summaries."""


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "frame"), counted(0, "frame")
    ('1 frame', '0 frames')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
