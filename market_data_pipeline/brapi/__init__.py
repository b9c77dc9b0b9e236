"""The Brapi API: one request, one answer, what a plan allows, what can fail."""
