"""B3 quotes from Brapi into MongoDB and Kafka, one 30-minute window at a time."""


class ClearError(Exception):
    """An error whose text is one sentence that says what to do, and contains no secret."""
