"""Pictures on disk and in memory: which there are, their pixels, their labels."""
