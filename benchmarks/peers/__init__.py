"""This project beside its peers and the floor: the same folder, server and embedder for all."""
