"""MaskFlow's networks (arXiv 2502.11234): the tokenizer of frames and the masked video model."""
