"""A local server that answers like the Brapi API, with made-up prices and faults on demand."""
