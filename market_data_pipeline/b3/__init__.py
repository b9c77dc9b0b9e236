"""What B3 itself publishes: the official prices of a session, and whether ours agree with them."""
