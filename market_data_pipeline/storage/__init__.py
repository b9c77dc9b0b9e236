"""The record of the quotes: Parquet files, the documents in MongoDB, and B3's own closes."""
