"""The index: publishing whole documents, vector indexes, spaces, collecting what is unused."""
