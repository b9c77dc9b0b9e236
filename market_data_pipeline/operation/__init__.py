"""When a run is launched, and who is told what is wrong."""
