"""Text from files, made safe to print."""


def printable(value: object, length: int = 64) -> str:
    """Text out of a file for a message: one line, plain ASCII, no control characters, not long."""
    text = "".join(c if " " <= c <= "~" else "?" for c in str(value))
    return text if len(text) <= length else text[: length - 3] + "..."
