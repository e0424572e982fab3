"""The evaluation table on disk: keys, parts, manifest, reader, writer, qualities."""
