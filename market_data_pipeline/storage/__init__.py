"""The record of the quotes: Parquet files, and their projection in MongoDB."""
