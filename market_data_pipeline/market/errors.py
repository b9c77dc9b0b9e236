"""What every error of this project has in common."""


class ClearError(Exception):
    """An error whose text is one sentence that says what to do, and contains no secret."""
