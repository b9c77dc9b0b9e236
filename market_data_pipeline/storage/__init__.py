"""The record of the quotes: Parquet files, and the documents in MongoDB."""
