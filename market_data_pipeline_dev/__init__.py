"""`make dev` and `make tail`, the embedded Kafka and MongoDB; in no wheel and no image."""
