"""MaskFlow (arXiv 2502.11234): videos as tokens, made by unmasking them; and its tokenizer."""
