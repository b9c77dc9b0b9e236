"""The supervisor of `make dev`, `make tail`, and the embedded Kafka and MongoDB.

None of it is in the wheel or the image of the pipeline.
"""
