"""B3 quotes from Brapi into MongoDB and Kafka, one 30-minute window at a time."""
