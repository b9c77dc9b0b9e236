"""When a run is launched, what is sent to a chat, and the report on a session."""
