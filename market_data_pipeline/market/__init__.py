"""What B3 is: sessions, windows, the watchlist, the record of a price and its guard."""
