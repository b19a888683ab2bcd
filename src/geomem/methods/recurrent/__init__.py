"""A recurrent memory of fixed size in the backbone, the alternative to retrieval."""
