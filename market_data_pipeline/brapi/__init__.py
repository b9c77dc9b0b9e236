"""The Brapi API: one request, one answer, what a plan and its quota allow, what can fail."""
