"""Quotes as events on Kafka: what an event looks like, and how a window of them is published."""
