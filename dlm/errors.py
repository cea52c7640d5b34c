"""The one exception that a user's mistake raises; the command line prints it as one line."""


class DlmError(ValueError):
    """Names the field or file, the value found, and what would be right."""
