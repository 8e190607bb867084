"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """A mistake in flags, data or surroundings; its text is one line that names the cause and the mend."""
