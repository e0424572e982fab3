"""Images: any Hugging Face dataset, folder or parquet file, decoded once."""
