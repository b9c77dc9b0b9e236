"""When a run is launched, and what is sent to a chat."""
