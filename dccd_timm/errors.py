"""The one exception that a user's mistake raises, and an error's text on one line."""


class UserError(ValueError):
    """A mistake in flags, data or surroundings; its text is one line that names the cause and the fix."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's text without line breaks, cut at ``limit`` characters; its type for an error without text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[:limit] + " ..."
